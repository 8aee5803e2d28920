"""Calls to an event sink, planned from Kafka messages, and the events they settle. No I/O."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from models.events import Event, PutEvents, encode
from models.state.operations.forwarding_ledger import TrackerChange, WaitingEvents
from streams.event_sinks import MAX_BATCH_EVENTS, EventBatch
from streams.kafka.consuming.assignment import Partition


@dataclass(eq=False, slots=True)
class QueuedMessage:
    """One Kafka message, and the outcomes of its events so far.

    Settled events are dropped at once: the message may stay for long, behind others.

    Attributes
    ----------
    put
        The message with a tracking id, without its events; None if it is not to be forwarded at
        all, or all events are settled.
    events
        Its events that are to be forwarded; None in the place of each settled one.
    tracker
        The tracking id; empty without one.
    at_s
        Kafka's timestamp, in seconds.
    size
        Bytes that it takes in the queue.
    unsettled
        Number of events that the sink has neither taken nor refused.
    """

    topic: str
    partition: int
    offset: int
    put: PutEvents | None
    events: Sequence[Event | None] = ()
    at_s: float = 0.0
    size: int = 0
    tracker: str = field(init=False, default="")
    unsettled: int = field(init=False)
    outcomes: Counter[str] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self.unsettled = len(self.events)
        if self.put is None:
            self.outcomes["skipped"] = 1
            return
        if len(self.events) < len(self.put.event_list):
            self.outcomes["withheld"] = len(self.put.event_list) - len(self.events)
        self.tracker, self.events = self.put.tracking_id or "", list(self.events)
        self.put = msgspec.structs.replace(self.put, event_list=[]) if self.events else None

    def settle(self, index: int, outcome: str) -> None:
        """Count the outcome of one of the events, and drop it."""
        events = list(self.events)
        events[index] = None
        self.events = events
        self.outcomes[outcome] += 1
        self.unsettled -= 1
        if not self.unsettled:
            self.put = None


class Pending(NamedTuple):
    """One event on its way to the sink: its message, and its number there.

    `event` and `put` raise `LookupError` once it is settled.
    """

    message: QueuedMessage
    number: int

    @property
    def is_open(self) -> bool:
        """True until it is settled."""
        return self.message.events[self.number] is not None

    @property
    def event(self) -> Event:
        """The event."""
        event = self.message.events[self.number]
        if event is None:
            raise LookupError
        return event

    @property
    def put(self) -> PutEvents:
        """Its message, without events."""
        if self.message.put is None:
            raise LookupError
        return self.message.put


Call = Sequence[Pending]
"""One to `MAX_BATCH_EVENTS` events of one tracker, session and user: one batch for the sink."""


def pending(messages: Iterable[QueuedMessage]) -> Iterator[Pending]:
    """Every unsettled event of the messages, in order."""
    for message in messages:
        for index, event in enumerate(message.events):
            if event is not None:
                yield Pending(message, index)


def plan_calls(events: Iterable[Pending]) -> list[list[Call]]:
    """Calls of each session, to be made in this order; every event is in exactly one.

    A session's events stay in order, so a user who alternates with another one within a session
    gets a call for each run of events.
    """
    sessions: dict[tuple[str, str], list[Pending]] = {}
    for event in events:
        sessions.setdefault((event.message.tracker, event.put.session_id), []).append(event)
    return [
        [
            run[start : start + MAX_BATCH_EVENTS]
            for _, group in itertools.groupby(session, key=lambda event: event.put.user_id)
            for run in [list(group)]
            for start in range(0, len(run), MAX_BATCH_EVENTS)
        ]
        for session in sessions.values()
    ]


def bisect(call: Call) -> tuple[Call, Call]:
    """Halves of a refused call of two or more events, in order."""
    middle = len(call) // 2
    return call[:middle], call[middle:]


def pop_settled(
    queues: Mapping[Partition, deque[QueuedMessage]], counted: Mapping[Partition, int]
) -> dict[Partition, TrackerChange]:
    """Remove settled messages from the head of each partition's queue; returns the progress.

    Messages below the `counted` offset of their partition were counted before, and do not count
    again.
    """
    moves: dict[Partition, TrackerChange] = {}
    for partition, queue in queues.items():
        next_offset, floor = 0, counted.get(partition, 0)
        outcomes: dict[str, Counter[str]] = {}
        while queue and not queue[0].unsettled:
            message = queue.popleft()
            if message.offset >= max(floor, next_offset):
                outcomes.setdefault(message.tracker, Counter()).update(message.outcomes)
            next_offset = max(next_offset, message.offset + 1)
        if next_offset:
            moves[partition] = TrackerChange(next_offset, outcomes)
    return moves


def waiting(queue: Iterable[QueuedMessage]) -> dict[str, WaitingEvents]:
    """Number of unsettled events of the messages, and the time of the oldest, by tracking id."""
    found: dict[str, WaitingEvents] = {}
    for message in queue:
        if message.unsettled:
            before = found.get(message.tracker, WaitingEvents(0, message.at_s))
            found[message.tracker] = WaitingEvents(
                before.events + message.unsettled, min(before.since_s, message.at_s)
            )
    return found


def single_event_message(event: Pending) -> bytes:
    """The event's message as bytes, without its other events."""
    return encode(msgspec.structs.replace(event.put, event_list=[event.event]))


def event_batch(call: Call, tracking_id: str) -> EventBatch:
    """A call as the sink takes it, under the sink's own tracking id."""
    put = call[0].put
    return EventBatch(tracking_id, put.session_id, put.user_id, [one.event for one in call])
