"""The event schema: what gets in, and in what form."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidEvent
from models.events import Event, PutEvents, encode, event_hash, parse

NOW = 1_790_000_000.0


def raw(event: dict[str, Any] | None = None, **message: Any) -> bytes:
    """A message with one event, parts of it replaced; None takes a member away."""
    whole = {"eventType": "click", "itemId": "i", "sentAt": NOW, **(event or {})}
    kept = {name: value for name, value in whole.items() if value is not None}
    return json.dumps({"sessionId": "s", "eventList": [kept], **message}).encode()


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"eventType": None}, {}),
        ({"eventType": ""}, {}),
        ({"eventType": "x" * 257}, {}),
        ({"itemId": "x" * 257}, {}),
        ({"eventId": ""}, {}),
        ({"sentAt": None}, {}),
        ({"sentAt": -1}, {}),
        ({"sentAt": NOW + 301}, {}),
        ({"sentAt": (NOW + 301) * 1000}, {}),
        ({"sentAt": "soon"}, {}),
        ({"properties": "x" * 1025}, {}),
        ({"properties": "[1]"}, {}),
        ({"properties": "{"}, {}),
        ({"properties": {"a": "x" * 1024}}, {}),
        ({"itemId": None, "properties": {"itemId": 7}}, {}),
        ({"impression": []}, {}),
        ({"impression": ["i"] * 26}, {}),
        ({"recommendationId": "x" * 41}, {}),
        ({"metricAttribution": {"eventAttributionSource": "\n"}}, {}),
        ({}, {"sessionId": ""}),
        ({}, {"sessionId": "x" * 257}),
        ({}, {"userId": "x" * 257}),
        ({}, {"eventList": []}),
        ({}, {"eventList": [{"eventType": "c", "sentAt": 1}] * 11}),
    ],
)
def test_what_breaks_the_schema_is_refused(event: dict[str, Any], message: dict[str, Any]) -> None:
    """Each member's limits are held, and the error names the place."""
    with pytest.raises(InvalidEvent, match=r"\$|characters"):
        parse(raw(event, **message), now_s=NOW)


@pytest.mark.parametrize(
    ("sent_at", "expected"),
    [(1_700_000_000, 1.7e9), (1_700_000_000_500, 1_700_000_000.5), ("1700000000", 1.7e9)],
)
def test_seconds_and_milliseconds(sent_at: object, expected: float) -> None:
    """Times in seconds and in milliseconds are told apart."""
    assert parse(raw({"sentAt": sent_at}), now_s=NOW).event_list[0].sent_at == expected


def test_item_in_properties() -> None:
    """The legacy place of the item counts, unless the event names one itself."""
    legacy = {"itemId": None, "properties": '{"itemId": "p"}'}
    both = {"itemId": "t", "properties": {"itemId": "p"}}

    assert parse(raw(legacy), now_s=NOW).event_list[0].item_id == "p"
    assert parse(raw(both), now_s=NOW).event_list[0].item_id == "t"


def test_an_event_without_id_gets_one_from_its_content() -> None:
    """Equal content at the same moment is the same event; another moment is another event."""
    one, same, other = (
        parse(raw({"sentAt": at}), now_s=NOW).event_list[0].event_id for at in (1.7e9, 1.7e9, 1.6e9)
    )

    assert one == same
    assert one != other


@given(st.binary(max_size=300))
def test_bytes_raise_nothing_else(data: bytes) -> None:
    """Whatever bytes come, they are a message or an InvalidEvent."""
    with contextlib.suppress(InvalidEvent):
        parse(data, now_s=NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["sessionId", "userId", "trackingId", "eventList"]), JSON),
    st.lists(
        st.dictionaries(
            st.sampled_from(["eventType", "sentAt", "itemId", "properties", "impression"]), JSON
        ),
        max_size=3,
    ),
)
def test_json_raises_nothing_else(message: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """Any JSON in the right places is a message or an InvalidEvent."""
    with contextlib.suppress(InvalidEvent):
        parse(json.dumps({"eventList": events, **message}).encode(), now_s=NOW)


IDS = st.text(min_size=1, max_size=20)


@given(
    st.builds(
        PutEvents,
        session_id=IDS,
        user_id=st.none() | IDS,
        accepted_at=st.none() | st.floats(1, 2e9),
        event_list=st.lists(
            st.builds(
                Event,
                event_type=IDS,
                sent_at=st.floats(1, NOW),
                event_id=IDS,
                item_id=IDS,
                event_value=st.none() | st.floats(-1e9, 1e9),
            ),
            min_size=1,
            max_size=10,
        ),
    )
)
def test_round_trip(message: PutEvents) -> None:
    """What was encoded is parsed as it was."""
    assert parse(encode(message), now_s=NOW) == message


def test_hashes_fit_the_store() -> None:
    """An eventId's hash has 48 bits."""
    assert all(0 <= event_hash(str(n)) < 2**48 for n in range(100))
