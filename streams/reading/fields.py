"""Checks and values of the fields of a row, the same for every reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from models.errors import InvalidRecord
from streams.reading.records.sheets import text_of
from streams.reading.times import EARLIEST_S, ReadTime, number_of

MAX_CHARS = {
    "USER_ID": 256,
    "ITEM_ID": 256,
    "EVENT_TYPE": 256,
    "IMPRESSION": 1000,
    "RECOMMENDATION_ID": 40,
    "EVENT_ATTRIBUTION_SOURCE": 1024,
}
IDS = frozenset({"USER_ID", "ITEM_ID"})
TIMES = frozenset({"TIMESTAMP", "CREATION_TIMESTAMP"})
VALUES = frozenset({"EVENT_VALUE"})
REQUIRED = frozenset({"USER_ID", "ITEM_ID", "TIMESTAMP", "EVENT_TYPE"})
"""Fields that may not be empty in any row."""

NULL_TEXTS = frozenset({"NULL", "null", "\\N", "NaN", "nan", "None", "NaT", "<NA>"})
"""Texts of missing values, as SQL, Hive, Python and pandas write them."""

MAX_SHOWN = 40

# A lone surrogate of UTF-16, as JSON can escape it, is no text either.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")
_TRUTHS = {"true": 1.0, "false": 0.0}

ReadValue = Callable[[Any], Any]
"""Function from a row to the value of a column."""


class RowError(InvalidRecord):
    """The error of one field of a row.

    Attributes
    ----------
    reason
        Text without the value, by which rows with the same error are counted together.
    """

    def __init__(self, field: str, error: str, column: str = "", value: object = None) -> None:
        self.reason = f"{field}: {error}"
        where = f" in column {column}" if column and column != field else ""
        shown = "" if value is None else f": {str(value)[:MAX_SHOWN]!r}"
        super().__init__(f"{self.reason}{shown}{where}")


class ColumnSource(NamedTuple):
    """Source of a field: the reader of a column; without a column name, of a constant text."""

    get: ReadValue
    column: str = ""


class CheckedRow(NamedTuple):
    """Values of a good row by field, and the notation of its time."""

    values: dict[str, Any]
    written: str


def text_or_none(value: Any) -> str | None:  # noqa: ANN401  any value of a row
    """A value as text; None for a missing value."""
    text = value if isinstance(value, str) else text_of(value)
    if text is None or text in NULL_TEXTS or not text or text.isspace():
        return None
    return text


def reason_of(error: InvalidRecord) -> str:
    """Reason of a bad row, in words that rows with the same error share."""
    return error.reason if isinstance(error, RowError) else str(error)


class RowChecker:
    """Checks rows and converts their values.

    Parameters
    ----------
    sources
        Source of each field; fields without a meaning of their own are texts.
    read_time
        Parser of times.
    latest_s
        Times after this are in the future: bad rows.
    optional
        Otherwise required fields that may be empty.
    """

    def __init__(
        self,
        sources: Mapping[str, ColumnSource],
        read_time: ReadTime,
        *,
        latest_s: float,
        optional: frozenset[str] = frozenset(),
    ) -> None:
        self._read_time = read_time
        self._latest_s = latest_s
        self._required = REQUIRED - optional
        self._steps = [
            (name, source.get, source.column, self._check_of(name))
            for name, source in sources.items()
        ]

    def __call__(self, row: Any) -> CheckedRow:  # noqa: ANN401  a list or a mapping
        """The checked values of a row.

        Raises
        ------
        InvalidRecord
            The first field, in the order of the sources, is bad.
        """
        values: dict[str, Any] = {}
        written = ""
        for name, get, column, check in self._steps:
            value = check(name, get(row), column)
            if name in TIMES and value is not None:
                value, how = value
                written = written or how
            values[name] = value
        return CheckedRow(values, written)

    def _check_of(self, name: str) -> Callable[[str, Any, str], Any]:
        if name in IDS:
            return self._id
        if name in TIMES:
            return self._time
        return self._value if name in VALUES else self._text

    def _id(self, name: str, value: Any, column: str) -> str | None:  # noqa: ANN401
        if isinstance(value, (list, dict)):
            raise RowError(name, "neither text nor a number", column)
        text = text_or_none(value)
        if text is None:
            self._refuse_empty(name, column)
            return None
        if len(text) > MAX_CHARS[name]:
            raise RowError(name, f"more than {MAX_CHARS[name]} characters", column)
        if not text.isprintable() and _CONTROL.search(text):
            raise RowError(name, "control characters", column, text)
        return text

    def _time(self, name: str, value: Any, column: str) -> tuple[float, str] | None:  # noqa: ANN401
        text = text_or_none(value)
        if text is None:
            self._refuse_empty(name, column)
            return None
        moment = self._read_time(text)
        if moment is None:
            raise RowError(name, "not a time", column, text)
        if moment.s < EARLIEST_S:
            raise RowError(name, "before 1990", column, text)
        if moment.s > self._latest_s:
            raise RowError(name, "in the future", column, text)
        return moment

    def _value(self, name: str, value: Any, column: str) -> float | None:  # noqa: ANN401
        text = text_or_none(value)
        if text is None:
            self._refuse_empty(name, column)
            return None
        number = number_of(text)
        if number is None:
            number = _TRUTHS.get(text.strip().lower())
        if number is None:
            raise RowError(name, "not a number", column, text)
        return number

    def _text(self, name: str, value: Any, column: str) -> str | None:  # noqa: ANN401
        text = text_or_none(value)
        if text is not None and not (text.isprintable() and text[0] != " " != text[-1]):
            text = _CONTROLS.sub(" ", text).strip(" ") or None
        if text is None:
            self._refuse_empty(name, column)
            return None
        if len(text) > MAX_CHARS.get(name, len(text)):
            raise RowError(name, f"more than {MAX_CHARS[name]} characters", column)
        return text

    def _refuse_empty(self, name: str, column: str) -> None:
        if name in self._required:
            raise RowError(name, "empty", column)


def value_getter(path: str, columns: Sequence[str] | None) -> ReadValue:
    """Reader of a column of rows that are lists; without columns, of a path of keys in mappings.

    >>> value_getter("b", ["a", "b"])(["1", "2"]), value_getter("a.b", None)({"a": {"b": 3}})
    ('2', 3)
    """
    if columns is not None:
        n = columns.index(path)
        return lambda row: row[n]
    keys = path.split(".")

    def get(row: Mapping[str, Any]) -> Any:  # noqa: ANN401
        if path in row:
            return row[path]
        found: Any = row
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    return get
