"""Options of reading an input; everything left empty is recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.reading.column_mapping import ColumnOptions


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading an input.

    Attributes
    ----------
    format
        One of `registry.names`.
    encoding
        Python's name of it: utf-8, cp1252, …
    separator
        Field separator of a line.
    columns
        Column names of a file without a header.
    records
        Path of keys to the list of records in a JSON document.
    list_column
        Column with a list: each element becomes a row with the other columns of its record; keys of
        an element are `<list_column>.<key>`.
    time_format
        A `strptime` format, or seconds, milliseconds, microseconds, nanoseconds.
    column_options
        The user's mapping of columns to fields.
    """

    format: str = ""
    encoding: str = ""
    separator: str = ""
    columns: Sequence[str] = ()
    records: Sequence[str] = ()
    list_column: str = ""
    time_format: str = ""
    column_options: ColumnOptions = field(default_factory=ColumnOptions)
