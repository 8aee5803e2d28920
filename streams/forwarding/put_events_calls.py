"""PutEvents calls out of Kafka messages, and what is answered for; all of it without waiting."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from models.events import Event, PutEvents, encode
from models.state.forwarding_ledger import TrackerChange, WaitingEvents

EVENTS_A_CALL = 10
"""AWS takes no more in one PutEvents."""

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""


@dataclass(eq=False, slots=True)
class QueuedMessage:
    """One Kafka message, and what became of its events so far.

    What is answered for is forgotten at once: the message itself may stay for long, behind others.

    Attributes
    ----------
    put
        As it came, with a tracking id, without its events; `None` if it is not to be forwarded at
        all, or all is answered for.
    events
        Those of its events that are to be forwarded; `None` in the place of each that is answered
        for.
    tracker
        The tracking id; empty without one.
    at_s
        When Kafka got it, in seconds.
    size
        What it is counted for among those that are held, in bytes.
    unanswered
        How many of the events AWS has neither taken nor refused.
    """

    topic: str
    partition: int
    offset: int
    put: PutEvents | None
    events: Sequence[Event | None] = ()
    at_s: float = 0.0
    size: int = 0
    tracker: str = field(init=False, default="")
    unanswered: int = field(init=False)
    outcomes: Counter[str] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self.unanswered = len(self.events)
        if self.put is None:
            self.outcomes["skipped"] = 1
            return
        if len(self.events) < len(self.put.event_list):
            self.outcomes["withheld"] = len(self.put.event_list) - len(self.events)
        self.tracker, self.events = self.put.tracking_id or "", list(self.events)
        self.put = msgspec.structs.replace(self.put, event_list=[]) if self.events else None

    def answer(self, index: int, outcome: str) -> None:
        """One of the events is answered for: it is counted, and forgotten."""
        events = list(self.events)
        events[index] = None
        self.events = events
        self.outcomes[outcome] += 1
        self.unanswered -= 1
        if not self.unanswered:
            self.put = None


class Pending(NamedTuple):
    """One event on its way to AWS: its message and its place there.

    `event` and `put` raise `LookupError` once it is answered for.
    """

    message: QueuedMessage
    place: int

    @property
    def is_open(self) -> bool:
        """Whether it is not answered for."""
        return self.message.events[self.place] is not None

    @property
    def event(self) -> Event:
        """The event."""
        event = self.message.events[self.place]
        if event is None:
            raise LookupError
        return event

    @property
    def put(self) -> PutEvents:
        """The message it came in, without events."""
        if self.message.put is None:
            raise LookupError
        return self.message.put


Call = Sequence[Pending]
"""One to ten events of one tracker, session and user: one PutEvents."""


def pending(messages: Iterable[QueuedMessage]) -> Iterator[Pending]:
    """Every event of the messages that is not answered for, in order."""
    for message in messages:
        for index, event in enumerate(message.events):
            if event is not None:
                yield Pending(message, index)


def plan_calls(events: Iterable[Pending]) -> list[list[Call]]:
    """The calls of each session, to be made in this order; every event is in exactly one.

    A session's events stay in the order given, so a user who comes and goes within a session
    gets a call for each stretch.
    """
    sessions: dict[tuple[str, str], list[Pending]] = {}
    for event in events:
        sessions.setdefault((event.message.tracker, event.put.session_id), []).append(event)
    return [
        [
            stretch[start : start + EVENTS_A_CALL]
            for _, group in itertools.groupby(session, key=lambda event: event.put.user_id)
            for stretch in [list(group)]
            for start in range(0, len(stretch), EVENTS_A_CALL)
        ]
        for session in sessions.values()
    ]


def bisect(call: Call) -> tuple[Call, Call]:
    """A refused call of two or more events as two calls, in order."""
    middle = len(call) // 2
    return call[:middle], call[middle:]


def parameters(
    call: Call, tracking_id: str, without_properties: Collection[str] = ()
) -> dict[str, Any]:
    """The call as boto3's `put_events` takes it; absent members are left out.

    Parameters
    ----------
    without_properties
        Keys of `properties` that are left out; `*`: all of them.

    Examples
    --------
    >>> put = PutEvents("s", [Event("click", 1.5)])
    >>> call = list(pending([QueuedMessage("t", 0, 0, put, put.event_list)]))
    >>> sorted(parameters(call, "tracker"))
    ['eventList', 'sessionId', 'trackingId']
    """
    put = call[0].put
    events = [_event_parameters(one.event, without_properties) for one in call]
    request: dict[str, Any] = {
        "trackingId": tracking_id,
        "sessionId": put.session_id,
        "eventList": events,
    }
    return request | ({"userId": put.user_id} if put.user_id else {})


def _event_parameters(event: Event, without_properties: Collection[str]) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(event)
    # As a number, boto3 would take it for local time on its way.
    members["sentAt"] = datetime.fromtimestamp(event.sent_at, UTC)
    properties = event.properties
    if properties is not None and without_properties:
        # A text was found to be an object when the event was accepted.
        named = msgspec.json.decode(properties) if isinstance(properties, str) else properties
        is_all = "*" in without_properties
        properties = {k: v for k, v in named.items() if not is_all and k not in without_properties}
    if isinstance(properties, dict):
        members["properties"] = msgspec.json.encode(properties).decode()
    if not properties:
        members.pop("properties", None)
    return members


def pop_settled(
    queues: Mapping[Partition, deque[QueuedMessage]], counted: Mapping[Partition, int]
) -> dict[Partition, TrackerChange]:
    """Take from the head of each partition's queue what is answered for; gives what moved.

    Messages below the `counted` offset of their partition passed before, and do not count again.
    """
    moves: dict[Partition, TrackerChange] = {}
    for partition, queue in queues.items():
        next_offset, floor = 0, counted.get(partition, 0)
        outcomes: dict[str, Counter[str]] = {}
        while queue and not queue[0].unanswered:
            message = queue.popleft()
            if message.offset >= max(floor, next_offset):
                outcomes.setdefault(message.tracker, Counter()).update(message.outcomes)
            next_offset = max(next_offset, message.offset + 1)
        if next_offset:
            moves[partition] = TrackerChange(next_offset, outcomes)
    return moves


def waiting(queue: Iterable[QueuedMessage]) -> dict[str, WaitingEvents]:
    """How many events of the messages are unanswered, and since when, by tracking id."""
    found: dict[str, WaitingEvents] = {}
    for message in queue:
        if message.unanswered:
            before = found.get(message.tracker, WaitingEvents(0, message.at_s))
            found[message.tracker] = WaitingEvents(
                before.events + message.unanswered, min(before.since_s, message.at_s)
            )
    return found


def single_event_message(event: Pending) -> bytes:
    """The message that the event came in, as bytes, without the other events."""
    return encode(msgspec.structs.replace(event.put, event_list=[event.event]))
