"""Which format a file has, and which columns, by its name and how it begins."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from models.errors import UnreadableRecording

Format = Literal["csv", "json", "jsonl", "movielens", "parquet", "tsv"]
"""`json` is a list of records, or a document with one inside; `movielens` separates by `::`."""

FORMATS: tuple[Format, ...] = get_args(Format)
SEPARATORS = {"csv": ",", "movielens": "::", "tsv": "\t"}
MAX_COLUMNS = 1000

Names = Callable[[int], Sequence[str]]
"""Names for so many columns of an input that has none."""


def numbered(n: int) -> list[str]:
    """Names for so many columns of which nothing is known.

    >>> numbered(2)
    ['column1', 'column2']
    """
    return [f"column{i + 1}" for i in range(n)]


_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tab": "tsv",
    ".tsv": "tsv",
}
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)


def guess(url: str, head: str) -> Format:
    """The format that the name of a file or the first of its text tells.

    >>> guess("ratings.dat", "1::2::3.5::978300760"), guess("a.json.gz", '[{"user": 1}]')
    ('movielens', 'json')

    Raises
    ------
    UnreadableRecording
        When they do not tell.
    """
    name = url.rsplit("/", 1)[-1].lower().removesuffix(".gz")
    for ending, format_ in _ENDINGS.items():
        if name.endswith(ending):
            return format_
    start = head.lstrip()[:1]
    if start == "[":
        return "json"
    if start == "{":
        return "jsonl" if _is_lines(head) else "json"
    line = head.lstrip().partition("\n")[0]
    for each in ("movielens", "tsv", "csv"):
        if SEPARATORS[each] in line:
            return each
    raise UnreadableRecording(f"the format is not known: name one of {', '.join(FORMATS)}")


def _is_lines(head: str) -> bool:
    """Whether the first line is an object and more follow, rather than a document of its own."""
    first, _, rest = head.lstrip().partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(rest.strip())


def header(head: str, format_: Format, names: Names) -> tuple[tuple[str, ...], bool]:
    """The names of the columns of delimited text, and whether its first line says them.

    A first line with a number in it is no header.

    >>> header("user, item", "csv", numbered)
    (('user', 'item'), True)

    Raises
    ------
    UnreadableRecording
        When there is no text, or its first line names no columns.
    """
    line, end, _ = head.partition("\n")
    if not line.strip():
        raise UnreadableRecording("the first line is empty")
    if not end and len(head) > 2 * MAX_COLUMNS * 64:
        raise UnreadableRecording("the first line is too long for a header")
    separator = SEPARATORS[format_]
    fields = line.split(separator) if format_ == "movielens" else _quoted(line, separator)
    if format_ == "movielens" or any(map(_NUMBER.fullmatch, fields)):
        columns, has_header = tuple(names(len(fields))), False
    else:
        columns, has_header = tuple(field.strip() for field in fields), True
    check(columns)
    return columns, has_header


def check(columns: Sequence[str]) -> None:
    """Raise `UnreadableRecording` unless these are names by which columns can be told apart."""
    if len(columns) > MAX_COLUMNS:
        raise UnreadableRecording(f"{len(columns)} columns: at most {MAX_COLUMNS} can be read")
    for column in columns:
        if not column or not column.isprintable():
            raise UnreadableRecording(f"no name for a column: {column!r}")
        if columns.count(column) > 1:
            raise UnreadableRecording(f"two columns are called {column!r}")


def _quoted(line: str, separator: str) -> list[str]:
    try:
        (fields,) = csv.reader([line], delimiter=separator, strict=True)
    except (csv.Error, ValueError) as error:
        raise UnreadableRecording(f"the first line is no header: {error}") from error
    return fields
