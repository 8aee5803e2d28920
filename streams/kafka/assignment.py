"""What an agent knows of the partitions it was assigned: how far each has been read and applied.

An assignment is a value. It begins when Kafka assigns partitions, every batch is applied under the
assignment it was fetched for, and once it has ended nothing is noted in it that would reach its
successor. Within an assignment each seek begins a new read, with a number of its own that every
message fetched by it carries: what an earlier read fetched never passes for what a later one will.
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Partition = tuple[str, int]

COMPARED = 500
"""Applied messages of a partition whose checksums are kept, to notice where Kafka has others now.
"""

_numbers = itertools.count(1)


class Witness(NamedTuple):
    """What identifies a message at an offset: after Kafka lost its tail, another is there."""

    offset: int
    timestamp_ms: int
    checksum: int


class ReceivedMessage(NamedTuple):
    """A Kafka message as it arrived.

    Attributes
    ----------
    read
        The number of the read that fetched it; see `PartitionRead.number`.
    follows
        The offset behind which its read went on: between that and `offset` the log holds nothing.
    connection
        Grows when the broker was connected to anew between this message and the one before.
    """

    topic: str
    partition: int
    offset: int
    value: bytes
    key: bytes = b""
    timestamp_ms: int = 0
    read: int = 0
    follows: int = -1
    connection: int = 0

    @property
    def witness(self) -> Witness:
        """What identifies the message."""
        return Witness(self.offset, self.timestamp_ms, zlib.crc32(self.value))


class PartitionLog(Protocol):
    """A worker's view of Kafka's partitions, as the agents need it."""

    async def seek(self, starts: Mapping[Partition, ReadStart]) -> Mapping[Partition, int]:
        """Begin new reads; gives the offset at which each begins, for old messages may be gone.

        A partition that this worker no longer has, or whose broker does not answer, is left out.
        """

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int | None:
        """The first offset whose message is no older than this; None if there is none."""

    def end(self, partition: Partition) -> int | None:
        """The next offset to be written, as the last fetch told; None where that is not known."""

    def connection(self, partition: Partition) -> int | None:
        """Grows when the partition's broker is connected to anew; None where that is not known."""

    async def is_renewed(self, partition: Partition, field: str) -> bool:
        """Whether the topic was made anew, so that `field` names an earlier incarnation."""

    async def reload(self) -> None:
        """Begin a new assignment of the same partitions."""


class ReadStart(NamedTuple):
    """Where a read begins, and its number."""

    offset: int
    number: int


def first_offset(watermark: int, witness: Witness | None) -> int:
    """Where to read on behind a watermark: at the message itself, if it can be told from another.

    >>> first_offset(7, None), first_offset(7, Witness(7, 0, 0)), first_offset(-1, None)
    (8, 7, 0)
    """
    return watermark + 1 if witness is None else watermark


def next_read() -> int:
    """The number of a read that is about to begin; no two in a process are equal."""
    return next(_numbers)


@dataclass
class PartitionRead:
    """One partition of an assignment.

    Attributes
    ----------
    field
        Names the partition's watermark in the store.
    applied
        The offset whose effects the next message follows.
    number
        The read whose messages are taken; others were fetched before the last seek.
    passed
        The last offset that needs no more reading: the next message taken must follow it.
    compared
        The last applied messages, oldest first.
    is_sought
        Whether Kafka was told to begin the read.
    is_doubtful
        Whether a new read has to compare what was applied.
    is_compared
        Whether what was applied has been compared since the broker was connected to.
    """

    field: str
    applied: int
    number: int
    passed: int = -1
    compared: deque[Witness] = dataclasses.field(default_factory=lambda: deque(maxlen=COMPARED))
    is_sought: bool = True
    connection: int | None = None
    has_gap: bool = False
    is_doubtful: bool = False
    is_compared: bool = True
    differs_at: int | None = None
    looks: int = 0

    def takes(self, arrival: ReceivedMessage) -> bool:
        """Whether a message is the next one to apply.

        Where it is not, and the partition has to be read again for it, `has_gap`, `is_doubtful` or
        `differs_at` say why.
        """
        if arrival.read != self.number:
            return False
        self.look_at(arrival.connection)
        if self.is_doubtful or self.differs_at is not None:
            return False
        if arrival.follows > self.passed:
            self.has_gap = True
            return False
        if arrival.offset <= self.applied and not self._is_known(arrival):
            self.differs_at = arrival.offset
            return False
        self.passed = max(self.passed, arrival.offset)
        self.is_compared = self.is_compared or self.passed >= self.applied
        return arrival.offset > self.applied

    def look_at(self, connection: int | None) -> None:
        """Doubt what was applied, where its broker was connected to anew.

        It may have started again without its last messages, and have others at their offsets.
        """
        if connection is None:
            return
        if self.connection not in (None, connection):
            # What was taken and is not in effect yet is compared once it is.
            self.is_doubtful = bool(self.compared) or self.passed > self.applied
            self.is_compared = self.is_compared and not self.is_doubtful
        self.connection = connection

    def note(self, watermark: int, witnesses: Iterable[Witness]) -> None:
        """Messages have come into effect, up to the watermark."""
        self.applied = max(self.applied, watermark)
        self.compared.extend(witnesses)

    def begin(self, start: ReadStart, applied: int) -> None:
        """A new read begins; what was fetched before is no longer taken.

        Whatever it is for, it begins early enough to compare what was not compared yet.
        """
        while self.compared and self.compared[-1].offset > applied:
            self.compared.pop()
        self.is_compared = self.is_compared or not self.compared
        first = start.offset if self.is_compared else min(start.offset, self.compared[0].offset)
        self.number, self.passed, self.applied = start.number, first - 1, applied
        self.is_sought = False
        self.has_gap = self.is_doubtful = False
        self.differs_at, self.looks = None, 0

    @property
    def checksum(self) -> int:
        """Of the message at the watermark; -1 where it is not known."""
        last = self.compared[-1] if self.compared else None
        return last.checksum if last is not None and last.offset == self.applied else -1

    def is_at(self, watermark: int, witness: Witness | None) -> bool:
        """Whether the store is where this reading left it; see `atomic_batches.places`."""
        if watermark != self.applied:
            return False
        return witness is None or self.checksum < 0 or witness == self.compared[-1]

    def go_on_from(self, watermark: int, witness: Witness | None) -> None:
        """A new read begins where the store is, maybe at other messages than were applied."""
        if witness is None:
            # An operator has gone past what cannot be read: nothing goes back before it.
            if watermark > self.applied:
                self.compared.clear()
        elif witness not in self.compared:
            self.compared.clear()
            self.compared.append(witness)
        self.begin(ReadStart(first_offset(watermark, witness), next_read()), watermark)

    def _is_known(self, arrival: ReceivedMessage) -> bool:
        held = next((one for one in self.compared if one.offset == arrival.offset), None)
        return held is None or held == arrival.witness


@dataclass
class Assignment:
    """The partitions an agent has been given, from one rebalance to the next."""

    readings: Mapping[Partition, PartitionRead] = dataclasses.field(default_factory=dict)
    has_ended: bool = False

    def takes(self, arrival: ReceivedMessage) -> bool:
        """Whether the message is the next one to apply of its partition."""
        reading = self.readings.get((arrival.topic, arrival.partition))
        return reading is not None and reading.takes(arrival)
