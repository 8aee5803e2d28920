"""The event schema: accepted messages, and their form after parsing."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidEvent
from models.events import (
    MAX_MESSAGE_BYTES,
    MILLISECONDS_FROM,
    Event,
    MetricAttribution,
    PutEvents,
    encode,
    event_hash,
    parse,
)

pytestmark = pytest.mark.unit

NOW = 1_790_000_000.0


def raw(event: dict[str, Any] | None = None, **message: Any) -> bytes:
    """A message with one event, parts of it replaced; None removes a member."""
    whole = {"eventType": "click", "itemId": "i", "sentAt": NOW, **(event or {})}
    kept = {name: value for name, value in whole.items() if value is not None}
    return json.dumps({"sessionId": "s", "eventList": [kept], **message}).encode()


def parsed(event: dict[str, Any] | None = None, **message: Any) -> Event:
    """The event out of such a message."""
    return parse(raw(event, **message), now_s=NOW).event_list[0]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"eventType": None}, {}),
        ({"eventType": ""}, {}),
        ({"eventType": "x" * 257}, {}),
        ({"eventType": 7}, {}),
        ({"itemId": ""}, {}),
        ({"itemId": "x" * 257}, {}),
        ({"eventId": ""}, {}),
        ({"eventId": "x" * 257}, {}),
        ({"eventValue": "much"}, {}),
        ({"eventValue": "nan"}, {}),
        ({"eventValue": "inf"}, {}),
        ({"eventValue": "-inf"}, {}),
        ({"sentAt": None}, {}),
        ({"sentAt": 0}, {}),
        ({"sentAt": -1}, {}),
        ({"sentAt": NOW + 301}, {}),
        ({"sentAt": (NOW + 301) * 1000}, {}),
        ({"sentAt": "soon"}, {}),
        ({"sentAt": "nan"}, {}),
        ({"sentAt": "inf"}, {}),
        ({"sentAt": True}, {}),
        ({"properties": ""}, {}),
        ({"properties": "x" * 1025}, {}),
        ({"properties": "[1]"}, {}),
        ({"properties": "{"}, {}),
        ({"properties": [1]}, {}),
        ({"properties": {"a": "x" * 1024}}, {}),
        ({"itemId": None, "properties": {"itemId": 7}}, {}),
        ({"itemId": None, "properties": {"itemId": ""}}, {}),
        ({"itemId": None, "properties": '{"itemId": "%s"}' % ("x" * 257)}, {}),
        ({"impression": []}, {}),
        ({"impression": ["i"] * 26}, {}),
        ({"impression": [""]}, {}),
        ({"impression": ["x" * 257]}, {}),
        ({"recommendationId": ""}, {}),
        ({"recommendationId": "x" * 41}, {}),
        ({"metricAttribution": {}}, {}),
        ({"metricAttribution": {"eventAttributionSource": ""}}, {}),
        ({"metricAttribution": {"eventAttributionSource": "\n"}}, {}),
        ({"metricAttribution": {"eventAttributionSource": "x" * 1025}}, {}),
        ({}, {"sessionId": ""}),
        ({}, {"sessionId": "x" * 257}),
        ({}, {"sessionId": None}),
        ({}, {"userId": ""}),
        ({}, {"userId": "x" * 257}),
        ({}, {"trackingId": "x" * 257}),
        ({}, {"acceptedAt": "nan"}),
        ({}, {"acceptedAt": "inf"}),
        ({}, {"eventList": []}),
        ({}, {"eventList": {}}),
        ({}, {"eventList": [{"eventType": "c", "sentAt": 1}] * 11}),
    ],
)
def test_invalid_events_are_refused(event: dict[str, Any], message: dict[str, Any]) -> None:
    """Each member has limits, and the error names the place."""
    with pytest.raises(InvalidEvent, match=r"\$"):
        parse(raw(event, **message), now_s=NOW)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"eventType": "漢" * 256, "itemId": "😀" * 256, "eventId": "\x00" * 256}, {}),
        ({"eventValue": -1.5, "recommendationId": "x" * 40, "impression": ["x" * 256] * 25}, {}),
        ({"metricAttribution": {"eventAttributionSource": "~" * 1024}}, {}),
        ({"properties": '{"a":"%s"}' % ("x" * 1016)}, {}),
        ({"properties": {"a": "x" * 1016}}, {}),
        ({"itemId": None, "properties": {"itemId": "x" * 256}}, {}),
        ({"itemId": None, "properties": {"itemId": None}}, {}),
        ({"sentAt": NOW + 300}, {}),
        ({"unknown": "member"}, {"unknown": "member"}),
        ({}, {"sessionId": "s" * 256, "userId": "u" * 256, "trackingId": "t" * 256}),
        ({}, {"eventList": [{"eventType": "c", "sentAt": 1}] * 10}),
    ],
)
def test_the_limits_themselves_are_allowed(event: dict[str, Any], message: dict[str, Any]) -> None:
    """Values at the limits are accepted, and unchanged by encoding."""
    got = parse(raw(event, **message), now_s=NOW)

    assert parse(encode(got), now_s=NOW) == got


def test_the_largest_message_fits() -> None:
    """Ten events of the largest members, three bytes a character; a byte more is refused."""
    event = {
        "eventType": "漢" * 256, "eventId": "漢" * 256, "itemId": "漢" * 256, "sentAt": NOW,
        "impression": ["漢" * 256] * 25, "properties": {"a": "漢" * 1016},
    }  # fmt: skip
    whole = {"sessionId": "s", "eventList": [event] * 10}
    largest = json.dumps(whole, ensure_ascii=False).encode()

    assert len(parse(largest, now_s=NOW).event_list) == 10
    padded = largest.ljust(MAX_MESSAGE_BYTES)
    assert len(parse(padded, now_s=NOW).event_list) == 10
    with pytest.raises(InvalidEvent, match="over the limit"):
        parse(padded + b" ", now_s=NOW)


@pytest.mark.parametrize(
    ("sent_at", "expected"),
    [
        (1_700_000_000, 1.7e9),
        (1_700_000_000_500, 1_700_000_000.5),
        ("1700000000", 1.7e9),
        (0.5, 0.5),
        (MILLISECONDS_FROM + 1000, 100_000_001.0),
    ],
)
def test_seconds_and_milliseconds(sent_at: object, expected: float) -> None:
    """Times in seconds and in milliseconds are told apart."""
    assert parsed({"sentAt": sent_at}).sent_at == expected


@given(st.floats(1.1e8, NOW))
def test_both_units_are_the_same_moment(sent_at: float) -> None:
    """A time of the last decades means the same in seconds and in milliseconds."""
    assert parsed({"sentAt": sent_at * 1000}).sent_at == pytest.approx(sent_at)


@pytest.mark.parametrize("limit_s", [0.0, 300.0, 1e6])
def test_the_future_begins_after_the_limit(limit_s: float) -> None:
    """An event may be as far ahead as the limit, and no further."""
    ahead = raw({"sentAt": NOW + limit_s})
    assert parse(ahead, now_s=NOW, future_limit_s=limit_s).event_list[0].sent_at == NOW + limit_s
    with pytest.raises(InvalidEvent, match="future"):
        parse(ahead, now_s=NOW - 1, future_limit_s=limit_s)


def test_item_in_properties() -> None:
    """The legacy place of the item counts, unless the event has one itself."""
    assert parsed({"itemId": None, "properties": '{"itemId": "p"}'}).item_id == "p"
    assert parsed({"itemId": None, "properties": {"itemId": "p"}}).item_id == "p"
    assert parsed({"itemId": "t", "properties": {"itemId": "p"}}).item_id == "t"
    assert parsed({"itemId": None, "properties": {"other": 1}}).item_id is None


def test_an_event_without_id_gets_one_from_its_content() -> None:
    """Equal content is the same event, in any unit of time; other content is another."""
    changes: list[dict[str, Any]] = [
        {},
        {"sentAt": 1.6e9},
        {"eventType": "view"},
        {"itemId": "j"},
        {"eventValue": 1},
        {"properties": {"a": 1}},
    ]
    ids = [parsed({"sentAt": 1.7e9, **change}).event_id for change in changes]

    assert ids == [parsed({"sentAt": 1.7e9, **change}).event_id for change in changes]
    assert len({*ids, parsed({"sentAt": 1.7e9}, sessionId="t").event_id}) == len(changes) + 1
    assert parsed({"sentAt": 1.7e12}).event_id == ids[0]
    assert parsed({"sentAt": 1.7e9, "itemId": None, "properties": {"itemId": "i"}}).item_id == "i"
    assert parsed({"eventId": "own"}).event_id == "own"


def test_content_ids_are_stable() -> None:
    """Recordings are sent again with other releases."""
    assert parsed({"sentAt": 1.7e9}).event_id == "3f53f822a10fe1c40d0707dfd93f84af"


@given(st.binary(max_size=300))
def test_bytes_raise_nothing_else(data: bytes) -> None:
    """Any bytes are a message or an InvalidEvent."""
    with contextlib.suppress(InvalidEvent):
        parse(data, now_s=NOW)


@given(st.data())
def test_damaged_messages_raise_nothing_else(data: st.DataObject) -> None:
    """A valid message with bytes cut, changed or inserted is a message or an InvalidEvent."""
    damaged = bytearray(raw({"properties": {"a": [1, "é"]}, "impression": ["i"]}, userId="u"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        end = at + data.draw(st.integers(0, 3))
        damaged[at:end] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(InvalidEvent):
        got = parse(bytes(damaged), now_s=NOW)
        assert parse(encode(got), now_s=NOW) == got


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"sessionId":"s","eventList":' + "[" * 100_000,
        raw({"properties": 0}).decode().replace("0}", '{"a":' * 50_000 + "1" + "}" * 50_000 + "}"),
        raw({"properties": "{}"}).decode().replace('"{}"', '"' + "[" * 1000 + '"'),
        raw({"itemId": "?"}).decode().replace("?", "\\ud800"),
        raw({"eventValue": 1}).decode().replace("1}", "1e999}"),
        raw({"eventValue": 1}).decode().replace("1}", "NaN}"),
        "\ufeff" + raw().decode(),
        "null",
        "",
    ],
)
def test_traps_for_parsers_are_refused(text: str) -> None:
    """Deep nesting, lone surrogates, numbers out of range: each is an InvalidEvent."""
    with pytest.raises(InvalidEvent):
        parse(text.encode(), now_s=NOW)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers()
    | st.sampled_from(["", "nan", "1e400", "{}", '{"itemId":"i"}', "1700000000"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
MEMBERS = [
    "eventType", "sentAt", "eventId", "itemId", "eventValue", "properties", "impression",
    "recommendationId", "metricAttribution",
]  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["sessionId", "userId", "trackingId", "acceptedAt"]), JSON),
    st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=3),
)
def test_json_raises_nothing_else(message: dict[str, Any], event: dict[str, Any]) -> None:
    """Any JSON in any member is refused, or a message that its encoding does not change."""
    with contextlib.suppress(InvalidEvent):
        got = parse(raw(event, **message), now_s=NOW)
        assert parse(encode(got), now_s=NOW) == got


IDS = st.text(min_size=1, max_size=20)


@given(
    st.builds(
        PutEvents,
        session_id=IDS,
        user_id=st.none() | IDS,
        tracking_id=st.none() | IDS,
        accepted_at=st.none() | st.floats(1, 2e9),
        event_list=st.lists(
            st.builds(
                Event,
                event_type=IDS,
                sent_at=st.floats(1, NOW),
                event_id=IDS,
                item_id=IDS,
                event_value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
                impression=st.none() | st.lists(IDS, min_size=1, max_size=3),
                recommendation_id=st.none() | IDS,
                metric_attribution=st.none()
                | st.builds(
                    MetricAttribution,
                    event_attribution_source=st.text("az ~", min_size=1, max_size=9),
                ),
                properties=st.none()
                | st.just('{"a": [1, 2.5, null]}')
                | st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | IDS, max_size=3),
            ),
            min_size=1,
            max_size=10,
        ),
    )
)
def test_round_trip(message: PutEvents) -> None:
    """An encoded message is parsed as it was."""
    assert parse(encode(message), now_s=NOW) == message


def test_hashes_fit_the_store() -> None:
    """An eventId's hash has 40 bits, is the same in every process, and differs between ids."""
    hashes = {event_hash(str(n)) for n in range(10_000)}
    assert all(0 <= number < 2**40 for number in hashes)
    assert len(hashes) == 10_000
    assert event_hash("é") == 161_492_969_043
    assert math.log2(max(hashes)) > 39
