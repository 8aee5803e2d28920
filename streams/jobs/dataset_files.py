"""Rows of a dataset by its schema, one at a time: what an import or a deletion reads.

Files are of any format that `streams.reading` knows. A column is what a known format says; else the
one of that name, in any case, and where one lacks, what its other names say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from models.errors import CannotPrepare, InvalidRecord
from models.personalize.dataset_rows import columns_of, missing_fields, typed
from models.personalize.dataset_schemas import Column, Schema
from streams.object_store import Objects
from streams.reading.column_mapping import DATASETS, DatasetKind, short_names
from streams.reading.fields import TIMES, ColumnSource, RowChecker, text_or_none
from streams.reading.read_options import ReadOptions
from streams.reading.reader import read_rows
from streams.reading.recognition import RecognisedSource, recognise

_PLAIN = frozenset(name for dataset in DATASETS.values() for name in dataset.reserved)
"""Fields that are checked alike by every reader."""


class DatasetRow(NamedTuple):
    """One row: the object and the line where it begins, and what it says or what is wrong."""

    where: str
    values: dict[str, Any] | InvalidRecord


class DatasetRows:
    """The rows of an object, of the objects of a folder, or of those that a pattern fits.

    Parameters
    ----------
    latest_s
        A time after this lies in the future.

    Raises
    ------
    InvalidInput
        The first object lacks columns of the schema.
    UnreadableRecording
        It is no data, damaged, or two readings fit.
    ObjectNotFound, ObjectRefused, Unavailable
        As `streams.object_store` says.
    """

    def __init__(
        self, objects: Objects, location: str, schema: Schema, kind: DatasetKind, *, latest_s: float
    ) -> None:
        self.source = recognise(objects, location, ReadOptions(), kind)
        self.n_bytes = sum(file.size for file in self.source.files)
        self._objects = objects
        self._schema = schema
        self._sources = _sources(self.source, schema)
        plain = {name: self._sources[name] for name in self._sources if name in _PLAIN}
        nullable = frozenset(column.name for column in schema.columns if column.is_nullable)
        self._check = RowChecker(plain, self.source.read_time, latest_s=latest_s, optional=nullable)

    def read(self, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[DatasetRow]:
        """All rows, in their order; blank lines are none."""
        source = self.source
        needed = [each.column for each in self._sources.values() if each.column in source.columns]
        for place, values in read_rows(self._objects, source, needed=needed, on_bytes=on_bytes):
            yield DatasetRow(source.row_location(place), self._said(values))

    def _said(self, row: Any) -> dict[str, Any] | InvalidRecord:  # noqa: ANN401
        if isinstance(row, InvalidRecord):
            return row
        try:
            checked = self._check(row).values
            said = {
                column.name: _value(column, checked[column.name])
                if column.name in checked
                else typed(column, text_or_none(self._sources[column.name].get(row)))
                for column in self._schema.columns
            }
        except InvalidRecord as error:
            return error
        return {name: value for name, value in said.items() if value is not None}


def _sources(source: RecognisedSource, schema: Schema) -> dict[str, ColumnSource]:
    """Where each column of the schema comes from.

    Of a known format, from where the format says: its `user_id` may be empty of whoever has not
    logged in. Else it is the column of that name, and where one lacks, what other names say.
    """
    short = dict(zip(short_names(source.columns, source.list_column), source.columns, strict=True))
    called = {name: short[each] for name, each in columns_of(schema, [*short]).items()}
    sources = {
        name: ColumnSource(source.value_getter(column), column) for name, column in called.items()
    }
    wanted = {column.name for column in schema.columns}
    if source.format is None and wanted <= sources.keys():
        return sources
    try:
        others = source.field_sources(source.map_columns())
    except CannotPrepare:
        others = {}
    sources = sources | others if source.format else others | sources
    missing = [column for column in schema.columns if column.name not in sources]
    lacks = [each.name for each in missing if not (source.is_mapping and each.is_nullable)]
    if lacks:
        raise missing_fields(lacks)
    # A key that no record has yet.
    sources |= {
        each.name: ColumnSource(source.value_getter(each.name), each.name) for each in missing
    }
    return {column.name: sources[column.name] for column in schema.columns}


def _value(column: Column, value: Any) -> Any:  # noqa: ANN401  what the checks gave
    if column.name in TIMES and value is not None:
        # Whole seconds, as the type of the column says.
        return math.floor(value)
    if value is None and not column.is_nullable:
        raise InvalidRecord(f"{column.name}: empty")
    return value
