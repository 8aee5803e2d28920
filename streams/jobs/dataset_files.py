"""Rows of a dataset by its schema, one at a time, for imports and deletions.

Files have any format of `streams.reading`. The column of a schema field is that of the known
format; in other files the one with the field's name in any case, and without one the column that
has one of the field's usual names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from models.errors import CannotPrepare, InvalidRecord
from models.personalize.datasets.dataset_rows import columns_of, missing_fields, typed
from models.personalize.datasets.dataset_schemas import Column, Schema
from streams.object_store import Objects
from streams.reading.column_mapping import DATASETS, DatasetKind, short_names
from streams.reading.fields import TIMES, ColumnSource, RowChecker, text_or_none
from streams.reading.read_options import ReadOptions
from streams.reading.reader import read_rows
from streams.reading.recognition import RecognisedSource, recognise

_RESERVED = frozenset(name for dataset in DATASETS.values() for name in dataset.reserved)
"""Fields with the same checks in every reader."""


class DatasetRow(NamedTuple):
    """A row: its object and first line, and its values by column or the error of a bad row."""

    where: str
    values: dict[str, Any] | InvalidRecord


class DatasetRows:
    """The rows of an object, of a folder's objects, or of the objects that match a pattern.

    Parameters
    ----------
    latest_s
        Times after this are in the future: bad rows.

    Raises
    ------
    InvalidInput
        The first object lacks columns of the schema.
    UnreadableRecording
        The file is no data, damaged, or ambiguous.
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
        shared = {name: self._sources[name] for name in self._sources if name in _RESERVED}
        nullable = frozenset(column.name for column in schema.columns if column.is_nullable)
        self._check = RowChecker(
            shared, self.source.read_time, latest_s=latest_s, optional=nullable
        )

    def read(self, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[DatasetRow]:
        """All rows in order; blank lines are skipped."""
        source = self.source
        needed = [each.column for each in self._sources.values() if each.column in source.columns]
        for place, values in read_rows(self._objects, source, needed=needed, on_bytes=on_bytes):
            yield DatasetRow(source.row_location(place), self._values(values))

    def _values(self, row: Any) -> dict[str, Any] | InvalidRecord:  # noqa: ANN401
        if isinstance(row, InvalidRecord):
            return row
        try:
            checked = self._check(row).values
            found = {
                column.name: _value(column, checked[column.name])
                if column.name in checked
                else typed(column, text_or_none(self._sources[column.name].get(row)))
                for column in self._schema.columns
            }
        except InvalidRecord as error:
            return error
        return {name: value for name, value in found.items() if value is not None}


def _sources(source: RecognisedSource, schema: Schema) -> dict[str, ColumnSource]:
    """Source of each column of the schema.

    The mapping of a known format comes before names: its column `user_id`, for example, may be
    empty for anonymous visitors. In other files names come before the mapping.
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
    # A key that no record of the sample has.
    sources |= {
        each.name: ColumnSource(source.value_getter(each.name), each.name) for each in missing
    }
    return {column.name: sources[column.name] for column in schema.columns}


def _value(column: Column, value: Any) -> Any:  # noqa: ANN401  a checked value
    if column.name in TIMES and value is not None:
        # Whole seconds: the column is an integer.
        return math.floor(value)
    if value is None and not column.is_nullable:
        raise InvalidRecord(f"{column.name}: empty")
    return value
