"""The event agent: decodes event messages and erasures, and applies them in atomic steps.

Events of several dataset groups share the topics; a step applies all groups' events at once, each
to its own group's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import Counter, Histogram

from models import events
from models.action_groups import actions_group, dataset_group, is_actions_group
from models.errors import InvalidEvent
from models.state.event_types import EventTypes
from models.state.messages import (
    Part,
    PartResult,
    StoredEvent,
    StoredMessage,
    shard_of,
    stored_events,
)
from models.state.store import Store
from models.state.tenants import Tenants
from models.state.users.action_features import counted_context, read_user_features
from streams.agents.atomic_batches import AtomicBatches
from streams.agents.contracts import BatchPart, Publish, StepObserver, StepWriter
from streams.agents.dead_letter_queue import DeadLetterQueue, Rejection
from streams.kafka.consuming.assignment import PartitionLog, ReceivedMessage
from streams.kafka.dead_letters import FULL

if TYPE_CHECKING:
    from streams.agents.step_spans import StepSpans

STEP_EVENTS = 200
"""Bound of the events in one atomic step: a longer step would hold up requests."""

EVENT_BYTES = 150
"""Typical bytes of an event in a message, to estimate the size of a step."""

APPLIED = Counter("recommender_events_total", "Events by outcome", ["outcome"])
FRESHNESS = Histogram(
    "recommender_freshness_seconds",
    "From the acceptance of a message to its effect",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60),
)
STEP = Histogram("recommender_step_seconds", "Duration of one atomic step")


def event_agent(
    tenants: Tenants,
    *,
    publish: Publish,
    log: PartitionLog,
    clock: Callable[[], float],
    observer: StepObserver[StoredMessage] | None = None,
    spans: StepSpans | None = None,
    writer: StepWriter[StoredMessage] | None = None,
) -> AtomicBatches[StoredMessage]:
    """The agent of the event topics; one for each worker process.

    Parameters
    ----------
    publish
        Produces to the topic of dead letters.
    clock
        The present in Unix seconds.
    observer
        Looks at the state before each step: samples training examples, in a worker.
    spans
        Traces the messages of each step; None for no traces.
    writer
        Writes to the shards of a group of several; None for the group's store.
    """
    kept_bytes = tenants.settings.dead_letter_payload_bytes
    codec = EventCodec(tenants, clock)
    return AtomicBatches(
        tenants,
        codec,
        writer or EventWriter(tenants.store(tenants.settings.group), clock),
        DeadLetterQueue("sessions", publish, clock, kept_bytes, APPLIED.labels("dead")),
        log=log,
        step_size=STEP_EVENTS,
        splitter=codec,
        observer=observer,
        spans=spans,
    )


class EventCodec:
    """Decodes event messages and erasures: a `MessageCodec` and `MessageSplitter`."""

    def __init__(self, tenants: Tenants, clock: Callable[[], float]) -> None:
        self._tenants = tenants
        self._settings = tenants.settings
        self._clock = clock

    def size(self, received: ReceivedMessage) -> int:
        """Estimated number of events in a message."""
        return max(1, len(received.value) // EVENT_BYTES)

    async def decode(self, received: ReceivedMessage) -> StoredMessage:
        """The message as the store takes it; waits for Redis to know another group's tracking id.

        Raises
        ------
        Rejection
            It is invalid, or no group has its tracking id.
        """
        now_s, limit_s = self._clock(), self._settings.future_limit_s
        raw = received.value
        try:
            erasure = events.parse_erasure(raw, now_s=now_s, future_limit_s=limit_s)
            if erasure is not None:
                return self._erasure(received, erasure)
            message = events.parse(raw, now_s=now_s, future_limit_s=limit_s)
        except InvalidEvent as error:
            group = await self._group_of(events.tracking_id_of(raw), received)
            raise Rejection("invalid", str(error), raw, group=group or "") from error
        group = await self._group_of(message.tracking_id, received)
        if group is None:
            raise _unknown_tracking_id(received, message)
        if self._settings.shards > 1 and group != self._settings.group:
            detail = f"with RECOMMENDER_SHARDS there is no group but {self._settings.group!r}"
            raise Rejection("invalid", detail, raw, group=group)
        stored = stored_events(
            message.event_list, self._types_of(group), are_imported=events.is_of_import(message)
        )
        if is_actions_group(group):
            stored = await self._with_features(group, message, stored)
        _, timestamp_ms, checksum = received.witness
        return StoredMessage(
            received.offset,
            message.user_id or "",
            message.session_id,
            shard_of(message.session_id),
            # Producers other than the API write this time: one in the future would look fresh.
            min(message.accepted_at or now_s, now_s),
            stored,
            self._stored_group(group),
            timestamp_ms,
            checksum,
        )

    def without_effects(self, received: ReceivedMessage) -> StoredMessage:
        """A message without events, which only moves the watermark."""
        _, timestamp_ms, checksum = received.witness
        return StoredMessage(received.offset, "", "", 0, 0.0, [], "", timestamp_ms, checksum)

    def split(
        self, received: ReceivedMessage, message: StoredMessage, result: PartResult
    ) -> tuple[Rejection, StoredMessage]:
        """The refused events, and the others: its group is gone, or holds all the items it may."""
        sent = events.parse(received.value, now_s=self._clock(), future_limit_s=float("inf"))
        if result.status == "gone":
            self._tenants.forget()
            return _unknown_tracking_id(received, sent), self.without_effects(received)
        refused = [sent.event_list[n] for n in result.refused]
        group = message.group or self._settings.group
        rejection = Rejection(
            FULL,
            f"group {group} holds max_items items",
            events.encode(msgspec.structs.replace(sent, event_list=refused)),
            group=group,
        )
        numbers = set(result.refused)
        kept = [event for n, event in enumerate(message.events) if n not in numbers]
        return rejection, message._replace(events=kept)

    def _erasure(self, received: ReceivedMessage, erasure: events.Erasure) -> StoredMessage:
        if self._settings.shards > 1 and erasure.erase != self._settings.group:
            # A group that does not exist has no user to erase.
            return self.without_effects(received)
        return self.without_effects(received)._replace(
            user_id=erasure.user_id,
            accepted_at=erasure.accepted_at,
            group=self._stored_group(erasure.erase),
            erased_at=erasure.accepted_at,
            # On a cluster there are none: one step would span two nodes.
            actions_group="" if self._settings.has_one_group else actions_group(erasure.erase),
        )

    async def _with_features(
        self, group: str, message: events.PutEvents, stored: Sequence[StoredEvent]
    ) -> list[StoredEvent]:
        """Interactions with actions, with the features of the user as their contexts."""
        actions = self._tenants.store(group)
        items = self._tenants.store(dataset_group(group))
        known = await read_user_features(items, actions, message.user_id, message.session_id)
        indexes = await actions.item_indexes([event.item_id for event in stored])
        return [
            # An action that is not taken is an outcome to count, whatever events on items mean.
            event._replace(context=counted_context(event.type, known.of_action(index)), effect=0)
            for event, index in zip(stored, indexes, strict=True)
        ]

    async def _group_of(self, tracking_id: str | None, received: ReceivedMessage) -> str | None:
        """Group of a message's tracking id; that of the settings for none, None if unknown."""
        if tracking_id in (None, self._settings.tracking_id):
            return self._settings.group
        return await self._tenants.group_when_sent(tracking_id, received.timestamp_ms / 1000)

    def _types_of(self, group: str) -> EventTypes:
        """Types of events in a group, with their weights."""
        return EventTypes.of(self._tenants.store(group).settings)

    def _stored_group(self, group: str) -> str:
        """A group as the store names it: empty for its own."""
        return "" if group == self._settings.group else group


class EventWriter:
    """Writes events to the store: a `StepWriter`."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def write(self, parts: Sequence[BatchPart[StoredMessage]]) -> list[PartResult]:
        """Apply parts in one atomic step; one result for each."""
        with STEP.time():
            results, counts = await self._store.apply(
                [Part(*part[:4]) for part in parts], now_s=self._clock()
            )
        count_applied(counts)
        return results

    def on_applied(self, messages: Sequence[StoredMessage]) -> None:
        """Record the freshness of messages that have come into effect."""
        now_s = self._clock()
        for message in messages:
            if message.accepted_at:
                FRESHNESS.observe(max(0.0, now_s - message.accepted_at))


def count_applied(counts: Mapping[str, int]) -> None:
    """Add what a step has applied to the metrics."""
    APPLIED.labels("applied").inc(counts["events"])
    APPLIED.labels("duplicate").inc(counts["duplicates"])
    APPLIED.labels("undone").inc(max(counts["undone"], 0))
    APPLIED.labels("erased").inc(counts["erased"])


def _unknown_tracking_id(received: ReceivedMessage, message: events.PutEvents) -> Rejection:
    detail = f"unknown tracking id {message.tracking_id!r} - at `$.trackingId`"
    return Rejection("invalid", detail, received.value)
