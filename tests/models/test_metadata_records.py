"""Metadata records: validation, categories and creation."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRecord
from models.metadata_records import (
    MAX_CATEGORIES,
    MAX_CATEGORY_CHARACTERS,
    MAX_CHARACTERS,
    MAX_RECORD_BYTES,
    MetadataRecord,
    RecordKind,
    categories_of,
    created_at,
    encode_record,
    parse_record,
    validate_properties,
)

pytestmark = pytest.mark.unit

NOW_S = 1.79e9

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
)
PROPERTIES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=8)


def message(**changed: object) -> bytes:
    """An item's message with some members changed; None removes one."""
    whole = {"group": "shop", "itemId": "i", "properties": {"A": "b"}, "at": 1.7e9} | changed
    return json.dumps({k: v for k, v in whole.items() if v is not None}).encode()


@given(
    st.sampled_from(["items", "users"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256),
    st.none() | PROPERTIES,
)
def test_messages_round_trip(
    kind: RecordKind, name: str, properties: dict[str, object] | None
) -> None:
    """A removal has the time of its reading."""
    valid = None if properties is None else validate_properties(kind, name, properties)
    record = MetadataRecord("shop", name, valid, NOW_S)

    assert parse_record(kind, *encode_record(kind, record), now_s=NOW_S) == record


@pytest.mark.parametrize(
    "raw",
    [
        b"{bad",
        b"\xff\xfe",
        b"[" * 100_000,
        b"x" * (MAX_RECORD_BYTES + 1),
        message(group=None),
        message(group="a b"),
        message(group="shop\n"),
        message(itemId=""),
        message(itemId="x" * 257),
        message(itemId=None, userId="u"),
        message(properties={"A": ["b"]}),
        message(properties={"A": {"b": 1}}),
        message(properties=None),
        message(properties="{}"),
        message(properties={"A": 2**70}),
        message(properties={"A": "x" * MAX_CHARACTERS["items"]}),
        message(at=0),
        message(at=-1),
        message(at=NOW_S + 400),
        message(at="soon"),
        message().replace(b"1700000000.0", b"NaN"),
        message().replace(b"1700000000.0", b"1e400"),
    ],
)
def test_bad_messages_are_refused(raw: bytes) -> None:
    """Any input is a record or an InvalidRecord."""
    with pytest.raises(InvalidRecord):
        parse_record("items", b"shop/i", raw, now_s=NOW_S)


@pytest.mark.parametrize(
    "key", [b"", b"shop", b"shop/", b"/i", b"a b/i", b"\xff/i", b"shop/" + b"x" * 257]
)
def test_a_removal_needs_a_key(key: bytes) -> None:
    """It names group and id."""
    with pytest.raises(InvalidRecord):
        parse_record("users", key, b"", now_s=NOW_S)
    assert parse_record("users", b"shop/a/b", b"", now_s=NOW_S).id == "a/b"


def test_characters_are_counted_not_bytes() -> None:
    """A letter of several bytes counts once."""
    longest = {"A": "ö" * (MAX_CHARACTERS["users"] - 8)}

    assert validate_properties("users", "u", longest) == longest
    with pytest.raises(InvalidRecord, match=r"24001 characters .* 24000"):
        validate_properties("users", "u", {"A": longest["A"] + "o"})


@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("", {}),
        ("x" * 257, {}),
        ("\ud800", {}),
        ("i", {"A": math.nan}),
        ("i", {"A": math.inf}),
        ("i", {"A": b"bytes"}),
        ("i", {"A": "\ud800"}),
        ("i", {"A": []}),
        ("i", {1: "a"}),
    ],
)
def test_invalid_ids_and_values(name: str, properties: dict[str, object]) -> None:
    """Those that could not be stored unchanged."""
    with pytest.raises(InvalidRecord):
        validate_properties("items", name, properties)


def test_creation_is_read_in_seconds_and_milliseconds() -> None:
    """Both spellings of the column, either unit; other values are ignored."""
    assert created_at({"CREATION_TIMESTAMP": 1_600_000_000}) == 1.6e9
    assert created_at({"creationTimestamp": 1_600_000_000_000}) == 1.6e9
    for value in (None, True, "yesterday", -5, 0):
        assert created_at({"CREATION_TIMESTAMP": value}) is None
    assert created_at({}) is None


@given(PROPERTIES | st.dictionaries(st.text(), st.text("a|b ", max_size=9), max_size=9))
def test_categories_are_few_short_and_distinct(properties: dict[str, str]) -> None:
    """However many values there are, categories are bounded, each under its column."""
    found = categories_of(properties)

    assert len(found) == len(set(found)) <= MAX_CATEGORIES
    for category in found:
        assert len(category) <= 2 * MAX_CATEGORY_CHARACTERS + 1
        assert any(
            isinstance(text, str) and f"{column}={word.strip()}" == category
            for column, text in properties.items()
            for word in str(text).split("|")
        )


def test_columns_for_categories_come_first() -> None:
    """A title does not take a genre's place."""
    properties = {"TITLE": "a", "BRAND": "b", "genres": "c|d|e", "CATEGORY_L1": "f"}

    assert categories_of(properties)[:4] == ["genres=c", "genres=d", "genres=e", "CATEGORY_L1=f"]
    assert categories_of({"A": "x" * 65, "B": " |", "C": 5, "D": "x" * 64}) == ["D=" + "x" * 64]
