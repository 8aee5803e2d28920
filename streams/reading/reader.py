"""Rows of a recognised source, one at a time, each with its place; memory stays bounded.

A bad row is given as its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.errors import InvalidRecord, UnreadableRecording
from streams.object_store import Objects
from streams.reading.column_mapping import DATASETS, normalized_name
from streams.reading.files import OpenFile, open_file
from streams.reading.recognition import ROWS_PER_FILE, RecognisedSource
from streams.reading.reshaping import ReshapedRow, as_mapping, columns_of_mappings, reshape

WITHOUT_COLUMNS = frozenset({"json", "jsonl", "xml"})
"""Shapes whose records name their values themselves, so that each may have others."""


def read_rows(
    objects: Objects,
    source: RecognisedSource,
    *,
    needed: Sequence[str] = (),
    after: int = 0,
    folder: Path | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Iterator[ReshapedRow]:
    """Rows of a source in order.

    Parameters
    ----------
    needed
        Columns required in every file.
    after
        Rows up to this place are skipped.
    on_bytes
        Called with the number of bytes of each read.

    Raises
    ------
    UnreadableRecording
        A file is damaged, or lacks columns of the first; the rows before it were given.
    """
    for n, file in enumerate(source.files):
        first, last = n * ROWS_PER_FILE, (n + 1) * ROWS_PER_FILE
        if last <= after:
            on_bytes(file.size)
            continue
        with open_file(
            objects, file.url, source.options, source.read_time, folder, on_bytes
        ) as each:
            same = _same_columns(each, source, needed)
            records = ((number, same(one)) for number, one in each.records)
            for row in reshape(records, source.format, source.list_column):
                if (place := first + row.place) > after:
                    yield ReshapedRow(place, row.values)


def with_all_columns(
    objects: Objects, source: RecognisedSource, *, has_condition: bool, folder: Path | None
) -> RecognisedSource:
    """The source with the keys of all its records as columns, if options may name them."""
    may_differ = source.shape in WITHOUT_COLUMNS or bool(source.format and source.format.make_rows)
    is_named = (
        has_condition or source.options.column_options.keep or DATASETS[source.kind].keeps_others
    )
    if source.is_whole or not (may_differ and is_named):
        return source
    good = (
        row.values
        for row in read_rows(objects, source, folder=folder)
        if not isinstance(row.values, InvalidRecord)
    )
    return replace(
        source, columns=columns_of_mappings(good, source.list_column, source.format, source.options)
    )


def _same_columns(
    file: OpenFile, source: RecognisedSource, needed: Sequence[str]
) -> Callable[[Any], Any]:
    """Converter of a file's records to the columns of the source."""
    if file.shape != source.shape:
        raise UnreadableRecording(f"{file.shape}, unlike the first file, which is {source.shape}")
    if file.shape in WITHOUT_COLUMNS:
        return lambda one: one
    own = file.columns
    if not file.is_named:
        named = source.format.columns if source.format else source.columns
        if len(named) != len(own) and not source.is_mapping:
            raise UnreadableRecording(f"{len(own)} columns, unlike the first file")
        own = tuple(named)
    if source.is_mapping:
        return lambda one: as_mapping(one, own)
    if own == source.columns:
        return lambda one: one
    # Column names match in any case and with any signs between letters.
    alike = {normalized_name(column): n for n, column in enumerate(own)}
    places = {column: own.index(column) if column in own else alike.get(normalized_name(column), -1)
              for column in source.columns}  # fmt: skip
    missing = [column for column in needed if places[column] < 0]
    if missing:
        raise UnreadableRecording(
            f"no column {', '.join(missing)} among {', '.join(own)}, unlike the first file"
        )
    at = list(places.values())
    return lambda one: (
        one if isinstance(one, InvalidRecord) else [one[n] if n >= 0 else "" for n in at]
    )
