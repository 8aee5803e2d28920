"""Kafka messages to be produced: events, metadata records and erasures, encoded and keyed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from models.errors import InvalidEvent
from models.events import MAX_MESSAGE_BYTES, Erasure, Event, PutEvents, encode, topic_type
from models.metadata_records import (
    MetadataRecord,
    Properties,
    RecordKind,
    encode_record,
    validate_properties,
)
from models.settings import Settings
from models.tokens import TopicKind
from streams.kafka.topics import Topics


class ProducedMessage(NamedTuple):
    """One Kafka message to be produced; without a value, a tombstone for its key."""

    kind: TopicKind
    topic: str
    key: bytes
    value: bytes | None

    @property
    def size(self) -> int:
        """Bytes that it takes while it waits."""
        return len(self.key) + len(self.value or b"")


def event_messages(message: PutEvents, settings: Settings, *, at_s: float) -> list[ProducedMessage]:
    """A message's events by topic, in order: purchases apart from the rest, keyed by the session.

    They are accepted at `at_s`; a missing tracking id is the settings'.

    Raises
    ------
    InvalidEvent
        One of the messages would be over `MAX_MESSAGE_BYTES`.
    """
    tracking_id = message.tracking_id or settings.tracking_id
    stamped = msgspec.structs.replace(message, accepted_at=at_s, tracking_id=tracking_id)
    by_kind: dict[TopicKind, list[Event]] = {}
    for event in message.event_list:
        name = topic_type(event)
        # What takes purchases back, in whichever group it is, stays behind them.
        is_purchase = name in settings.purchase_types or settings.takes_back_purchases(name)
        by_kind.setdefault("purchases" if is_purchase else "clicks", []).append(event)
    topics = Topics.of(settings).of_tokens
    messages: list[ProducedMessage] = []
    for kind, events in by_kind.items():
        value = encode(msgspec.structs.replace(stamped, event_list=events))
        if len(value) > MAX_MESSAGE_BYTES:
            raise InvalidEvent(
                f"message of {len(value)} bytes is over the limit of {MAX_MESSAGE_BYTES}"
            )
        messages.append(ProducedMessage(kind, topics[kind], message.session_id.encode(), value))
    return messages


def record_messages(
    kind: RecordKind,
    group: str,
    records: Iterable[tuple[str, Properties | None]],
    topics: Topics,
    *,
    at_s: float,
    imported_by: str = "",
) -> list[ProducedMessage]:
    """A message for each metadata record; a tombstone for a record of None.

    `imported_by` is the import in bulk that they are of.

    Raises
    ------
    InvalidRecord
        A record breaks a rule.
    """
    topic = topics.of_tokens[kind]
    messages = []
    for name, properties in records:
        valid = validate_properties(kind, name, properties or {})
        kept = None if properties is None else valid
        record = MetadataRecord(group, name, kept, at_s, imported_by)
        key, value = encode_record(kind, record)
        messages.append(ProducedMessage(kind, topic, key, value or None))
    return messages


def erasure_messages(
    group: str, user_ids: Iterable[str], topics: Topics, *, at_s: float
) -> list[ProducedMessage]:
    """Two messages for each user: a tombstone of its record, and the erasure of its events.

    Raises
    ------
    InvalidRecord
        A user id breaks a rule.
    """
    messages = []
    for user_id in user_ids:
        validate_properties("users", user_id, {})
        # A compacted topic keeps the newest record of each key: without this one, it would return.
        key, _ = encode_record("users", MetadataRecord(group, user_id, None, at_s))
        messages.append(ProducedMessage("users", topics.users, key, None))
        value = encode(Erasure(group, user_id, at_s))
        messages.append(ProducedMessage("clicks", topics.clicks, user_id.encode(), value))
    return messages
