"""Batches in, atomic steps on the store out: what every agent does that keeps a watermark.

Whatever fails for one message goes to the dead letters; whatever fails for all blocks and is tried
again. Nothing is skipped: the store's watermark moves only with the effects.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from prometheus_client import Counter

from models.serving.tenants import Tenants
from models.state.redis_errors import AWAY_ERRORS
from models.state.store import PartResult, Store
from streams.kafka.assignment import (
    Assignment,
    Partition,
    PartitionLog,
    PartitionRead,
    ReadStart,
    ReceivedMessage,
    Witness,
    next_read,
)
from streams.kafka.dead_letters import envelope, letter_key

LOG = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MOST_S = 0.05, 2.0

STORE_RETRIES = Counter("recommender_store_retries_total", "Steps tried again: Redis was away")
REWINDS = Counter("recommender_rewinds_total", "Times the store had lost effects")
TAILS_LOST = Counter(
    "recommender_log_tails_lost_total", "Times Kafka had lost messages that were in effect"
)

LOOKS = 3
"""Looks that find a partition's end at or before what is in effect, until it counts as lost: just
after a change of leader, a broker may tell an end that is too low."""

CLOCKS_S = 120
"""By how much producers' clocks, and the time a message waits in a producer, may disagree: where a
partition whose end was lost is taken up, messages of so long before are read again."""

T = TypeVar("T")


async def retried(
    action: Callable[[], Awaitable[T]], errors: tuple[type[Exception], ...] = AWAY_ERRORS
) -> T:
    """The result of an action on Redis or Kafka, tried again until there is one."""
    delay_s = RETRY_FIRST_S
    while True:
        try:
            return await action()
        except errors as error:
            LOG.warning("a server is away, trying again: %s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MOST_S)


class ConsumedMessage(Protocol):
    """What a Kafka message says, as the store takes it."""

    @property
    def offset(self) -> int:
        """Its place in its partition."""

    @property
    def timestamp_ms(self) -> int:
        """When Kafka has it from."""

    @property
    def checksum(self) -> int:
        """Of its bytes; see `Witness`."""


M = TypeVar("M", bound=ConsumedMessage)


Publish = Callable[[str, Sequence[bytes], bytes | None], Coroutine[None, None, None]]
"""Produces values under a key to the topic of a kind, `dead_letters` or `examples`.

