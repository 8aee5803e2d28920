"""Hypothesis strategies of malformed messages: arbitrary bytes, and nearly valid JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

ODD_VALUES = (
    *(b"null", b"true", b"0", b"-1", b"-0.0", b"1e400", b"-1e400", b"1e-400", b"5e-324"),
    *(b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"9" * 400),
    *(b"1.7976931348623157e308", b"NaN", b"Infinity", b"-Infinity", b"1790000000000000000"),
    *(b'""', b'"x"', b'"nan"', b'"-inf"', b'"1e308"', b'"1790000000"', b'"\\u0000"', b'" "'),
    *(b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xed\xa0\x80"', b'"\xff"', b'"\\x"', b'"\xf0\x9f\x98"'),
    *(
        b'"' + b"x" * 257 + b'"',
        b'"' + b"\xc3\xa4" * 200_000 + b'"',
        b'"' + b"\\u0001" * 256 + b'"',
    ),
    *(b"[]", b"{}", b"[null]", b"[[]]", b"[" * 5000, b"[" * 900 + b"]" * 900, b'{"a":' * 5000),
    *(b'{"a":' * 900 + b"1" + b"}" * 900, b'{"a":1,"a":2}', b'"{\\"itemId\\":1}"', b'"[[[["'),
    *(b'{"itemId":"\\ud800"}', b'"{\\"itemId\\":\\"\\\\ud800\\"}"', b'{"itemId":' + b"[" * 3000),
    *(b"", b",", b"}", b"\x00", b"/* */ 1", b"1 2", b"True", b"'x'", b"0x10", b"01", b"+1", b".5"),
)

EVENT = {
    "eventId": b'"e"',
    "eventType": b'"click"',
    "itemId": b'"odd"',
    "sentAt": b"1789990000",
    "eventValue": b"1.5",
    "impression": b'["a","b"]',
    "recommendationId": b'"r"',
    "metricAttribution": b'{"eventAttributionSource":"mail"}',
    "properties": b'{"colour":"red"}',
}
MESSAGE = {
    "sessionId": b'"odd"',
    "userId": b'"odd"',
    "trackingId": b'"shop"',
    "acceptedAt": b"1789990000.5",
}
ERASURE = {"erase": b'"shop"', "userId": b'"odd"', "acceptedAt": b"1789990000"}
RECORD = {
    "group": b'"shop"',
    "itemId": b'"odd"',
    "userId": b'"odd"',
    "at": b"1789990000",
    "properties": b'{"GENRES":"a|b","PRICE":9.5,"NEW":true,"CREATION_TIMESTAMP":1700000000}',
}
PROPERTIES = {"GENRES": b'"a|b"', "PRICE": b"9.5", "CREATION_TIMESTAMP": b"1700000000"}

KEYS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"shop/odd", b"/", b"shop/", b"shop/" + b"x" * 300, b"\xff/\xff", b"k" * 100_000]
    ),
)
TIMES_MS = st.sampled_from([0, -1, -(2**63), 1_790_000_000_000, 2**53 + 1, 2**63 - 1])


@st.composite
def texts(draw: st.DrawFn, members: Mapping[str, bytes]) -> bytes:
    """JSON text of these members, some of them missing, doubled, misnamed or odd."""
    parts = []
    for name, value in members.items():
        if draw(st.integers(0, 9)) == 0:
            continue
        for _ in range(draw(st.sampled_from([1] * 9 + [2]))):
            is_odd = draw(st.integers(0, 7)) == 0
            shown = draw(st.sampled_from(ODD_VALUES)) if is_odd else value
            called = draw(st.sampled_from([name] * 15 + [name.upper(), "", "\\ud800"]))
            parts.append(b'"%s":%s' % (called.encode(), shown))
    return b"{" + b",".join(parts) + b"}"


@st.composite
def messages_of_events(draw: st.DrawFn) -> bytes:
    """A nearly valid event message."""
    events = draw(st.lists(texts(EVENT), max_size=12))
    listed = b"[" + b",".join(events) + b"]"
    return draw(texts({**MESSAGE, "eventList": listed}))


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A nearly valid metadata record."""
    return draw(texts({**RECORD, "properties": draw(texts(PROPERTIES))}))


@st.composite
def cut(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """The beginning of a text, with one byte changed."""
    text = bytearray(draw(whole))
    if text and draw(st.booleans()):
        text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
    return bytes(text[: draw(st.integers(0, len(text)))])


LARGE = st.sampled_from([b"x" * 900_000, b"[" * 500_000, b"\x00" * 600_000, b'"' * 300_000])
ODD_EVENTS = st.one_of(
    messages_of_events(), texts(ERASURE), cut(messages_of_events()), st.binary(max_size=80), LARGE
)
ODD_RECORDS = st.one_of(records(), cut(records()), st.binary(max_size=80), LARGE)

NUMBERS = st.sampled_from([0, 1, -1, 20, 2**31, 2**53 + 1, 2**63, 2**64 - 1, -(2**63)])


@st.composite
def odd_examples(draw: st.DrawFn, *, n_features: int, rivals: tuple[str, ...]) -> bytes:
    """A nearly valid training example in MessagePack."""
    ranks = draw(st.dictionaries(st.sampled_from(rivals), NUMBERS))
    whole: Any = {rival: draw(NUMBERS) for rival in rivals}
    odd: Any = st.sampled_from([None, -1, "x", [], {}, 1.5, True])
    members = {
        "n_features": draw(st.one_of(st.just(n_features), NUMBERS, odd)),
        "ranks": draw(
            st.one_of(
                st.just({"interactions": whole}),
                st.just({"interactions": whole, "purchases": whole}),
                st.just({"interactions": ranks}),
                st.just({"nobody": whole}),
                odd,
            )
        ),
        "rows": draw(
            st.one_of(
                st.binary(max_size=8 * n_features),
                st.integers(0, 5).map(lambda n: bytes(2 * n * n_features)),
                st.sampled_from([b"\xff\x7b" * n_features, b"\x00\x7c" * n_features]),
            )
        ),
    }
    raw = msgspec.msgpack.encode(members)
    return draw(st.sampled_from([raw, raw[:-1], raw + raw, b"\x91" * 5000, b"\x81\xa1a" * 3000]))


def good_event(number: int) -> bytes:
    """A valid message of one event."""
    event = {"eventId": f"good{number}", "eventType": "click", "itemId": "good"}
    body = {"sessionId": f"good{number}", "eventList": [{**event, "sentAt": 1_789_990_000}]}
    return json.dumps(body).encode()
