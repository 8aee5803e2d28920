"""Rows of CSV objects, one at a time: a dataset of any size passes through bounded memory."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from models.errors import InvalidInput, InvalidRecord
from models.rows import Rows
from models.schemas import Schema
from streams.objects import Objects

MAX_LINE_BYTES = 1024 * 1024

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


class Row(NamedTuple):
    """One row: the object and the line where it ends, and what it says or what is wrong with it."""

    url: str
    line: int
    values: dict[str, Any] | InvalidRecord


def read(objects: Objects, location: str, schema: Schema) -> Iterator[Row]:
    """The rows of an object, or of all objects in a folder; blank lines are none.

    Raises
    ------
    InvalidInput
        An object lacks columns of the schema, is no CSV, or has a line of more than 1 MiB.
    ObjectNotFound, ObjectRefused, Unavailable
        As `streams.objects` says.
    """
    for each in objects.find(location):
        with objects.open(each.url) as stream:
            yield from _rows(each.url, stream, schema)


def _rows(url: str, stream: BinaryIO, schema: Schema) -> Iterator[Row]:
    reader = csv.reader(_lines(url, stream), strict=True)
    rows: Rows | None = None
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            if rows is None:
                raise InvalidInput(f"{url}: the header is no CSV: {error}") from error
            yield Row(url, reader.line_num, InvalidRecord(f"not a row of CSV: {error}"))
            continue
        if fields is None:
            break
        if not fields:
            continue
        if rows is None:
            rows = Rows.of(schema, fields)
            continue
        yield Row(url, reader.line_num, _said(rows, fields))
    if rows is None:
        raise InvalidInput(f"{url} is empty: it must begin with a header")


def _said(rows: Rows, fields: list[str]) -> dict[str, Any] | InvalidRecord:
    try:
        return rows.values(fields)
    except InvalidRecord as error:
        return error


def _lines(url: str, stream: BinaryIO) -> Iterator[str]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise InvalidInput(f"{url}: line {number} has more than {MAX_LINE_BYTES} bytes")
        # What is not UTF-8 makes a bad value of its column, and nothing of the lines around it.
        text = line.decode(errors="surrogateescape")
        yield text.removeprefix(_BOM) if number == 1 else text
