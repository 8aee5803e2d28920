r"""Lines of delimited text as fields.

One record is one line, as Amazon Personalize has it, unless a quote that opens on a line closes
properly within `MAX_RECORD_LINES` lines, and none of those lines is a record of its own: so a stray
quote costs its own line only.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from models.errors import InvalidRecord, UnreadableRecording
from streams.reading.records.text_streams import MAX_LINE_CHARS, TextLine, is_decoded

MAX_RECORD_LINES = 50
"""Most lines of one record with quotes around line ends."""

NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar", " ": "blank", "::": "::"}
SAMPLE_LINES = 200

NOT_TEXT = "not UTF-8 text"
QUOTES = "quotes that do not fit"
OPEN_QUOTE = "a quote that does not close"

Fields = list[str] | InvalidRecord
Split = Callable[[str], list[str] | None]


class _Quoting(NamedTuple):
    """Patterns of lines with quoted fields for one separator: complete, and with an open quote."""

    whole: re.Pattern[str]
    open: re.Pattern[str]


@lru_cache
def _quoting(separator: str) -> _Quoting:
    sep = re.escape(separator)
    field = rf'(?:"(?:[^"]|"")*+"|[^"{sep}]*+)'
    return _Quoting(
        re.compile(rf"{field}(?:{sep}{field})*+", re.DOTALL),
        re.compile(rf'(?:{field}{sep})*+"(?:[^"]|"")*+', re.DOTALL),
    )


def split(line: str, separator: str) -> list[str] | None:
    r"""The fields of a line; `None` where its quotes do not fit.

    Quotes that do not fit are text where fields are not separated by commas and the like: titles in
    tab-separated files begin with them.

    >>> split('a,"b, ""c"" d",e', ","), split('a,"b', ","), split('a\t"b" c', "\t")
    (['a', 'b, "c" d', 'e'], None, ['a', '"b" c'])
    """
    if separator == " ":
        return _blanks(line)
    if '"' not in line or len(separator) > 1:
        return line.split(separator)
    if not _quoting(separator).whole.fullmatch(line):
        return line.split(separator) if separator == "\t" else None
    fields: list[str]
    # Line ends inside quotes stay as they are.
    (fields,) = csv.reader([line], delimiter=separator, strict=True)
    return fields


def _blanks(line: str) -> list[str] | None:
    """Fields separated by blanks; quoted fields may contain blanks."""
    if '"' not in line:
        return line.split()
    try:
        rows = list(csv.reader([line], delimiter=" ", skipinitialspace=True, strict=True))
    except csv.Error:
        return None
    return [field for field in rows[0] if field]


def records(
    lines: Iterator[tuple[int, TextLine]], separator: str, width: int
) -> Iterator[tuple[int, Fields]]:
    """Records by the number of their first line, or errors of bad ones; blank lines are skipped.

    Parameters
    ----------
    width
        Number of fields of a record.
    """
    wrong_width = InvalidRecord(f"not {width} columns")
    ahead: list[tuple[int, TextLine]] = []
    while True:
        number, line = ahead.pop(0) if ahead else next(lines, (0, ""))
        if not number:
            return
        if isinstance(line, InvalidRecord):
            yield number, line
            continue
        if not line or line.isspace():
            continue
        if not is_decoded(line):
            yield number, InvalidRecord(NOT_TEXT)
            continue
        fields = split(line, separator)
        if fields is not None and len(fields) == width:
            yield number, fields
            continue
        if _is_open(line, separator):
            joined = _joined(line, lines, ahead, separator, width)
            yield number, joined or InvalidRecord(OPEN_QUOTE)
            continue
        yield number, InvalidRecord(QUOTES) if fields is None else wrong_width


def _is_open(line: str, separator: str) -> bool:
    """True if a quote opens in a line and does not close."""
    if '"' not in line or len(separator) > 1 or separator == " ":
        return False
    return _quoting(separator).open.fullmatch(line) is not None


def _joined(
    first: str,
    lines: Iterator[tuple[int, TextLine]],
    ahead: list[tuple[int, TextLine]],
    separator: str,
    width: int,
) -> list[str] | None:
    """The record of several lines that begins with a line; None if there is none.

    Lines that were read and belong to no such record stay in `ahead`.
    """
    text = first
    for n in range(MAX_RECORD_LINES - 1):
        if n == len(ahead):
            ahead.extend(islice(lines, 1))
        line = ahead[n][1] if n < len(ahead) else None
        if not isinstance(line, str) or not is_decoded(line) or _is_record(line, separator, width):
            return None
        text = f"{text}\n{line}"
        if len(text) > MAX_LINE_CHARS:
            return None
        if '"' not in line or _is_open(text, separator):
            continue
        fields = split(text, separator)
        if fields is None or len(fields) != width:
            return None
        del ahead[: n + 1]
        return fields
    return None


def _is_record(line: str, separator: str, width: int) -> bool:
    """True if a line has the width of a record, with or without regard to quotes."""
    return width > 1 and (
        line.count(separator) == width - 1 or len(split(line, separator) or ()) == width
    )


def separator_of(
    name: str, sample: Sequence[str], count_known: Callable[[Sequence[str]], int]
) -> str:
    """Field separator of lines, by the file name and by the widths of the lines.

    Parameters
    ----------
    count_known
        Number of usual column names in the fields of a first line.

    Raises
    ------
    UnreadableRecording
        Two separators fit.
    """
    by_name = "\t" if name.endswith((".tsv", ".tab")) else "," if name.endswith(".csv") else ""
    scores: dict[str, tuple[float, ...]] = {}
    for separator in NAMES:
        first = split(sample[0], separator) or ()
        if len(first) < 2 or (separator == " " and scores):
            continue
        widths = [len(split(line, separator) or ()) for line in sample]
        share = widths.count(len(first)) / len(widths)
        n_known = count_known(first)
        scores[separator] = (n_known, round(share, 1), separator == "::", separator == by_name)
    if not scores:
        return by_name or ","
    best = max(scores.values())
    found = [separator for separator, score in scores.items() if score == best]
    if len(found) > 1:
        named = " or ".join(NAMES[each] for each in found)
        raise UnreadableRecording(f"fields may be separated by {named}: name it with --separator")
    return found[0]


def parsed_separator(text: str) -> str:
    r"""The separator in an option: the character, or its name.

    >>> parsed_separator("tab"), parsed_separator(";"), parsed_separator("\\t")
    ('\t', ';', '\t')

    Raises
    ------
    UnreadableRecording
        It is neither.
    """
    names = {name: separator for separator, name in NAMES.items()} | {"\\t": "\t"}
    found = names.get(text, text)
    if found not in NAMES and (len(found) != 1 or found.isalnum() or found == '"'):
        raise UnreadableRecording(
            f"--separator {text!r}: one character, or one of {', '.join(NAMES.values())}"
        )
    return found
