"""Messages that the forwarder has read and whose positions it has not saved yet.

Each message is in the queue of its partition until everything before it is settled, and in the line
of its tracker until it is sent.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence

from models.state.operations.forwarding_ledger import TrackerChange, WaitingEvents
from streams.forwarding.erasures import is_before
from streams.forwarding.sink_calls import (
    Call,
    QueuedMessage,
    pending,
    pop_settled,
    waiting,
)
from streams.kafka.consuming.assignment import Partition

MAX_QUEUED_BYTES = 4 * 1024 * 1024
"""Most bytes of queued messages: so far may one tracker lag behind the others."""

OVERHEAD_BYTES = 500
"""Bytes that a message is counted for beside its own."""


class ForwardQueues:
    """A queue of messages for each partition, and a line of them for each tracker.

    Attributes
    ----------
    lines
        Messages to be sent, by tracker, in order.
    counted
        Offset of each partition below which messages were counted before.
    """

    def __init__(self) -> None:
        self.lines: dict[str, deque[QueuedMessage]] = defaultdict(deque)
        self.counted: dict[Partition, int] = {}
        self._queues: dict[Partition, deque[QueuedMessage]] = defaultdict(deque)
        self._n_bytes = 0
        self._sending: set[QueuedMessage] = set()

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def is_full(self) -> bool:
        """True if no more messages may be read."""
        return self._n_bytes > MAX_QUEUED_BYTES

    def add(self, message: QueuedMessage) -> None:
        """Queue a message."""
        self._queues[message.topic, message.partition].append(message)
        self._n_bytes += message.size
        if message.unsettled:
            self.lines[message.tracker].append(message)

    def take(self, tracker: str, n: int) -> list[QueuedMessage]:
        """Remove up to n messages from the head of a tracker's line."""
        line = self.lines[tracker]
        return [line.popleft() for _ in range(min(len(line), n))]

    def begin_call(self, call: Call) -> None:
        """Keep the messages of a call as they are until `end_call`."""
        self._sending |= {one.message for one in call}

    def end_call(self, call: Call) -> None:
        """Allow `withhold` for the messages of a call again."""
        self._sending -= {one.message for one in call}

    def is_sending(self, message: QueuedMessage) -> bool:
        """True while a call with an event of the message is under way."""
        return message in self._sending

    def idle(self) -> list[QueuedMessage]:
        """Messages with unsettled events of which none is in a call under way."""
        return [one for one in self._messages() if one.unsettled and one not in self._sending]

    def pop_settled(self) -> tuple[dict[Partition, TrackerChange], Mapping[Partition, Waiting]]:
        """Remove settled messages from the heads of the queues.

        Returns the progress of each partition, and the waiting events of each, by tracking id.
        """
        moves = pop_settled(self._queues, self.counted)
        self.counted |= {partition: move.offset for partition, move in moves.items()}
        self._n_bytes = sum(one.size for one in self._messages())
        return moves, {partition: waiting(queue) for partition, queue in self._queues.items()}

    def waiting(self) -> Waiting:
        """Waiting events by tracking id."""
        return waiting(self._messages())

    def forget_empty(self, partitions: Collection[Partition]) -> None:
        """Drop these partitions' queues, those that are empty: others may have them by now."""
        for partition in partitions:
            if not self._queues[partition]:
                del self._queues[partition]

    def _messages(self) -> Iterator[QueuedMessage]:
        return itertools.chain.from_iterable(self._queues.values())


Waiting = dict[str, WaitingEvents]
"""Waiting events by tracking id."""


def erased_events(message: QueuedMessage, until_ms: int) -> Sequence[Call]:
    """A call for each unsettled event of a message that its owner's erasure covers."""
    return [[one] for one in pending([message]) if is_before(one.event, one.put, until_ms)]
