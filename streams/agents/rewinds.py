"""Rewinds: reading partitions again where the store, or Kafka, lost messages that were in effect.

* The store is at another watermark than this worker recorded: Redis came back with an earlier
  state, or another worker was faster. Reading goes on at the store's position.
* A shard of several was away for a while: it gets what it lacks, which the others have and skip.
* A message did not arrive, though a later one did: reading goes on at the gap.
* Kafka has another message at an offset that is in effect, or ends before it: a broker came back
  without its last messages. Everything from the first difference on is read as new.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from prometheus_client import Counter

from models.errors import Unavailable
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.messages import StoredPosition
from models.state.shards.sharded_store import absent_shards
from models.state.store import Store
from models.state.tenants import Tenants
from streams.agents.retries import retry_while_assigned
from streams.kafka.consuming.assignment import (
    Assignment,
    Partition,
    PartitionLog,
    PartitionRead,
    ReadStart,
    Witness,
    next_read,
)

LOG = logging.getLogger(__name__)

REWINDS = Counter("recommender_rewinds_total", "Times the store had lost effects")
TAILS_LOST = Counter(
    "recommender_log_tails_lost_total", "Times Kafka had lost messages that were in effect"
)

END_CHECKS = 3
"""Checks in a row that find a partition's end at or before the watermark, until its tail counts as
lost: just after a change of leader, a broker may report an end that is too low."""

MAX_CLOCK_SKEW_S = 120
"""Bound on the disagreement of producers' clocks plus the time a message waits in a producer: where
a partition whose tail was lost is read on, messages of so long before are read again."""


class AssignedPartition(NamedTuple):
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
        Identity of the message at the watermark, where the store knows it.
    """

    field: str
    watermark: int
    start: ReadStart
    witness: Witness | None = None


async def stored_positions(store: Store, fields: Sequence[str]) -> list[tuple[int, Witness | None]]:
    """The store's position in partitions: watermark, and identity of the message there.

    Of several shards the position of those that answer; one that is less far, and does not answer
    now, refuses later messages and has the partition read again.

    The identity is None if an operator has skipped that message, or nothing was applied yet.
    """
    found = await store.positions(fields)
    if any(one.watermark < 0 and not one.is_whole for one in found):
        raise Unavailable("no shard that answers knows how far it is")
    return [(one.watermark, _witness_of(one)) for one in found]


def _witness_of(position: StoredPosition) -> Witness | None:
    known = position.witness
    return Witness(*known) if known is not None and known[0] == position.watermark else None


