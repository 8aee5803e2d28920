"""Rows of a dataset in an import: converted by the dataset's schema to events and records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from models.errors import InvalidInput, InvalidRecord
from models.events import Event, MetricAttribution, PutEvents, encode, parse
from models.metadata_records import Properties, RecordKind, normalized, validate_properties
from models.personalize.datasets.dataset_schemas import (
    EVENT_COLUMNS,
    ITEM_KEYS,
    NUMBERS,
    Column,
    Schema,
)
from models.state.users.action_features import action_event_type

EVENT_TYPE = "interaction"
"""Type of events of a dataset without a column for it."""

MAX_IMPRESSION = 25
MAX_SHOWN = 40

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def columns_of(schema: Schema, header: Sequence[str]) -> dict[str, str]:
    """Name in a header of each column of a schema, compared in any case.

    Columns that only one of the two has are left out.

    Raises
    ------
    InvalidInput
        The header names a column twice.

    Examples
    --------
    >>> columns_of(Schema((Column("USER_ID", frozenset({"string"})),)), ["AGE", "user_id"])
    {'USER_ID': 'user_id'}
    """
    called: dict[str, list[str]] = {}
    for name in header:
        called.setdefault(name.strip().upper(), []).append(name)
    found = {column.name: called.get(column.name.upper(), []) for column in schema.columns}
    for name, columns in found.items():
        if len(columns) > 1:
            raise InvalidInput(f"Input CSV has several columns for {name}:[{', '.join(columns)}]")
    return {name: columns[0] for name, columns in found.items() if columns}


def missing_fields(names: Sequence[str]) -> InvalidInput:
    """Error of missing columns, in Amazon's words."""
    return InvalidInput(f"Input CSV is missing the following columns:[{', '.join(names)}]")


def typed(column: Column, text: str | None) -> str | int | float | bool | None:
    """Convert a text to a value of a column.

    Raises
    ------
    InvalidRecord
        Naming the column; the text is of another type, or empty in a column without null.
    """
    if text is None:
        if not column.is_nullable:
            raise InvalidRecord(f"{column.name}: empty")
        return None
    for kind in sorted(column.types - {"null"}):
        value = _CONVERTERS[kind](text)
        if value is not None:
            return value
    raise InvalidRecord(
        f"{column.name}: not of type {' or '.join(sorted(column.types))}: {text[:MAX_SHOWN]!r}"
    )


def event_of(
    values: Mapping[str, Any],
    *,
    now_s: float,
    future_limit_s: float,
    default_type: str = EVENT_TYPE,
) -> PutEvents:
    """Valid message of one event, out of a row of interactions.

    The eventId follows from the row: the same row again is the same event. Columns that are not
    reserved become the event's properties.

    Raises
    ------
    InvalidEvent
        Naming the member that breaks the schema.

    Examples
    --------
    >>> row = {"USER_ID": "u", "ITEM_ID": "i", "TIMESTAMP": 1_700_000_000, "HOUR": 5}
    >>> event_of(row, now_s=1.8e9, future_limit_s=0).event_list[0].properties
    {'HOUR': 5}
    """
    user = values["USER_ID"]
    source = values.get("EVENT_ATTRIBUTION_SOURCE")
    shown = [item for item in values.get("IMPRESSION", "").split("|") if item]
    rest = {name: value for name, value in values.items() if name not in EVENT_COLUMNS}
    event = Event(
        values.get("EVENT_TYPE", default_type),
        values["TIMESTAMP"],
        item_id=values["ITEM_ID"],
        event_value=values.get("EVENT_VALUE"),
        impression=shown[:MAX_IMPRESSION] or None,
        recommendation_id=values.get("RECOMMENDATION_ID"),
        metric_attribution=None if source is None else MetricAttribution(source),
        properties=rest or None,
    )
    raw = encode(PutEvents(user, [event], user_id=user))
    return parse(raw, now_s=now_s, future_limit_s=future_limit_s)


