"""Rows made of records: by the function of a format, and one for each element of a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from models.errors import InvalidRecord
from streams.reading.fields import value_getter
from streams.reading.formats import Format
from streams.reading.read_options import ReadOptions


class ReshapedRow(NamedTuple):
    """Place of a row, with its values by the columns of the source or the error of a bad row."""

    place: int
    values: Any


def reshape(
    records: Iterable[tuple[int, Any]], format_: Format | None, each: str
) -> Iterator[ReshapedRow]:
    """Rows made of records."""
    make = format_.make_rows if format_ else None
    if make is None and not each:
        for number, record in records:
            yield ReshapedRow(number, record)
        return
    for number, record in records:
        if isinstance(record, InvalidRecord):
            yield ReshapedRow(number, record)
            continue
        try:
            made = list(make(record)) if make else [record]
        except InvalidRecord as error:
            yield ReshapedRow(number, error)
            continue
        for one in made:
            elements = value_getter(each, None)(one) if each else None
            if not isinstance(elements, list) or not elements:
                yield ReshapedRow(number, {**one, each: None} if each else one)
                continue
            for element in elements:
                yield ReshapedRow(number, {**one, each: element})


def as_mapping(record: Any, columns: Sequence[str]) -> Any:  # noqa: ANN401  any record
    """A record as a mapping by column; errors and mappings are returned as they are."""
    if isinstance(record, (dict, InvalidRecord)):
        return record
    return dict(zip(columns, record, strict=False))


def columns_of_mappings(
    rows: Iterable[Mapping[str, Any]], each: str, format_: Format | None, options: ReadOptions
) -> tuple[str, ...]:
    """Columns of rows that are mappings, in the order of first appearance."""
    keys: dict[str, None] = {}
    for row in rows:
        for key, value in row.items():
            if key == each and isinstance(value, dict):
                keys |= dict.fromkeys(f"{each}.{inner}" for inner in value)
            else:
                keys[key] = None
    named = [*options.column_options.fields.values(), *options.column_options.keep]
    if format_:
        named += [*format_.fields.values(), *format_.replay_fields.values()]
    inside = [path for path in named if "." in path]
    return tuple(dict.fromkeys((*keys, *inside)))
