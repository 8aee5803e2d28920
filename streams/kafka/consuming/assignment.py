"""An agent's assigned partitions: how far each has been read and applied.

An assignment is a value. It begins when Kafka assigns partitions, every batch is applied under the
assignment it was fetched for, and once it has ended nothing is recorded in it that would reach its
successor. Within an assignment each seek begins a new read with a number of its own, and every
message carries the number of the read that fetched it: messages of an earlier read are never taken
for those of a later one.
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

MAX_WITNESSES = 500
"""Applied messages of a partition whose checksums are kept, to detect other messages at their
offsets."""

_numbers = itertools.count(1)


class Witness(NamedTuple):
    """Identity of the message at an offset: after Kafka lost its tail, another is there."""

    offset: int
    timestamp_ms: int
    checksum: int


class ReceivedMessage(NamedTuple):
    """A Kafka message as it arrived.

    Attributes
    ----------
    read
        Number of the read that fetched it; see `PartitionRead.number`.
    follows
        The offset behind which its read went on: between that and `offset` the log holds nothing.
    connection
        Number that grows with each new connection to the broker.
    traceparent
        The recorded span that its sender named in its header of this name; empty for none.
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
    traceparent: bytes = b""

    @property
    def witness(self) -> Witness:
        """Identity of the message: offset, time and checksum."""
        return Witness(self.offset, self.timestamp_ms, zlib.crc32(self.value))


class PartitionLog(Protocol):
    """Kafka's partitions as an agent reads them.

    Called from the event loop, under the agent's lock. Only the coroutines may wait; a rebalance
    may come while they do, and then the partitions that are no longer assigned are left out.
    """

    async def seek(self, starts: Mapping[Partition, ReadStart]) -> Mapping[Partition, int]:
        """Begin new reads; returns the offset at which each begins, for old messages may be gone.

        A partition that this worker no longer has, or whose broker does not answer, is left out.
        """

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int | None:
        """First offset whose message is no older than this; None if there is none."""

    def end(self, partition: Partition) -> int | None:
        """Next offset to be written, as of the last fetch; None if unknown."""

    def connection(self, partition: Partition) -> int | None:
        """Number that grows with each new connection to the partition's broker; None if unknown."""

    async def is_renewed(self, partition: Partition, field: str) -> bool:
        """True if the topic was deleted and made again: `field` names an earlier incarnation."""

    async def reload(self) -> None:
        """Begin a new assignment of the same partitions."""


class ReadStart(NamedTuple):
    """First offset of a read, and its number."""

    offset: int
    number: int


def first_offset(watermark: int, witness: Witness | None) -> int:
    """First offset to read after a watermark: the message itself, if its identity is known.

    >>> first_offset(7, None), first_offset(7, Witness(7, 0, 0)), first_offset(-1, None)
    (8, 7, 0)
    """
    return watermark + 1 if witness is None else watermark


def next_read() -> int:
    """Number for a read that is about to begin, unique in the process."""
    return next(_numbers)


