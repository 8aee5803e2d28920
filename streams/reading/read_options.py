"""What a user says about an input; what is not said is recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.reading.column_mapping import ColumnOptions


@dataclass(frozen=True)
class ReadOptions:
    """How an input is to be read.

    Attributes
    ----------
    format
        A name of `formats.NAMES`.
    encoding
        As Python calls it: utf-8, cp1252, …
    separator
        Between the fields of a line.
    columns
        The names of the columns, where the file does not name them.
    records
        The keys that lead to the list of records inside a JSON document.
    list_column
        The column that holds a list: each of its elements becomes a row of its own, with the other
        columns of the record; keys of an element are `<each>.<key>`.
    time_format
        How times are written, as `strptime` has it, or seconds, milliseconds, microseconds,
        nanoseconds.
    column_options
        Which column is which field.
    """

    format: str = ""
    encoding: str = ""
    separator: str = ""
    columns: Sequence[str] = ()
    records: Sequence[str] = ()
    list_column: str = ""
    time_format: str = ""
    column_options: ColumnOptions = field(default_factory=ColumnOptions)
