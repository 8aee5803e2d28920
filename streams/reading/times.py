"""Times in any notation as seconds since the epoch, the same for every reader.

The unit of a number (seconds to nanoseconds) follows from its magnitude. Texts are ISO 8601 in
extended or basic form, with an offset also after a blank, or RFC 2822; without a zone, UTC.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

from models.errors import UnreadableRecording
from models.events import UNITS, unit_of

EARLIEST_S = 631_152_000
"""1990: a smaller number is no time."""

_CACHED = 65_536
_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{4}/\d\d/\d\d|\d{8})"
    r"(?:[T ]\s?(?P<clock>\d\d:?\d\d(?::?\d\d(?:[.,]\d+)?)?)"
    r"(?: ?(?P<offset>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)(?: [A-Z]{2,5})?)?)?",
    re.ASCII,
)
_RFC_2822 = re.compile(
    r"(?:[A-Z][a-z]{2}, ?)?\d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d(?::\d\d)?"
    r"(?: (?:[+-]\d{4}|[A-Z]{1,5}))?(?: \([^)]*\))?",
    re.ASCII,
)


class Moment(NamedTuple):
    """A time in seconds since the epoch, and its notation."""

    s: float
    written: str


ReadTime = Callable[[str], Moment | None]
"""Parser of times; None for a text that is no time."""


def number_of(text: str) -> float | None:
    """A finite number; None for other text, Python's `1_000` included.

    >>> number_of(" 1.5e3 "), number_of("1_000"), number_of("nan")
    (1500.0, None, None)
    """
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text and text.isascii() else None


def moment_of(text: str) -> Moment | None:
    """The time in a text of any notation.

    >>> moment_of("1600000000123"), moment_of("20200913T122640Z")
    (Moment(s=1600000000.123, written='milliseconds'), Moment(s=1600000000.0, written='ISO 8601'))
    >>> moment_of("2020-09-13 14:26:40 +0200").s, moment_of("Sun, 13 Sep 2020 12:26:40 GMT").s
    (1600000000.0, 1600000000.0)
    """
    number = number_of(text)
    if number is None:
        return _of_text(text.strip())
    # Eight digits are a date: as seconds they would lie in 1970.
    if len(text) == 8 and 19_900_101 <= number <= 21_001_231 and text.isdigit():
        return _of_text(text)
    unit = unit_of(number)
    return Moment(number / UNITS[unit], unit)


@lru_cache(_CACHED)
def _of_text(text: str) -> Moment | None:
    found = _ISO.fullmatch(text)
    try:
        if found:
            date = found["date"].replace("/", "-")
            clock = (found["clock"] or "00:00").replace(",", ".")
            offset = found["offset"] or ""
            if offset in {"Z", "UTC", "GMT"}:
                offset = "+00:00"
            day = datetime.fromisoformat(date).date().isoformat()
            return Moment(_s(datetime.fromisoformat(f"{day}T{clock}{offset}")), "ISO 8601")
        if _RFC_2822.fullmatch(text):
            return Moment(_s(parsedate_to_datetime(text)), "RFC 2822")
    except (ValueError, OverflowError):
        return None
    return None


def time_reader(time_format: str) -> ReadTime:
    """Parser of times in a `strptime` format or a unit; of any notation for "".

    >>> time_reader("%d/%m/%Y %H:%M")("13/09/2020 12:26"), time_reader("milliseconds")("1600000000")
    (Moment(s=1599999960.0, written='%d/%m/%Y %H:%M'), Moment(s=1600000.0, written='milliseconds'))

    Raises
    ------
    UnreadableRecording
        It is neither.
    """
    if not time_format:
        return moment_of
    if time_format in UNITS:
        return lambda text: _of_unit(text, time_format)
    try:
        example = datetime(2020, 1, 2, tzinfo=UTC).strftime(time_format)
        is_format = "%" in time_format and bool(datetime.strptime(example, time_format))  # noqa: DTZ007
    except (ValueError, re.error):
        is_format = False
    if not is_format:
        raise UnreadableRecording(
            f"--time-format {time_format!r}: neither as strptime has it, such as %d/%m/%Y, nor one"
            f" of {', '.join(UNITS)}"
        )

    @lru_cache(_CACHED)
    def of_format(text: str) -> Moment | None:
        try:
            return Moment(_s(datetime.strptime(text.strip(), time_format)), time_format)  # noqa: DTZ007  UTC without a zone
        except (ValueError, OverflowError):
            return None

    return of_format


def _of_unit(text: str, unit: str) -> Moment | None:
    number = number_of(text)
    return None if number is None else Moment(number / UNITS[unit], unit)


def _s(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