def action_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row of actions, or of interactions with them, as one of items.

    Raises
    ------
    InvalidRecord
        Its event type is none of actions.

    Examples
    --------
    >>> action_values({"ACTION_ID": "join", "EVENT_TYPE": "Not Taken"})
    {'EVENT_TYPE': 'NOT_TAKEN', 'ITEM_ID': 'join'}
    """
    found = {name: value for name, value in values.items() if name != "ACTION_ID"}
    if "EVENT_TYPE" in found:
        event_type = action_event_type(found["EVENT_TYPE"])
        if not event_type:
            raise InvalidRecord(
                f"EVENT_TYPE: not TAKEN, NOT_TAKEN or VIEWED: {found['EVENT_TYPE'][:MAX_SHOWN]!r}"
            )
        found["EVENT_TYPE"] = event_type
    return {**found, "ITEM_ID": values["ACTION_ID"]}


def record_in_schema(
    schema: Schema, dataset_type: str, properties: Mapping[str, Any]
) -> dict[str, Any]:
    """Properties of a record that was put, checked by the schema of its dataset.

    Names are those of columns in any spelling; numbers and truth values may be texts, and become
    what their columns hold.

    Raises
    ------
    InvalidRecord
        Naming a property that is no column or has not its type, or a column that may not be empty.

    Examples
    --------
    >>> rated = Column("NUM_RATINGS", frozenset({"long"}))
    >>> record_in_schema(Schema((rated,)), "ITEMS", {"numRatings": "12"})
    {'numRatings': 12}
    """
    key = ITEM_KEYS[dataset_type]
    columns = {normalized(column.name): column for column in schema.columns if column.name != key}
    found: dict[str, Any] = {}
    given: set[str] = set()
    for name, value in properties.items():
        column = columns.get(normalized(name))
        if column is None:
            listed = ", ".join(one.name for one in columns.values())
            raise InvalidRecord(
                f"{name[:MAX_SHOWN]!r} is no column of the dataset; it has {listed}"
            )
        found[name] = _in_column(column, value)
        if value is not None:
            given.add(column.name)
    for column in columns.values():
        if column.name not in given and not column.is_nullable:
            raise InvalidRecord(f"{column.name} is missing, and may not be null")
    return found


def _in_column(column: Column, value: Any) -> Any:  # noqa: ANN401  any JSON
    """A JSON value as its column holds it; raises `InvalidRecord` for one of another type."""
    if value is None:
        return typed(column, None)
    is_text = isinstance(value, str)
    if is_text or (isinstance(value, bool) and "boolean" in column.types):
        return typed(column, value if is_text else str(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        numeric = column.types & NUMBERS
        if numeric:
            return typed(Column(column.name, numeric), str(value))
    types, shown = " or ".join(sorted(column.types)), str(value)[:MAX_SHOWN]
    raise InvalidRecord(f"{column.name}: not of type {types}: {shown!r}")


def record_of(kind: RecordKind, values: Mapping[str, Any]) -> tuple[str, Properties]:
    """Id and properties out of a row of items or users.

    Raises
    ------
    InvalidRecord
        Naming the property that breaks a rule.

    Examples
    --------
    >>> record_of("users", {"USER_ID": "ada", "AGE": 36})
    ('ada', {'AGE': 36})
    """
    key = "ITEM_ID" if kind == "items" else "USER_ID"
    name = values[key]
    rest = {column: value for column, value in values.items() if column != key}
    return name, validate_properties(kind, name, rest)


def pack_by_user(events: Sequence[PutEvents], most: int) -> Iterator[PutEvents]:
    """Pack single events into messages of up to `most` events of one user, in their order.

    >>> one = [PutEvents(user, [Event("view", 1.0)], user_id=user) for user in "aba"]
    >>> [(message.user_id, len(message.event_list)) for message in pack_by_user(one, 10)]
    [('a', 2), ('b', 1)]
    """
    of_users: dict[str, list[Event]] = {}
    for message in events:
        of_users.setdefault(message.session_id, []).extend(message.event_list)
    for user, own in of_users.items():
        for start in range(0, len(own), most):
            yield PutEvents(user, own[start : start + most], user_id=user)


def _whole(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return _whole_float(text)
    return number if "_" not in text and -(2**63) <= number < 2**63 else None


def _whole_float(text: str) -> int | None:
    """A whole number as spreadsheets and data frames write it: `881250949.0`."""
    number = _number(text)
    return (
        int(number) if number is not None and number.is_integer() and abs(number) < 2**53 else None
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if "_" not in text and math.isfinite(number) else None


def _truth(text: str) -> bool | None:
    return _TRUTHS.get(text.lower())


_CONVERTERS: Mapping[str, Callable[[str], str | int | float | bool | None]] = {
    "boolean": _truth,
    "double": _number,
    "float": _number,
    "int": _whole,
    "long": _whole,
    "string": str,
}
