"""Rows of Amazon Personalize's import files: events, items or users, or what is wrong with them.

A row is kept whole or not at all. Columns are found by name, in any order and spelling: `user_id`,
`userId` and `USER_ID` are one. A line is a row, so that a stray quote costs one row and no more.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import msgspec

from models.errors import InvalidEvent, InvalidInput
from models.events import MILLISECONDS_FROM, Event, MetricAttribution, PutEvents, encode, parse
from models.expressions import fold, number_in

Kind = Literal["INTERACTIONS", "ITEMS", "USERS"]
"""The data set that a file goes into."""

Type = Literal["string", "int", "long", "float", "double", "boolean", "null"]

Scalar = str | int | float | bool | None

MAX_LINE_BYTES = 1024 * 1024
MAX_ID_CHARACTERS = 256
MAX_IMPRESSION_CHARACTERS = 1000
MAX_PROPERTIES: Mapping[Kind, int] = {"ITEMS": 32000, "USERS": 24000}
"""Characters of one's properties as JSON: what PutItems and PutUsers take."""

DEFAULT_TYPE = "interaction"
"""The event type where a file does not tell one."""

# What a type is kept as, and how large a whole number it takes.
_STORED: Mapping[Type, tuple[Callable[[Any], Scalar], int]] = {
    "string": (str, 2**63),
    "int": (int, 2**31),
    "long": (int, 2**63),
    "float": (float, 2**63),
    "double": (float, 2**63),
    "boolean": (bool, 0),
    "null": (type(None), 0),
}
_REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "INTERACTIONS": ("USER_ID", "ITEM_ID", "TIMESTAMP"),
    "ITEMS": ("ITEM_ID",),
    "USERS": ("USER_ID",),
}
_TEXT: frozenset[Type] = frozenset({"string"})
_TIME: frozenset[Type] = frozenset({"long", "int"})
_NUMBER: frozenset[Type] = frozenset({"float", "double", "int", "long"})
_RESERVED: Mapping[Kind, Mapping[str, frozenset[Type]]] = {
    "INTERACTIONS": {
        "USER_ID": _TEXT,
        "ITEM_ID": _TEXT,
        "TIMESTAMP": _TIME,
        "EVENT_TYPE": _TEXT,
        "EVENT_VALUE": _NUMBER,
        "IMPRESSION": _TEXT,
        "RECOMMENDATION_ID": _TEXT,
        "EVENT_ATTRIBUTION_SOURCE": _TEXT,
    },
    "ITEMS": {"ITEM_ID": _TEXT, "CREATION_TIMESTAMP": _TIME},
    "USERS": {"USER_ID": _TEXT},
}
_COLUMNS = {
    "userId": "USER_ID",
    "sessionId": "USER_ID",
    "itemId": "ITEM_ID",
    "sentAt": "TIMESTAMP",
    "eventType": "EVENT_TYPE",
    "eventValue": "EVENT_VALUE",
    "impression": "IMPRESSION",
    "recommendationId": "RECOMMENDATION_ID",
    "eventAttributionSource": "EVENT_ATTRIBUTION_SOURCE",
    "properties": "the other columns",
}
_TIMES = frozenset({"TIMESTAMP", "CREATION_TIMESTAMP"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_BOM = b"\xef\xbb\xbf"


class Column(NamedTuple):
    """One field of a schema.

    Attributes
    ----------
    key
        The name, folded: what the names of columns are compared by.
    reserved
        The name that Amazon Personalize knows a meaning of, or empty: metadata.
    """

    name: str
    key: str
    type: Type
    is_nullable: bool
    reserved: str


@dataclass(frozen=True)
class Schema:
    """What the rows of a data set consist of."""

    kind: Kind
    columns: tuple[Column, ...]


class Described(NamedTuple):
    """An item or user with all its properties, as PutItems and PutUsers take them."""

    id: str
    properties: dict[str, Any]


class BadRow(NamedTuple):
    """Why a row is left out."""

    reason: str


Record = PutEvents | Described
"""What a row is: a message of one event, or an item or user."""

Row = tuple[int, Record | BadRow]
"""A line's number, the first being 1, and what stands there."""

_Check = Callable[[bytes], PutEvents]


class _Field(msgspec.Struct):
    name: str
    type: Type | list[Type]


class _Avro(msgspec.Struct):
    type: Literal["record"]
    fields: list[_Field]


def parse_schema(text: str, kind: Kind) -> Schema:
    """The columns that an Avro schema, a flat record in JSON, gives to the rows of a data set.

    Raises
    ------
    InvalidInput
        Naming the field that cannot be one of this data set's.

    Examples
    --------
    >>> fields = '[{"name": "USER_ID", "type": "string"}, {"name": "AGE", "type": ["null", "int"]}]'
    >>> parse_schema('{"type": "record", "fields": %s}' % fields, "USERS").columns[1]
    Column(name='AGE', key='age', type='int', is_nullable=True, reserved='')
    """
    try:
        fields = msgspec.json.decode(text, type=_Avro).fields
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidInput(f"schema: {error}") from error
    reserved = {fold(name): name for name in _RESERVED[kind]}
    columns = tuple(_column(field, reserved) for field in fields)
    keys = [column.key for column in columns]
    for column in columns:
        types = _RESERVED[kind].get(column.reserved)
        if types is not None and column.type not in types:
            wanted = " or ".join(sorted(types))
            raise InvalidInput(f"schema: {column.name} must be {wanted}, not {column.type}")
        if keys.count(column.key) > 1:
            raise InvalidInput(f"schema: {column.name} is there twice")
    for name in _REQUIRED[kind]:
        if not any(column.reserved == name and not column.is_nullable for column in columns):
            raise InvalidInput(f"schema: {name} must be there and never null")
    if len(columns) <= len(_REQUIRED[kind]) and kind != "INTERACTIONS":
        raise InvalidInput("schema: a field of metadata must be there")
    return Schema(kind, columns)


def read_csv(
    lines: Iterable[bytes], schema: Schema, *, now_s: float, future_limit_s: float = 300.0
) -> Iterator[Row]:
    """The rows of a CSV file that begins with a header; blank lines are none.

    Columns that the schema does not have are passed over.

    Parameters
    ----------
    now_s, future_limit_s
        An event later than this by more than that is a bad row.

    Raises
    ------
    InvalidInput
        At once: the header has not all of the schema's columns, or one of them twice.
    """
    numbered = enumerate(lines, 1)
    _, header = next(numbered, (1, b""))
    try:
        keys = [fold(name.strip()) for name in _cells(header.removeprefix(_BOM))]
    except InvalidInput as error:
        raise InvalidInput(f"Input CSV has no header: {error}") from error
    missing = [column.name for column in schema.columns if column.key not in keys]
    if missing:
        raise InvalidInput(f"Input CSV is missing the following columns:[{', '.join(missing)}]")
    for column in schema.columns:
        if keys.count(column.key) > 1:
            raise InvalidInput(f"Input CSV has the column {column.name} twice")
    places = [keys.index(column.key) for column in schema.columns]
    check = partial(parse, now_s=now_s, future_limit_s=future_limit_s)
    return _rows(numbered, partial(_csv_record, schema, places, len(keys), check))


def read_json_lines(
    lines: Iterable[bytes], schema: Schema, *, now_s: float, future_limit_s: float = 300.0
) -> Iterator[Row]:
    """The rows of a file with an object in each line, by columns; otherwise as `read_csv`.

    An absent member is null, and a whole number in place of a text is that text.
    """
    check = partial(parse, now_s=now_s, future_limit_s=future_limit_s)
    return _rows(enumerate(lines, 1), partial(_json_record, schema, check))


def _column(field: _Field, reserved: Mapping[str, str]) -> Column:
    types = [field.type] if isinstance(field.type, str) else field.type
    kinds = [one for one in types if one != "null"]
    if len(kinds) > 1 or not types:
        raise InvalidInput(f"schema: {field.name} must have one type, and null besides")
    key = fold(field.name)
    type_: Type = kinds[0] if kinds else "null"
    return Column(field.name, key, type_, "null" in types, reserved.get(key, ""))


def _rows(lines: Iterable[tuple[int, bytes]], read: Callable[[bytes], Record]) -> Iterator[Row]:
    for number, raw in lines:
        line = raw.removeprefix(_BOM if number == 1 else b"").rstrip(b"\r\n")
        if not line.strip():
            continue
        if len(line) > MAX_LINE_BYTES:
            yield number, BadRow(f"the line has more than {MAX_LINE_BYTES} bytes")
            continue
        try:
            row: Record | BadRow = read(line)
        except (InvalidInput, InvalidEvent) as error:
            row = BadRow(_reason(error))
        yield number, row


def _reason(error: Exception) -> str:
    """What is wrong, by the column's name where it was said of an event's member."""
    text, _, path = str(error).partition(" - at `")
    members = [name for name in re.findall(r"\w+", path) if name in _COLUMNS]
    return f"{_COLUMNS[members[-1]]}: {text}" if members else text


def _csv_record(
    schema: Schema, places: Sequence[int], width: int, check: _Check, line: bytes
) -> Record:
    cells = _cells(line)
    if len(cells) != width:
        raise InvalidInput(f"{len(cells)} values for {width} columns")
    values = [
        _from_text(column, cells[place])
        for column, place in zip(schema.columns, places, strict=True)
    ]
    return _record(schema, values, check)


def _json_record(schema: Schema, check: _Check, line: bytes) -> Record:
    try:
        said = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"not a JSON object: {error}") from error
    keys = [fold(name) for name in said]
    found = dict(zip(keys, said.values(), strict=True))
    for column in schema.columns:
        if keys.count(column.key) > 1:
            raise InvalidInput(f"{column.name} is there twice")
    values = [_from_json(column, found.get(column.key)) for column in schema.columns]
    return _record(schema, values, check)


def _cells(line: bytes) -> list[str]:
    try:
        (cells,) = csv.reader([line.rstrip(b"\r\n").decode()], strict=True)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"not UTF-8: {error}") from error
    except (csv.Error, ValueError) as error:
        raise InvalidInput(f"not a line of CSV: {error}") from error
    return cells