@dataclass
class PartitionRead:
    """One partition of an assignment, and its current read.

    Attributes
    ----------
    field
        Names the partition's watermark in the store.
    applied
        Offset of the last message in effect; of several shards, in all of them.
    written
        Offset of the last message that was written in this read, which the next one follows. It is
        behind `applied` where a shard of several is away: that gets its messages in a later read.
    newest
        Offset of the last message in effect in any shard; `applied` without several.
    number
        The read whose messages are accepted; others were fetched before the last seek.
    last_read
        Last offset that needs no more reading: the next accepted message must follow it.
    witnesses
        Identities of the last applied messages, oldest first.
    is_requested
        False until Kafka was told to begin the read.
    connection
        Connection to the broker that the last message came by; None before the first.
    has_gap
        True if a message between the last one and the newest never arrived.
    must_compare
        True if a new read has to compare the applied messages with Kafka's.
    is_compared
        True if the applied messages were compared since the broker was connected to.
    differs_at
        First offset where Kafka has another message than the one that was applied; None for none.
    end_checks
        How often in a row the partition was seen to end at or before the last applied message.
    is_behind
        True if a shard of several lacks messages of this read, as its server was away.
    """

    field: str
    applied: int
    number: int
    last_read: int = -1
    witnesses: deque[Witness] = dataclasses.field(
        default_factory=lambda: deque(maxlen=MAX_WITNESSES)
    )
    is_requested: bool = True
    connection: int | None = None
    has_gap: bool = False
    must_compare: bool = False
    is_compared: bool = True
    differs_at: int | None = None
    end_checks: int = 0
    is_behind: bool = False
    written: int = dataclasses.field(init=False)
    newest: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.written = self.newest = self.applied

    def accepts(self, received: ReceivedMessage) -> bool:
        """True if a message is the next one to apply.

        Where it is not, and the partition has to be read again for it, `has_gap`, `must_compare` or
        `differs_at` say why.
        """
        if received.read != self.number:
            return False
        self.note_connection(received.connection)
        if self.must_compare or self.differs_at is not None:
            return False
        if received.follows > self.last_read:
            self.has_gap = True
            return False
        if received.offset <= self.newest and not self._is_as_applied(received):
            self.differs_at = received.offset
            return False
        self.last_read = max(self.last_read, received.offset)
        self.is_compared = self.is_compared or self.last_read >= self.newest
        return received.offset > self.applied

    def note_connection(self, connection: int | None) -> None:
        """Have the applied messages compared after a new connection to the broker.

        It may have restarted without its last messages, with others at their offsets.
        """
        if connection is None:
            return
        if self.connection not in (None, connection):
            # A message that is accepted and not yet in effect is compared once it is.
            self.must_compare = bool(self.witnesses) or self.last_read > self.written
            self.is_compared = self.is_compared and not self.must_compare
        self.connection = connection

    def advance(
        self, watermark: int, witnesses: Iterable[Witness], *, is_behind: bool = False
    ) -> None:
        """Record that messages have come into effect, up to the watermark.

        Where a shard of several is behind, it lacks them until they are read again.
        """
        self.is_behind = self.is_behind or is_behind
        self.written = max(self.written, watermark)
        if not self.is_behind:
            self.applied = max(self.applied, watermark)
        self.witnesses.extend(one for one in witnesses if one.offset > self.newest)
        self.newest = max(self.newest, watermark)

    def begin(self, start: ReadStart, applied: int, newest: int | None = None) -> None:
        """Begin a new read; messages fetched before are no longer accepted.

        It begins early enough to compare the applied messages that were not compared yet. `newest`
        is the last message in effect in any shard, where it is not `applied`.
        """
        self.written, self.is_behind = applied, False
        newest = applied if newest is None else max(applied, newest)
        while self.witnesses and self.witnesses[-1].offset > newest:
            self.witnesses.pop()
        # Only messages that are known can be compared.
        known = self.witnesses[-1].offset if self.witnesses else applied
        self.newest = max(applied, known)
        self.is_compared = self.is_compared or not self.witnesses
        first = start.offset if self.is_compared else min(start.offset, self.witnesses[0].offset)
        self.number, self.last_read, self.applied = start.number, first - 1, applied
        self.is_requested = False
        self.has_gap = self.must_compare = False
        self.differs_at, self.end_checks = None, 0

    @property
    def checksum(self) -> int:
        """Checksum of the last message that was written; -1 if unknown."""
        last = self.witnesses[-1] if self.witnesses else None
        return last.checksum if last is not None and last.offset == self.written else -1

    def is_at(self, watermark: int, witness: Witness | None) -> bool:
        """True if the store's position is the one that this worker last recorded."""
        if watermark != self.applied:
            return False
        if witness is None or self.applied != self.newest or self.checksum < 0:
            return True
        return witness == self.witnesses[-1]

    def resume_from(
        self, watermark: int, witness: Witness | None, newest: int | None = None
    ) -> None:
        """Begin a new read at the store's position, maybe at other messages than were applied."""
        if newest is not None:
            newest = min(newest, self.newest)
        if witness is None:
            # An operator has skipped an unreadable message: nothing goes back before it.
            if watermark > self.applied:
                self.witnesses.clear()
        elif witness not in self.witnesses:
            self.witnesses.clear()
            self.witnesses.append(witness)
        start = ReadStart(first_offset(watermark, witness), next_read())
        self.begin(start, watermark, newest)

    def _is_as_applied(self, received: ReceivedMessage) -> bool:
        known = next((one for one in self.witnesses if one.offset == received.offset), None)
        if known is None:
            # Older than those that are known; among them, at its offset there was no message.
            return not self.witnesses or received.offset < self.witnesses[0].offset
        return known == received.witness


@dataclass
class Assignment:
    """The partitions that an agent was given, from one rebalance to the next."""

    reads: Mapping[Partition, PartitionRead] = dataclasses.field(default_factory=dict)
    has_ended: bool = False

    def accepts(self, received: ReceivedMessage) -> bool:
        """True if the message is the next one to apply of its partition."""
        read = self.reads.get((received.topic, received.partition))
        return read is not None and read.accepts(received)