class Rewinds:
    """Detects losses in an agent's partitions, and has them read again.

    Every method runs under the agent's lock. Losses are recorded in the `PartitionRead`; `seek`
    then asks Kafka, again and again until it has answered.
    """

    def __init__(self, tenants: Tenants, log: PartitionLog) -> None:
        self._tenants = tenants
        self._store = tenants.store(tenants.settings.group)
        self._log = log

    async def detect(self, assignment: Assignment) -> None:
        """Compare every partition with the store and with Kafka; read again where they differ."""
        fields = [read.field for read in assignment.reads.values()]
        try:
            positions = await self._store.positions(fields)
        except AWAY_ERRORS as error:
            LOG.warning("Redis is away, its positions are compared later: %s", error)
            return
        for (partition, read), position in zip(assignment.reads.items(), positions, strict=True):
            if assignment.has_ended:
                return
            has_shards = position.is_whole and not absent_shards(self._store)
            if has_shards and read.is_behind and position.watermark >= read.applied:
                LOG.info("shards that were away get messages of %s/%d again", *partition)
                _read_again(read, read.applied + 1)
            elif _differs(read, position):
                self._resume_from_store(read, partition, position)
            elif read.is_requested:
                read.note_connection(self._log.connection(partition))
                await self._repair_partition(assignment, partition)
                await self._check_end(assignment, partition)
        await self._seek(assignment)

    async def repair(self, assignment: Assignment, partitions: Iterable[Partition]) -> None:
        """Read again where the messages that arrived do not continue those in effect."""
        for partition in partitions:
            await self._repair_partition(assignment, partition)
        await self._seek(assignment)

    async def resume(self, assignment: Assignment, partition: Partition) -> None:
        """Read on from the store's position, after it refused a part as `lost`."""
        read = assignment.reads[partition]
        positions = await retry_while_assigned(
            lambda: self._store.positions([read.field]), assignment
        )
        if positions is not None:
            self._resume_from_store(read, partition, positions[0])

    @staticmethod
    def reread(assignment: Assignment, partitions: Collection[Partition]) -> None:
        """Begin new reads of partitions behind their watermarks; `detect` asks Kafka for them."""
        for partition, read in assignment.reads.items():
            if partition in partitions:
                _read_again(read, read.applied + 1)

    @staticmethod
    def _resume_from_store(
        read: PartitionRead, partition: Partition, position: StoredPosition
    ) -> None:
        watermark = position.watermark
        # One that does not answer may be less far, or the only one.
        is_unknown = not position.is_whole and (watermark < 0 or watermark >= read.applied)
        if is_unknown or (read.is_behind and watermark == read.applied):
            LOG.info("a shard that was away gets messages of %s/%d again", *partition)
            _read_again(read, read.applied + 1)
            return
        REWINDS.inc()
        if watermark < read.applied:
            LOG.warning(
                "Redis has lost effects of %s/%d, reading again after %d", *partition, watermark
            )
        else:
            LOG.warning(
                "Redis is at another message of %s/%d than this worker, reading on after %d",
                *partition,
                watermark,
            )
        read.resume_from(watermark, _witness_of(position), position.newest)

    async def _repair_partition(self, assignment: Assignment, partition: Partition) -> None:
        read = assignment.reads[partition]
        if read.differs_at is not None:
            await self._resume_after_lost_tail(assignment, partition, read.differs_at)
        elif read.must_compare:
            oldest = read.witnesses[0].offset if read.witnesses else read.applied + 1
            _read_again(read, oldest)
        elif read.has_gap:
            LOG.warning("messages of %s/%d were skipped on their way", *partition)
            _read_again(read, read.applied + 1)

    async def _seek(self, assignment: Assignment) -> None:
        """Ask Kafka for the reads that have begun; where it does not answer, the next call does.

        Messages that Kafka no longer has are skipped.
        """
        starts = {
            partition: ReadStart(read.last_read + 1, read.number)
            for partition, read in assignment.reads.items()
            if not read.is_requested
        }
        if not starts or assignment.has_ended:
            return
        for partition, offset in (await self._log.seek(starts)).items():
            read = assignment.reads[partition]
            read.last_read, read.is_requested = offset - 1, True

    async def _check_end(self, assignment: Assignment, partition: Partition) -> None:
        """Detect a partition that ends before its watermark: Kafka has lost its last messages.

        The messages it still has are compared first, to find the first difference.
        """
        read, end = assignment.reads[partition], self._log.end(partition)
        if end is None or end > read.newest:
            read.end_checks = 0
            return
        read.end_checks += 1
        if read.end_checks < END_CHECKS:
            return
        if read.end_checks == END_CHECKS and read.witnesses and read.witnesses[0].offset < end:
            _read_again(read, read.witnesses[0].offset)
            read.end_checks = END_CHECKS
        elif read.last_read >= end - 1 or read.end_checks > 2 * END_CHECKS:
            await self._resume_after_lost_tail(assignment, partition, end)

    async def _resume_after_lost_tail(
        self, assignment: Assignment, partition: Partition, offset: int
    ) -> None:
        """Read on in a partition whose messages from `offset` on are no longer those in effect.

        Reading goes on behind the last applied message that was compared with Kafka's: where only
        the end of the partition was seen, those before may be others, too. If none was compared,
        messages are read again from a while before the oldest one that is known; their eventIds
        keep them from counting twice.
        """
        read = assignment.reads[partition]
        lost = read.newest
        if assignment.has_ended:
            return
        if await self._log.is_renewed(partition, read.field):
            await self._log.reload()
            return
        end = min(offset, read.last_read + 1)
        last = next((one for one in reversed(read.witnesses) if one.offset < end), None)
        if last is not None:
            offset = end
        elif read.witnesses:
            since_ms = max(0, read.witnesses[0].timestamp_ms - 1000 * MAX_CLOCK_SKEW_S)
            found = await self._log.offset_at(partition, since_ms)
            offset = min(offset, offset if found is None else found)
        TAILS_LOST.inc()
        LOG.error(
            "Kafka has lost messages of %s/%d that were in effect, up to offset %d: going on at %d",
            *partition,
            lost,
            offset,
        )
        # With its witness: after a rebalance, another loss is seen by it.
        mark = offset - 1 if last is None else last.offset
        lowered = await retry_while_assigned(
            lambda: self._tenants.lower_watermarks(read.field, mark, last), assignment
        )
        if lowered is not None:
            read.begin(ReadStart(offset, next_read()), mark)


def _differs(read: PartitionRead, position: StoredPosition) -> bool:
    """True if the store has less, or something else, than this worker recorded."""
    if position.is_whole and not read.is_behind:
        return not read.is_at(position.watermark, _witness_of(position))
    is_known = position.is_whole or position.watermark >= 0
    return is_known and position.watermark < read.applied


def _read_again(read: PartitionRead, first: int) -> None:
    """Begin a new read at an offset, or before it where a shard has not applied what is there."""
    first = min(first, read.applied + 1)
    read.begin(ReadStart(first, next_read()), read.applied, read.newest)
