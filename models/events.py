"""The one event schema: Amazon Personalize PutEvents, as HTTP body, Kafka message and replay line.

A `PutEvents` message carries 1 to 10 events of one session. All of them pass through `parse`, which
returns valid messages with times in seconds and an `event_id` on every event.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from models.errors import InvalidEvent

MAX_MESSAGE_BYTES = 256 * 1024
"""Largest encoded message: ten events of the largest allowed members, with room for escapes."""

UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
"""Units of times, and their number in a second."""

MILLISECONDS_FROM = 1e11
MICROSECONDS_FROM = 1e14
NANOSECONDS_FROM = 1e17
"""A time above this is in that unit: in the next larger one it would be after the year 5138."""

UNDO = "undo"
"""Type, in any case, of events that undo another one."""

IMPORT_PREFIX = "import-"
"""Beginning of the tracking ids of events that are imported in bulk, and may be replaced so."""

Id = Annotated[str, Meta(min_length=1, max_length=256)]
# Numbers may be sent as text, where "nan" and "inf" are numbers too: JSON could not encode them.
Finite = Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


class MetricAttribution(msgspec.Struct, frozen=True, rename="camel"):
    """Source of an event, for attribution."""

    event_attribution_source: Annotated[
        # The end in a form that Python and ECMAScript, whose patterns JSON Schema has, agree on.
        str, Meta(min_length=1, max_length=1024, pattern=r"^[\x20-\x7E]*(?![\s\S])")
    ]


class Event(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One interaction of a user; times in Unix seconds."""

    event_type: Id
    sent_at: Annotated[
        float,
        Meta(
            description="Unix time, in seconds or milliseconds.",
            extra_json_schema={"exclusiveMinimum": 0},
        ),
    ]
    event_id: Annotated[
        Id | None, Meta(description="The same id is the same event; made of the rest if absent.")
    ] = None
    item_id: Id | None = None
    event_value: Annotated[
        Finite | None, Meta(description="A number of the event, such as a rating or a price.")
    ] = None
    impression: Annotated[
        Annotated[list[Id], Meta(min_length=1, max_length=25)] | None,
        Meta(description="Items that were shown."),
    ] = None
    recommendation_id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=40)] | None,
        Meta(description="Of the answer that showed the item."),
    ] = None
    metric_attribution: MetricAttribution | None = None
    properties: Annotated[
        str | dict[str, Any] | None,
        Meta(description="A JSON object, or the text of one, of 1 to 1024 characters."),
    ] = None


