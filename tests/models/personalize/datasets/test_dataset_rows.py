"""Rows of datasets: conversion by their schema, and errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidEvent, InvalidInput, InvalidRecord
from models.events import PutEvents
from models.personalize.datasets.dataset_rows import (
    columns_of,
    event_of,
    missing_fields,
    pack_by_user,
    record_of,
    typed,
)
from models.personalize.datasets.dataset_schemas import Schema, parse_schema

pytestmark = pytest.mark.unit

NOW_S = 1.8e9


def schema(**columns: object) -> Schema:
    """A schema of columns by their Avro types."""
    fields = [{"name": name, "type": kind} for name, kind in columns.items()]
    return parse_schema(json.dumps({"type": "record", "name": "Rows", "fields": fields}))


INTERACTIONS = schema(USER_ID="string", ITEM_ID="string", TIMESTAMP="long")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "-7", -7),
        ("long", "881250949.0", 881_250_949),
        ("double", "2.5", 2.5),
        ("boolean", "True", True),
        ("string", "007", "007"),
        (["null", "float"], "", None),
        (["null", "string"], "a|b", "a|b"),
    ],
)
def test_values_have_the_types_of_the_schema(kind: object, text: str, value: object) -> None:
    """Text is converted to the column's type; empty nullable values are left out."""
    assert typed(schema(ONE=kind).columns[0], text or None) == value


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("long", "1.5", r"ONE: not of type long: '1.5'"),
        ("long", "1_000", r"not of type long"),
        ("long", "9" * 30, r"not of type long"),
        ("double", "nan", r"not of type double"),
        ("boolean", "yes", r"not of type boolean"),
        ("string", "", r"ONE: empty"),
    ],
)
def test_bad_values_name_their_column(kind: object, text: str, why: str) -> None:
    """Each error has the column and the value."""
    with pytest.raises(InvalidRecord, match=why):
        typed(schema(ONE=kind).columns[0], text or None)


def test_missing_columns_have_amazons_words() -> None:
    """All missing columns are named."""
    assert str(missing_fields(["USER_ID", "TIMESTAMP"])) == (
        "Input CSV is missing the following columns:[USER_ID, TIMESTAMP]"
    )


def test_columns_are_named_in_any_case() -> None:
    """Two names of one schema column are an error; other columns may repeat."""
    header = ["more", " item_id", "User_Id", "MORE"]
    assert columns_of(INTERACTIONS, header) == {"ITEM_ID": " item_id", "USER_ID": "User_Id"}
    with pytest.raises(
        InvalidInput, match=r"^Input CSV has several columns for USER_ID:\[user_id, USER_ID\]$"
    ):
        columns_of(INTERACTIONS, ["user_id", "ITEM_ID", "TIMESTAMP", "USER_ID"])


def test_a_row_becomes_an_event() -> None:
    """Reserved columns become members, milliseconds seconds, and the rest properties."""
    message = event_of(
        {
            "USER_ID": "u",
            "ITEM_ID": "i",
            "TIMESTAMP": 1_700_000_000_000,
            "EVENT_TYPE": "Watch",
            "EVENT_VALUE": 4.5,
            "IMPRESSION": "|".join(f"i{n}" for n in range(30)),
            "RECOMMENDATION_ID": "r",
            "EVENT_ATTRIBUTION_SOURCE": "mail",
            "DEVICE": "phone",
        },
        now_s=NOW_S,
        future_limit_s=0,
    )
    (event,) = message.event_list

    assert (message.user_id, message.session_id) == ("u", "u")
    assert (event.event_type, event.sent_at, event.event_value) == ("Watch", 1.7e9, 4.5)
    assert event.impression == [f"i{n}" for n in range(25)]
    assert event.metric_attribution is not None
    assert event.properties == {"DEVICE": "phone"}


@pytest.mark.parametrize(
    "row",
    [
        {"USER_ID": "u" * 257, "ITEM_ID": "i", "TIMESTAMP": 1},
        {"USER_ID": "u", "ITEM_ID": "i", "TIMESTAMP": 0},
        {"USER_ID": "u", "ITEM_ID": "i", "TIMESTAMP": int(NOW_S) + 1},
        {"USER_ID": "u", "ITEM_ID": "i", "TIMESTAMP": 1, "MORE": "x" * 1100},
    ],
)
def test_rows_beyond_the_limits_of_events_are_invalid(row: dict[str, object]) -> None:
    """Ids, times and properties are checked as those of live events."""
    with pytest.raises(InvalidEvent):
        event_of(row, now_s=NOW_S, future_limit_s=0)


def test_records_keep_all_columns_but_the_id() -> None:
    """Of items and of users."""
    assert record_of("items", {"ITEM_ID": "i", "PRICE": 2.5}) == ("i", {"PRICE": 2.5})
    with pytest.raises(InvalidRecord):
        record_of("users", {"USER_ID": "u" * 257})


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10**6))), st.integers(1, 10))
def test_messages_hold_every_event_once_in_order(said: list[tuple[int, int]], most: int) -> None:
    """Messages are of one user and bounded; each user's events keep their order."""
    events = [
        event_of(
            {"USER_ID": f"u{user}", "ITEM_ID": str(n), "TIMESTAMP": at + 1},
            now_s=NOW_S,
            future_limit_s=0,
        )
        for n, (user, at) in enumerate(said)
    ]
    messages = list(pack_by_user(events, most))

    def of_users(some: list[PutEvents]) -> dict[str, list[str | None]]:
        found: dict[str, list[str | None]] = {}
        for message in some:
            ids = [event.event_id for event in message.event_list]
            found.setdefault(message.session_id, []).extend(ids)
        return found

    assert all(1 <= len(message.event_list) <= most for message in messages)
    assert of_users(messages) == of_users(events)