def _from_text(column: Column, text: str) -> Scalar:
    """The value of a cell of CSV; an empty one is null."""
    value: Scalar = text or None
    if not text or column.type == "string":
        return value
    if column.type in ("int", "long"):
        value = int(text) if _INTEGER.fullmatch(text) else text
    elif column.type == "boolean":
        value = {"true": True, "false": False}.get(text.lower(), text)
    elif (number := number_in(text)) is not None:
        value = float(number)
    return _from_json(column, value)


def _from_json(column: Column, value: object) -> Scalar:
    """The value as the column's type has it."""
    if value is None or value == "":
        return None
    stored, limit = _STORED[column.type]
    is_whole = type(value) is int and -limit <= value < limit
    if is_whole or (type(value) is stored and stored is not int):
        return stored(value)
    raise InvalidInput(f"{column.name} must be {column.type}, not {str(value)[:40]!r}")


def _record(schema: Schema, values: Iterable[Scalar], check: _Check) -> Record:
    meanings: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for column, value in zip(schema.columns, values, strict=True):
        if value is None:
            if not column.is_nullable:
                raise InvalidInput(f"{column.name} is missing")
            continue
        if column.reserved in _TIMES and isinstance(value, int) and value > MILLISECONDS_FROM:
            raise InvalidInput(f"{column.name} must be in seconds, {value} is in milliseconds")
        if column.reserved in ("", "CREATION_TIMESTAMP"):
            properties[column.name] = value
        else:
            meanings[column.reserved] = value
    if schema.kind == "INTERACTIONS":
        return check(encode(_message(meanings, properties)))
    name = _REQUIRED[schema.kind][0]
    if len(meanings[name]) > MAX_ID_CHARACTERS:
        raise InvalidInput(f"{name} must have at most {MAX_ID_CHARACTERS} characters")
    n_characters = len(msgspec.json.encode(properties).decode())
    if n_characters > MAX_PROPERTIES[schema.kind]:
        raise InvalidInput(
            f"properties must have at most {MAX_PROPERTIES[schema.kind]} characters "
            f"as JSON, not {n_characters}"
        )
    return Described(meanings[name], properties)


def _message(meanings: Mapping[str, Any], properties: dict[str, Any]) -> PutEvents:
    shown, source = meanings.get("IMPRESSION"), meanings.get("EVENT_ATTRIBUTION_SOURCE")
    if shown is not None and len(shown) > MAX_IMPRESSION_CHARACTERS:
        raise InvalidInput(f"IMPRESSION must have at most {MAX_IMPRESSION_CHARACTERS} characters")
    event = Event(
        event_type=meanings.get("EVENT_TYPE", DEFAULT_TYPE),
        sent_at=meanings["TIMESTAMP"],
        item_id=meanings["ITEM_ID"],
        event_value=meanings.get("EVENT_VALUE"),
        impression=None if shown is None else shown.split("|"),
        recommendation_id=meanings.get("RECOMMENDATION_ID"),
        metric_attribution=None if source is None else MetricAttribution(source),
        properties=properties or None,
    )
    # A known user is the session too, as in recordings.
    return PutEvents(meanings["USER_ID"], [event], user_id=meanings["USER_ID"])
