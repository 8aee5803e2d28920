"""Messages as the atomic step takes them: apply_batch.lua reads fields by their positions here."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from models.events import Event, event_hash
from models.state import layout
from models.state.context_columns import NO_CONTEXT, ContextColumns, context_values


class StoredEvent(NamedTuple):
    """One event as the atomic step takes it.

    Attributes
    ----------
    item_id
        Empty for an event without an item.
    time, millisecond
        Unix seconds, and the milliseconds beyond them.
    log2_weight
        Logarithm of the event type's weight.
    hash
        Of the event's id, 48 bits.
    context
        Lists of values by the columns that may be contextual.
    """

    item_id: str
    time: int
    type: str
    log2_weight: float
    is_purchase: bool
    hash: int
    context: ContextColumns = NO_CONTEXT
    millisecond: int = 0


class StoredMessage(NamedTuple):
    """The events of one Kafka message, with the owner and place they belong to.

    Attributes
    ----------
    user_id
        Empty for an anonymous session.
    shard
        `shard_of` the session.
    accepted_at, erased_at
        Unix seconds: when the message was accepted; when the user was erased, 0 for a message of
        events.
    group
        The dataset group; empty for that of the store that applies them.
    timestamp_ms, checksum
        Identify the message in its partition; those of the last one applied are kept.
    """

    offset: int
    user_id: str
    session_id: str
    shard: int
    accepted_at: float
    events: list[StoredEvent]
    group: str = ""
    timestamp_ms: int = 0
    checksum: int = 0
    erased_at: float = 0.0


class Part(NamedTuple):
    """Messages of one partition in offset order, and the watermark they follow.

    Attributes
    ----------
    field
        Names the partition, `<incarnation>/<partition>`.
    expected
        The watermark.
    checksum
        Of the message at the watermark; -1 if it is not known.
    """

    field: str
    expected: int
    messages: list[StoredMessage]
    checksum: int = -1


class PartResult(NamedTuple):
    """Result of a part; see apply_batch.lua for the statuses.

    Attributes
    ----------
    watermark
        Of the partition, after the step.
    offset
        Of the message that was refused; -1 if none was.
    refused
        Numbers of the refused events in that message.
    """

    status: Literal["applied", "lost", "full", "gone"]
    watermark: int
    offset: int
    refused: list[int]


def stored_events(
    events: Iterable[Event], *, weights: Mapping[str, float], purchase_types: frozenset[str]
) -> list[StoredEvent]:
    """Events as the atomic step takes them; they must have ids, as `models.events.parse` gives."""
    stored = []
    for event in events:
        kind = event.event_type.lower()
        stored.append(
            StoredEvent(
                event.item_id or "",
                int(event.sent_at),
                event.event_type,
                math.log2(weights.get(kind, 1.0)),
                kind in purchase_types,
                event_hash(event.event_id or ""),
                context_values(event.properties),
                int(event.sent_at * 1000) % 1000,
            )
        )
    return stored


def shard_of(session_id: str) -> int:
    """Number of the shard that holds a session's link to a user."""
    return zlib.crc32(session_id.encode()) % layout.LINK_SHARDS
