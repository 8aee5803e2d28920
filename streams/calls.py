"""PutEvents calls out of Kafka messages, and what is answered for; all of it without waiting."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from models.events import Event, PutEvents, encode
from models.ledger import Move

EVENTS_A_CALL = 10
"""AWS takes no more in one PutEvents."""

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""


@dataclass(eq=False, slots=True)
class Message:
    """One Kafka message, and what became of its events so far."""

    topic: str
    partition: int
    offset: int
    put: PutEvents | None
    unanswered: int = field(init=False)
    outcomes: Counter[str] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self.unanswered = len(self.put.event_list) if self.put else 0
        if self.put is None:
            self.outcomes["skipped"] = 1


class Pending(NamedTuple):
    """One event on its way to AWS, and the message it came in."""

    event: Event
    put: PutEvents
    message: Message


Call = Sequence[Pending]
"""One to ten events of one session and one user: one PutEvents."""


def pending(messages: Iterable[Message]) -> Iterator[Pending]:
    """Every event of the messages, in order."""
    for message in messages:
        if message.put is not None:
            for event in message.put.event_list:
                yield Pending(event, message.put, message)


def plan(events: Iterable[Pending]) -> list[list[Call]]:
    """The calls of each session, to be made in this order; every event is in exactly one.

    A session's events stay in the order given, so a user who comes and goes within a session
    gets a call for each stretch.
    """
    sessions: dict[str, list[Pending]] = {}
    for event in events:
        sessions.setdefault(event.put.session_id, []).append(event)
    return [
        [
            stretch[start : start + EVENTS_A_CALL]
            for _, group in itertools.groupby(session, key=lambda event: event.put.user_id)
            for stretch in [list(group)]
            for start in range(0, len(stretch), EVENTS_A_CALL)
        ]
        for session in sessions.values()
    ]


def halves(call: Call) -> tuple[Call, Call]:
    """A refused call of two or more events as two calls, in order."""
    middle = len(call) // 2
    return call[:middle], call[middle:]


def parameters(call: Call, tracking_id: str) -> dict[str, Any]:
    """The call as boto3's `put_events` takes it; absent members are left out.

    >>> put = PutEvents("s", [Event("click", 1.5)])
    >>> call = list(pending([Message("t", 0, 0, put)]))
    >>> sorted(parameters(call, "tracker"))
    ['eventList', 'sessionId', 'trackingId']
    """
    put = call[0].put
    request: dict[str, Any] = {
        "trackingId": tracking_id,
        "sessionId": put.session_id,
        "eventList": [_event_parameters(event) for event, _, _ in call],
    }
    return request | ({"userId": put.user_id} if put.user_id else {})


def _event_parameters(event: Event) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(event)
    # As a number, boto3 would take it for local time on its way.
    members["sentAt"] = datetime.fromtimestamp(event.sent_at, UTC)
    if isinstance(event.properties, dict):
        members["properties"] = msgspec.json.encode(event.properties).decode()
    return members


def passed(queues: Mapping[Partition, deque[Message]]) -> dict[Partition, Move]:
    """Take from the head of each partition's queue what is answered for; gives what moved."""
    moves: dict[Partition, Move] = {}
    for partition, queue in queues.items():
        next_offset, outcomes = 0, Counter[str]()
        while queue and not queue[0].unanswered:
            message = queue.popleft()
            next_offset = max(next_offset, message.offset + 1)
            outcomes.update(message.outcomes)
        if next_offset:
            moves[partition] = Move(next_offset, outcomes)
    return moves


def alone(event: Pending) -> bytes:
    """The message that the event came in, as bytes, without the other events."""
    return encode(msgspec.structs.replace(event.put, event_list=[event.event]))
