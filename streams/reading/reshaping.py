"""Rows made of records: by the function of a format, and one for each element of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from models.errors import InvalidRecord
from streams.reading.fields import value_getter
from streams.reading.formats.file_format import PARTS, Format
from streams.reading.read_options import ReadOptions

MAX_PARTS = 5000
"""Most rows of one record: a product of Shopify has 2,048 variants and 250 pictures at most."""


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
    if format_ and format_.part_of:
        records = _joined(records, format_.part_of)
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


def _joined(
    records: Iterable[tuple[int, Any]], part_of: Callable[[Mapping[str, Any]], object]
) -> Iterator[tuple[int, Any]]:
    """Records of neighbouring rows with one key, with the number of the first; see `Format`."""
    parts: list[Any] = []
    key: object = None
    first = 0
    for number, record in records:
        is_bad = isinstance(record, InvalidRecord)
        own = None if is_bad else part_of(record)
        if parts and (own is None or own != key or len(parts) >= MAX_PARTS):
            yield first, {**parts[0], PARTS: parts}
            parts = []
        if is_bad:
            yield number, record
        elif own is None:
            yield number, {**record, PARTS: [record]}
        else:
            first, key = (first, key) if parts else (number, own)
            parts.append(record)
    if parts:
        yield first, {**parts[0], PARTS: parts}


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
