"""Messages as the atomic step takes them: apply_batch.lua reads fields by their positions here."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from models.events import Event, event_hash, undone_event_id, undone_hash
from models.state import layout
from models.state.context_columns import NO_CONTEXT, ContextColumns, context_values
from models.state.event_types import EventTypes

MAX_VALUE = 1e9
"""Bound of an event's value where it counts as an outcome's; a larger one counts as this."""

NO_TYPES: Mapping[str, Mapping[str, float]] = {}

TAKE_BACKS = (layout.TAKES_BACK_CART, layout.TAKES_BACK_PURCHASE)


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
        Of the event's id, 40 bits.
    context
        Lists of values by the columns that may be contextual.
    recommendation_id
        Of the list that the event names as its reason; empty if it names none.
    value
        Its eventValue in thousandths, at most `MAX_VALUE`.
    effect
        Of a negative event type, see `models.state.event_types`; 0 for any other.
    undoes
        Hash of the id of the event that this one undoes; 0 for any other event.
    types
        Of an event that takes something back, `EventTypes.for_withdrawals`.
    is_imported
        True for an event of an import in bulk. If it undoes, it removes an imported event, which
        counts anew when it is imported again.
    """

    item_id: str
    time: int
    type: str
    log2_weight: float
    is_purchase: bool
    hash: int
    context: ContextColumns = NO_CONTEXT
    millisecond: int = 0
    recommendation_id: str = ""
    value: int = 0
    effect: int = 0
    undoes: int = 0
    types: Mapping[str, Mapping[str, float]] = NO_TYPES
    is_imported: bool = False


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
    actions_group
        State group of the group's actions, from which an erasure removes the user, too; empty for
        a message of events.
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
    actions_group: str = ""


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

    @property
    def is_behind(self) -> bool:
        """True if a shard of several does not have the part yet, see `BehindResult`."""
        return False


class BehindResult(PartResult):
    """Result of a part that one of several shards does not have yet, as its server is away.

    The watermark is that of the others; the messages are read again for the absent one.
    """

    __slots__ = ()

    @property
    def is_behind(self) -> bool:
        """True."""
        return True


class StoredPosition(NamedTuple):
    """Position up to which a partition is in effect.

    Attributes
    ----------
    watermark, witness
        The last offset in effect in all shards that answer; offset, time (ms) and checksum of the
        message there, None if it is not known.
    newest
        The last offset in effect in any of them; the watermark for a group of one shard.
    is_whole
        False if a shard does not answer, which may be less far.
    """

    watermark: int
    witness: tuple[int, int, int] | None
    newest: int
    is_whole: bool = True


def stored_events(
    events: Iterable[Event], types: EventTypes, *, are_imported: bool = False
) -> list[StoredEvent]:
    """Events as the atomic step takes them; they must have ids, as `models.events.parse` gives."""
    return [_stored_event(event, types, is_imported=are_imported) for event in events]


def _stored_event(event: Event, types: EventTypes, *, is_imported: bool) -> StoredEvent:
    undone_id = undone_event_id(event)
    effect = 0 if undone_id is not None else types.effect(event.event_type)
    takes_back = undone_id is not None or effect in TAKE_BACKS
    return StoredEvent(
        event.item_id or "" if undone_id is None else "",
        int(event.sent_at),
        event.event_type,
        types.log2_weight(event.event_type, event.event_value),
        types.is_purchase(event.event_type),
        event_hash(event.event_id or ""),
        context_values(event.properties),
        int(event.sent_at * 1000) % 1000,
        event.recommendation_id or "",
        stored_value(event.event_value),
        effect,
        0 if undone_id is None else undone_hash(undone_id, is_of_import=is_imported),
        types.for_withdrawals() if takes_back else NO_TYPES,
        is_imported,
    )


def stored_value(value: float | None) -> int:
    """A value in thousandths, within `MAX_VALUE`: sums of integers do not depend on their order.

    >>> stored_value(19.99), stored_value(None), stored_value(-1e300)
    (19990, 0, -1000000000000)
    """
    return 0 if not value else round(1000 * max(-MAX_VALUE, min(MAX_VALUE, value)))


def shard_of(session_id: str) -> int:
    """Number of the shard that holds a session's link to a user."""
    return zlib.crc32(session_id.encode()) % layout.LINK_SHARDS