It returns when Kafka has acknowledged all, trying again until then.
"""


class Assigned(NamedTuple):
    """One partition as an agent is given it.

    Attributes
    ----------
    field
        Names the partition's watermark in the store.
    watermark
        The last offset in effect; -1 for none.
    start
        Where the first read of it begins.
    witness
        What identifies the message at the watermark, where the store knows it.
    """

    field: str
    watermark: int
    start: ReadStart
    witness: Witness | None = None


async def places(store: Store, fields: Sequence[str]) -> list[tuple[int, Witness | None]]:
    """Where the store is in partitions: the watermark of each, and what identifies its message.

    None where that is not known: an operator has gone past it, or nothing was applied yet.
    """
    marks, found = await store.watermarks(fields), await store.witnesses(fields)
    return [
        (mark, Witness(*told) if told is not None and told[0] == mark else None)
        for mark, told in zip(marks, found, strict=True)
    ]


class AtomicBatches(ABC, Generic[M]):
    """Applies batches of messages in atomic steps; one for each agent of a worker process.

    Parameters
    ----------
    clock
        The present in Unix seconds.
    step_size
        How much one step may take, as `_size` counts: a longer step would hold up reading requests.
    stage
        What its dead letters say gave up on them.
    """

    def __init__(
        self,
        tenants: Tenants,
        *,
        publish: Publish,
        log: PartitionLog,
        clock: Callable[[], float],
        step_size: int,
        stage: str,
    ) -> None:
        self.tenants = tenants
        self.settings = tenants.settings
        self.store: Store = tenants.store(tenants.settings.group)
        self.assignment = Assignment()
        self._publish = publish
        self._log = log
        self._clock = clock
        self._step_size = step_size
        self._stage = stage
        # To go back in the middle of a step would let its messages follow what is missing.
        self._stepping = asyncio.Lock()

    @abstractmethod
    def _size(self, arrival: ReceivedMessage) -> int:
        """What the message takes of a step, about."""

    @abstractmethod
    async def _message(self, arrival: ReceivedMessage, assignment: Assignment) -> M:
        """What the message says; nothing, once its dead letter is kept."""

    @abstractmethod
    async def _write(self, parts: Sequence[tuple[str, int, list[M], int]]) -> list[PartResult]:
        """What became of each partition's part, as `models.state.store.Part` has it."""

    @abstractmethod
    async def _rest(self, arrival: ReceivedMessage, message: M, result: PartResult) -> M:
        """What is left of a message that the store refused, once the rest is a dead letter."""

    def _noted(self, messages: Sequence[M]) -> None:
        """Take note of messages that have come into effect."""

    def assigned(self, partitions: Mapping[Partition, Assigned]) -> None:
        """Begin a new assignment; the one before has ended, whatever waits in it."""
        self.assignment.has_ended = True
        readings = {}
        for partition, (field, watermark, start, witness) in partitions.items():
            reading = PartitionRead(field, watermark, start.number, start.offset - 1)
            if witness is not None:
                reading.compared.append(witness)
            readings[partition] = reading
        self.assignment = Assignment(readings)

    async def apply(self, arrivals: Iterable[ReceivedMessage]) -> None:
        """Bring messages into effect, in their order; returns when all are, or are dead letters.

        Those that another assignment or an earlier read fetched are left out: they come again.
        """
        async with self._stepping:
            await self._apply(self.assignment, arrivals)

    async def look_after(self) -> None:
        """Read again what Redis has lost, and take up where Kafka has lost its end.

        To be called about once a second: a step notices only what its own partitions have lost.
        """
        async with self._stepping:
            assignment = self.assignment
            try:
                found = await places(
                    self.store, [reading.field for reading in assignment.readings.values()]
                )
            except AWAY_ERRORS as error:
                LOG.warning("Redis is away, what it may have lost is asked later: %s", error)
                return
            for (partition, reading), place in zip(assignment.readings.items(), found, strict=True):
                if assignment.has_ended:
                    return
                if not reading.is_at(*place):
                    self._go_on_from_store(reading, partition, *place)
                elif reading.is_sought:
                    reading.look_at(self._log.connection(partition))
                    await self._mend(assignment, partition)
                    await self._look_at_end(assignment, partition)
            await self._seek(assignment)

    def read_anew(self, partitions: Collection[Partition]) -> None:
        """Read partitions again that stand still, from what is in effect; `look_after` asks."""
        for partition, reading in self.assignment.readings.items():
            if partition in partitions:
                reading.begin(ReadStart(reading.applied + 1, next_read()), reading.applied)

    async def _apply(self, assignment: Assignment, arrivals: Iterable[ReceivedMessage]) -> None:
        waiting: dict[Partition, list[ReceivedMessage]] = {}
        seen: set[Partition] = set()
        size = 0
        for arrival in arrivals:
            partition = (arrival.topic, arrival.partition)
            seen.add(partition)
            if not assignment.takes(arrival):
                continue
            waiting.setdefault(partition, []).append(arrival)
            size += self._size(arrival)
            if size >= self._step_size:
                await self._step(assignment, waiting)
                waiting, size = {}, 0
        if waiting:
            await self._step(assignment, waiting)
        for partition in seen & assignment.readings.keys():
            await self._mend(assignment, partition)
        await self._seek(assignment)

    async def _step(
        self, assignment: Assignment, arrivals: Mapping[Partition, list[ReceivedMessage]]
    ) -> None:
        waiting = {
            partition: [await self._message(arrival, assignment) for arrival in group]
            for partition, group in arrivals.items()
        }
        await self._written(assignment, waiting, arrivals)

    async def _written(
        self,
        assignment: Assignment,
        waiting: dict[Partition, list[M]],
        arrivals: Mapping[Partition, list[ReceivedMessage]],
    ) -> bool:
        """One atomic step, and more where the store refused a part of it.

        False if the assignment ended meanwhile: what is not in effect will be read again.
        """
        while waiting:
            partitions = list(waiting)
            parts = []
            for tp in partitions:
                reading = assignment.readings[tp]
                parts.append((reading.field, reading.applied, waiting[tp], reading.checksum))
            results = await self._on_store(functools.partial(self._write, parts), assignment)
            if results is None:
                return False
            waiting = {}
            for tp, part, result in zip(partitions, parts, results, strict=True):
                rest = await self._settled(assignment, tp, part, result, arrivals[tp])
                if rest:
                    waiting[tp] = rest
        return not assignment.has_ended

    async def _on_store(
        self, action: Callable[[], Awaitable[T]], assignment: Assignment
    ) -> T | None:
        """The result of an action on Redis; None if the assignment ends before there is one."""
        delay_s = RETRY_FIRST_S
        while not assignment.has_ended:
            try:
                return await action()
            except AWAY_ERRORS as error:
                STORE_RETRIES.inc()
                LOG.warning("Redis is away, trying again: %s", error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MOST_S)
        return None

    async def _settled(
        self,
        assignment: Assignment,
        partition: Partition,
        part: tuple[str, int, list[M], int],
        result: PartResult,
        arrivals: Sequence[ReceivedMessage],
    ) -> list[M]:
        """Take note of a result; gives the messages still to be applied."""
        _, expected, messages, _ = part
        reading = assignment.readings[partition]
        if result.status == "lost":
            found = await self._on_store(lambda: places(self.store, [reading.field]), assignment)
            if found is not None:
                self._go_on_from_store(reading, partition, *found[0])
            return []
        applied = [m for m in messages if expected < m.offset <= result.watermark]
        reading.note(
            result.watermark, [Witness(m.offset, m.timestamp_ms, m.checksum) for m in applied]
        )
        self._noted(applied)
        if result.status == "applied":
            return []
        at = next(n for n, message in enumerate(messages) if message.offset == result.offset)
        arrival = next(a for a in arrivals if a.offset == result.offset)
        return [await self._rest(arrival, messages[at], result), *messages[at + 1 :]]

    def _go_on_from_store(
        self, reading: PartitionRead, partition: Partition, watermark: int, witness: Witness | None
    ) -> None:
        """Read a partition on from where the store is: it is not where this worker left it."""
        REWINDS.inc()
        if watermark < reading.applied:
            LOG.warning(
                "Redis has lost effects of %s/%d, reading again after %d", *partition, watermark
            )
        else:
            LOG.warning(
                "Redis is at another message of %s/%d than this worker, reading on after %d",
                *partition,
                watermark,
            )
        reading.go_on_from(watermark, witness)

    async def _mend(self, assignment: Assignment, partition: Partition) -> None:
        """Read again where what arrived does not continue what is in effect."""
        reading = assignment.readings[partition]
        if reading.differs_at is not None:
            await self._take_up(assignment, partition, reading.differs_at)
        elif reading.is_doubtful:
            oldest = reading.compared[0].offset if reading.compared else reading.applied + 1
            reading.begin(ReadStart(oldest, next_read()), reading.applied)
        elif reading.has_gap:
            LOG.warning("messages of %s/%d were passed over on their way", *partition)
            reading.begin(ReadStart(reading.applied + 1, next_read()), reading.applied)

    async def _seek(self, assignment: Assignment) -> None:
        """Ask Kafka for the reads that have begun; where it does not answer, again later.

        Messages that Kafka no longer has are passed over.
        """
        wanted = {
            partition: ReadStart(reading.passed + 1, reading.number)
            for partition, reading in assignment.readings.items()
            if not reading.is_sought
        }
        if not wanted or assignment.has_ended:
            return
        for partition, offset in (await self._log.seek(wanted)).items():
            reading = assignment.readings[partition]
            reading.passed, reading.is_sought = offset - 1, True

    async def _look_at_end(self, assignment: Assignment, partition: Partition) -> None:
        """Notice a partition that ends before what is in effect: Kafka has lost its last messages.

        What it still has of the last ones applied is compared first, to find where it differs.
        """
        reading, end = assignment.readings[partition], self._log.end(partition)
        if end is None or end > reading.applied:
            reading.looks = 0
            return
        reading.looks += 1
        if reading.looks < LOOKS:
            return
        if reading.looks == LOOKS and reading.compared and reading.compared[0].offset < end:
            reading.begin(ReadStart(reading.compared[0].offset, next_read()), reading.applied)
            reading.looks = LOOKS
        elif reading.passed >= end - 1 or reading.looks > 2 * LOOKS:
            await self._take_up(assignment, partition, end)

    async def _take_up(self, assignment: Assignment, partition: Partition, offset: int) -> None:
        """Go on in a partition whose messages from `offset` on are no longer those in effect.

        Where the first of them is not known, messages are read again from a while before the last
        one that was; their eventIds keep them from counting twice.
        """
        reading = assignment.readings[partition]
        lost = reading.applied
        if assignment.has_ended:
            return
        if await self._log.is_renewed(partition, reading.field):
            await self._log.reload()
            return
        held = [one for one in reading.compared if one.offset <= offset]
        is_exact = any(one.offset < offset for one in held)
        if not is_exact and reading.compared:
            since_ms = max(0, reading.compared[0].timestamp_ms - 1000 * CLOCKS_S)
            found = await self._log.offset_at(partition, since_ms)
            offset = min(offset, offset if found is None else found)
        TAILS_LOST.inc()
        LOG.error(
            "Kafka has lost messages of %s/%d that were in effect, up to offset %d: going on at %d",
            *partition,
            lost,
            offset,
        )
        lowered = await self._on_store(
            lambda: self.tenants.lower_watermarks(reading.field, offset - 1), assignment
        )
        if lowered is not None:
            reading.begin(ReadStart(offset, next_read()), offset - 1)

    async def _bury(
        self, arrival: ReceivedMessage, reason: str, detail: str, raw: bytes, *, group: str = ""
    ) -> None:
        """Keep a dead letter; only then may the watermark pass it."""
        letter = envelope(
            self._stage,
            reason,
            detail,
            arrival[:3],
            raw,
            key=arrival.key,
            now_s=self._clock(),
            group=group,
            payload_bytes=self.settings.dead_letter_payload_bytes,
        )
        await self._publish("dead_letters", [letter], letter_key(arrival.key))
