"""The event topics as a drill's audit reads them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from models.errors import InvalidEvent
from models.events import parse, parse_erasure
from models.settings import Settings
from models.state.event_types import EventTypes
from models.state.messages import StoredMessage, shard_of, stored_events
from ops.drill.lost_tails import Tail
from ops.drill.reads import Record

ERASED, ERASED_ITEMS = "gone", "g"
"""Prefix of the ids of users who are erased, and of their items."""

Place = tuple[str, int, int]
"""Topic, partition and offset."""


class SeenEvent(NamedTuple):
    """Identity of an event among those of its owner."""

    owner: str
    time: int
    item: str


@dataclass
class Log:
    """The event topics, read from their beginning.

    Attributes
    ----------
    messages
        Messages of events that are ours, by topic and partition, in order.
    positions
        Where each event is in Kafka, by its id: more than once if it was repeated.
    names
        Id of each event.
    undecodable
        Messages that belong among the dead letters.
    has_lost_tails
        True if messages were read again, which `comparison.DROPPED` counts.
    n_erasable
        Events of users who are erased: in which order with the erasure is not known.
    """

    messages: dict[tuple[str, int], list[StoredMessage]]
    positions: dict[str, list[Place]] = field(default_factory=lambda: defaultdict(list))
    names: dict[SeenEvent, str] = field(default_factory=dict)
    undecodable: set[Place] = field(default_factory=set)
    has_lost_tails: bool = False
    n_erasable: int = 0


def log_of(records: Iterable[Record], tails: Sequence[Tail], settings: Settings) -> Log:
    """The log of these records, with lost ones that are in effect at the offsets that they had."""
    log = Log(defaultdict(list), has_lost_tails=bool(tails))
    ordered = [(*record.position, 0, record.offset, record) for record in records]
    for number, tail in enumerate(tails):
        # At the offset of the first that is lost, before the one that has this offset now.
        before = number - len(tails)
        ordered += [(*tail.place, tail.first, before, one.offset, one) for one in tail.kept]
    for *_, turn, _, record in sorted(ordered):
        _add(log, record, settings, is_in_kafka=turn == 0)
    return log


def _add(log: Log, record: Record, settings: Settings, *, is_in_kafka: bool) -> None:
    now_s, limit_s = time.time(), settings.future_limit_s
    try:
        if parse_erasure(record.value, now_s=now_s, future_limit_s=limit_s) is not None:
            return
        message = parse(record.value, now_s=now_s, future_limit_s=limit_s)
        is_ours = message.tracking_id in {None, settings.tracking_id}
    except InvalidEvent:
        is_ours = False
    if not is_ours:
        if is_in_kafka:
            log.undecodable.add(record.position)
        return
    if is_in_kafka:
        for event in message.event_list:
            log.positions[event.event_id or ""].append(record.position)
    user, session = message.user_id or "", message.session_id
    if user.startswith(ERASED):
        log.n_erasable += len(message.event_list)
        return
    for event in message.event_list:
        seen = SeenEvent(user or session, int(event.sent_at), event.item_id or "")
        log.names[seen] = event.event_id or ""
    messages = log.messages[record.topic, record.partition]
    events = stored_events(message.event_list, EventTypes.of(settings))
    accepted_at = min(message.accepted_at or now_s, now_s)
    shard = shard_of(session)
    messages.append(StoredMessage(len(messages), user, session, shard, accepted_at, events))