class PutEvents(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One to ten events of one session, as sent; `accepted_at` in Unix seconds."""

    session_id: Id
    event_list: Annotated[list[Event], Meta(min_length=1, max_length=10)]
    tracking_id: Id | None = None
    user_id: Id | None = None
    accepted_at: Finite | None = None


class Erasure(msgspec.Struct, frozen=True, rename="camel"):
    """Erasure of a user in a dataset group: of all events sent or accepted until then.

    Attributes
    ----------
    erase
        The group; the member that tells these messages from those of events on the same topics.
    accepted_at
        Time of the erasure, Unix seconds.
    """

    erase: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,63}\Z")]
    user_id: Id
    accepted_at: Annotated[float, Meta(gt=0, le=sys.float_info.max)]


class _Marked(msgspec.Struct, frozen=True):
    erase: msgspec.Raw = msgspec.Raw()


class _Tracked(msgspec.Struct, frozen=True, rename="camel"):
    tracking_id: Id | None = None


_decoder = msgspec.json.Decoder(PutEvents, strict=False)
_erasure_decoder = msgspec.json.Decoder(Erasure)
_marked_decoder = msgspec.json.Decoder(_Marked)
_tracked_decoder = msgspec.json.Decoder(_Tracked)
_encoder = msgspec.json.Encoder()


def parse(raw: bytes, *, now_s: float, future_limit_s: float = 300.0) -> PutEvents:
    """Parse a message: times become seconds, missing ids are filled in, `itemId` moves to the top.

    Parameters
    ----------
    raw
        JSON text of one message.
    now_s
        The present, Unix seconds.
    future_limit_s
        An event later than `now_s` by more than this is refused.

    Raises
    ------
    InvalidEvent
        With the member that breaks the schema, and the rule.

    Examples
    --------
    >>> event = b'{"eventType":"click","itemId":"i","sentAt":1700000000500}'
    >>> parse(b'{"sessionId":"s","eventList":[%s]}' % event, now_s=1.8e9).event_list[0].sent_at
    1700000000.5
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        raise InvalidEvent(f"message of {len(raw)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    try:
        message = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(str(error)) from error
    latest_s = now_s + future_limit_s
    events = [
        _normalised(event, message.session_id, latest_s, f"$.eventList[{n}]")
        for n, event in enumerate(message.event_list)
    ]
    return msgspec.structs.replace(message, event_list=events)


def unit_of(time: float) -> str:
    """Unit of a time since the epoch, by its size: one rule for all inputs.

    >>> [unit_of(1.7 * 10**n) for n in (9, 12, 15, 18)]
    ['seconds', 'milliseconds', 'microseconds', 'nanoseconds']
    """
    if time <= MILLISECONDS_FROM:
        return "seconds"
    if time <= MICROSECONDS_FROM:
        return "milliseconds"
    return "microseconds" if time <= NANOSECONDS_FROM else "nanoseconds"


def in_seconds(time: float) -> float:
    """A time since the epoch, converted to seconds from whichever unit it is in.

    >>> in_seconds(1_700_000_000_000_000), in_seconds(1_700_000_000)
    (1700000000.0, 1700000000)
    """
    return time if time <= MILLISECONDS_FROM else time / UNITS[unit_of(time)]


def parse_erasure(raw: bytes, *, now_s: float, future_limit_s: float = 300.0) -> Erasure | None:
    """Parse an erasure; None for a message of events.

    Raises
    ------
    InvalidEvent
        An erasure breaks a rule; as in `parse`.

    Examples
    --------
    >>> raw = b'{"erase":"shop","userId":"u7","acceptedAt":1700000000.5}'
    >>> parse_erasure(raw, now_s=1.8e9).user_id
    'u7'
    """
    # Few messages contain the word: all others are decoded once.
    if b'"erase"' not in raw or len(raw) > MAX_MESSAGE_BYTES:
        return None
    try:
        if not bytes(_marked_decoder.decode(raw).erase):
            return None
        found = _erasure_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(str(error)) from error
    if found.accepted_at > now_s + future_limit_s:
        raise InvalidEvent("acceptedAt lies too far in the future - at `$.acceptedAt`")
    return found


def tracking_id_of(raw: bytes) -> str | None:
    """Tracking id of a message that breaks the schema elsewhere; None if it cannot be read.

    >>> tracking_id_of(b'{"trackingId":"shop","sessionId":5}')
    'shop'
    """
    if len(raw) > MAX_MESSAGE_BYTES:
        return None
    try:
        return _tracked_decoder.decode(raw).tracking_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def encode(message: PutEvents | Erasure) -> bytes:
    """The message as JSON text, without absent members; `parse` returns an equal one."""
    return _encoder.encode(message)


def event_hash(event_id: str) -> int:
    """40-bit hash of an eventId, for the store's deduplication."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=5).digest(), "little")


def removal(hashed: int, event_type: str, at_s: float) -> Event:
    """An event that removes an imported event of this hash, type and time; for imports only."""
    properties = {"eventId": f"{hashed:010x}", "eventType": event_type}
    return Event(UNDO, at_s, properties=properties)


def undone_hash(undone_id: str, *, is_of_import: bool) -> int:
    """Hash of the id of the event that is undone; an import gives the hash itself for the id.

    >>> undone_hash("000000ff", is_of_import=True)
    255
    """
    if not is_of_import:
        return event_hash(undone_id)
    try:
        return int(undone_id, 16) % 2**40
    except ValueError:
        return event_hash(undone_id)


def topic_type(event: Event) -> str:
    """The type that decides which topic an event is sent to, in lower case.

    A removal comes behind the event that it removes.

    >>> topic_type(removal(255, "Purchase", 1.8e9))
    'purchase'
    """
    if event.event_type.lower() == UNDO and isinstance(event.properties, dict):
        return str(event.properties.get("eventType", UNDO)).lower()
    return event.event_type.lower()


def is_of_import(message: PutEvents) -> bool:
    """True for a message of a bulk import."""
    return (message.tracking_id or "").startswith(IMPORT_PREFIX)


def undone_event_id(event: Event) -> str | None:
    """Id of the event that an event of type `undo` undoes; None for any other event.

    Raises
    ------
    InvalidEvent
        It names none.

    Examples
    --------
    >>> undone_event_id(Event("Undo", 1.8e9, properties={"eventId": "e7"}))
    'e7'
    """
    if event.event_type.lower() != UNDO:
        return None
    properties = event.properties
    if isinstance(properties, str):
        properties = msgspec.json.decode(properties)
    found = properties.get("eventId") if isinstance(properties, dict) else None
    if not isinstance(found, str) or not 1 <= len(found) <= 256:
        raise InvalidEvent("an undo needs properties.eventId, a string of 1 to 256 characters")
    return found


def _normalised(event: Event, session_id: str, latest_s: float, path: str) -> Event:
    sent_at = in_seconds(event.sent_at)
    if not sent_at > 0:
        raise InvalidEvent(f"sentAt must be after 1970 - at `{path}.sentAt`")
    if sent_at > latest_s:
        raise InvalidEvent(f"sentAt lies too far in the future - at `{path}.sentAt`")
    legacy_item_id = _item_in_properties(event.properties, path)
    try:
        undone_event_id(event)
    except InvalidEvent as error:
        raise InvalidEvent(f"{error} - at `{path}.properties`") from error
    item_id = event.item_id or legacy_item_id
    if sent_at == event.sent_at and item_id == event.item_id and event.event_id:
        return event
    event_id = event.event_id or _content_id(event, session_id, item_id, sent_at)
    return msgspec.structs.replace(event, sent_at=sent_at, item_id=item_id, event_id=event_id)


def _item_in_properties(properties: str | dict[str, Any] | None, path: str) -> str | None:
    """The `itemId` of the legacy form, which has it inside `properties`."""
    if properties is None:
        return None
    where = f" - at `{path}.properties`"
    text = properties if isinstance(properties, str) else _encoder.encode(properties).decode()
    if not 1 <= len(text) <= 1024:
        raise InvalidEvent(f"Expected 1 to 1024 characters, got {len(text)}{where}")
    if isinstance(properties, str):
        try:
            properties = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidEvent(f"not JSON: {error}{where}") from error
        if not isinstance(properties, dict):
            raise InvalidEvent(f"Expected a JSON object{where}")
    item = properties.get("itemId")
    if item is None:
        return None
    if not isinstance(item, str) or not 1 <= len(item) <= 256:
        raise InvalidEvent(f"itemId must be a string of 1 to 256 characters{where}")
    return item


def _content_id(event: Event, session_id: str, item_id: str | None, sent_at: float) -> str:
    """Id for an event without one: equal content at the same time is the same event."""
    content = _encoder.encode(
        (session_id, event.event_type, item_id, sent_at, event.event_value, event.properties)
    )
    return hashlib.blake2b(content, digest_size=16).hexdigest()
