"""Batches of Kafka messages in, atomic steps on the store out: each message in effect exactly once.

The life of a batch:

* The worker's Faust agent hands over the messages that arrived, in order (`AtomicBatches.apply`).
  One lock serializes batches, the search for losses and rewinds; a rebalance does not wait for it.
* A message is accepted if it is the next one of its partition in the current assignment and read
  (`PartitionRead.accepts`). Others are dropped: Kafka delivers them again.
* Accepted messages are cut into steps of bounded size, since the store serves no request while it
  works on one.
* The `MessageCodec` decodes them. A rejected one becomes a dead letter; once Kafka has acknowledged
  that, a message without effects takes its place, so that the watermark moves past it.
* The `StepObserver`, if there is one, looks at the state before the step.
* The `StepWriter` applies the step: one script, all partitions' messages with their watermarks.
  While Redis is away it is repeated, for as long as the assignment lasts.
* Each partition has a result. `applied`: done. `full` or `gone`: the store has applied everything
  before a message that it refuses in part; that part becomes a dead letter, and the remainder and
  the messages behind it are written again. `lost`: the store is not at the watermark that the
  messages follow, and has applied none of them.
* `Rewinds` reads partitions again where messages are missing, in the store or in Kafka.

A failure of one message goes to the dead letters; an outage blocks and is tried again. Nothing is
skipped: the watermark moves only with the effects, in the same script.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic

from models.state.messages import PartResult
from models.state.store import Store
from models.state.tenants import Tenants
from streams.agents.contracts import (
    BatchPart,
    M,
    MessageCodec,
    MessageSplitter,
    StepObserver,
    StepWriter,
)
from streams.agents.dead_letter_queue import DeadLetterQueue, Rejection
from streams.agents.retries import retry_while_assigned
from streams.agents.rewinds import AssignedPartition, Rewinds
from streams.kafka.consuming.assignment import (
    Assignment,
    Partition,
    PartitionLog,
    PartitionRead,
    ReceivedMessage,
    Witness,
)

if TYPE_CHECKING:
    from streams.agents.step_spans import StepSpans

ReceivedByPartition = Mapping[Partition, Sequence[ReceivedMessage]]


class AtomicBatches(Generic[M]):
    """Applies batches of messages in atomic steps; one for each agent of a worker process.

    Parameters
    ----------
    tenants
        The dataset groups; watermarks are those of the settings' group.
    codec, writer, observer
        Decode messages, write them, and look at the state before; see `streams.agents.contracts`.
    dead_letters
        Where rejected messages go.
    log
        Kafka's partitions, for rewinds.
    step_size
        Bound of a step, in the codec's sizes: a longer step would hold up requests.
    splitter
        Takes a message apart of which the store refuses a part; None where it refuses nothing.
    spans
        Traces the messages of each step; None for no traces.
    """

    def __init__(
        self,
        tenants: Tenants,
        codec: MessageCodec[M],
        writer: StepWriter[M],
        dead_letters: DeadLetterQueue,
        *,
        log: PartitionLog,
        step_size: int,
        splitter: MessageSplitter[M] | None = None,
        observer: StepObserver[M] | None = None,
        spans: StepSpans | None = None,
    ) -> None:
        self.tenants = tenants
        self.store: Store = tenants.store(tenants.settings.group)
        self.assignment = Assignment()
        self.dead_letters = dead_letters
        self.observer = observer
        self._codec = codec
        self._writer = writer
        self._splitter = splitter
        self._rewinds = Rewinds(tenants, log)
        self._step_size = step_size
        self._spans = spans
        # A rewind in the middle of a step would let its messages follow the missing ones.
        self._lock = asyncio.Lock()

    def assign(self, partitions: Mapping[Partition, AssignedPartition]) -> None:
        """Begin a new assignment; the one before ends at once, with its waiting messages."""
        self.assignment.has_ended = True
        reads = {}
        for partition, (field, watermark, start, witness) in partitions.items():
            read = PartitionRead(field, watermark, start.number, start.offset - 1)
            if witness is not None:
                read.witnesses.append(witness)
            reads[partition] = read
        self.assignment = Assignment(reads)

    async def apply(self, received: Iterable[ReceivedMessage]) -> None:
        """Bring messages into effect, in order; returns when all are, or are dead letters.

        Messages that were fetched for another assignment or an earlier read are dropped: Kafka
        delivers them again.
        """
        async with self._lock:
            assignment = self.assignment
            partitions = await self._apply(assignment, received)
            await self._rewinds.repair(assignment, partitions & assignment.reads.keys())

    async def detect_losses(self) -> None:
        """Read again what Redis has lost, and read on where Kafka has lost its tail.

        To be called about once a second: a step notices only losses in its own partitions.
        """
        async with self._lock:
            await self._rewinds.detect(self.assignment)

    def reread(self, partitions: Collection[Partition]) -> None:
        """Begin new reads of partitions that stand still; the next `detect_losses` asks Kafka."""
        self._rewinds.reread(self.assignment, partitions)

    async def _apply(
        self, assignment: Assignment, received: Iterable[ReceivedMessage]
    ) -> set[Partition]:
        """Apply accepted messages step by step; returns the partitions of all messages."""
        accepted: dict[Partition, list[ReceivedMessage]] = {}
        seen: set[Partition] = set()
        size = 0
        for one in received:
            partition = (one.topic, one.partition)
            seen.add(partition)
            if not assignment.accepts(one):
                continue
            accepted.setdefault(partition, []).append(one)
            size += self._codec.size(one)
            if size >= self._step_size:
                await self._step(assignment, accepted)
                accepted, size = {}, 0
        if accepted:
            await self._step(assignment, accepted)
        return seen

    async def _step(self, assignment: Assignment, received: ReceivedByPartition) -> None:
        if self._spans is None:
            await self._decode_and_write(assignment, received)
        else:
            with self._spans.of_step(assignment, received):
                await self._decode_and_write(assignment, received)

    async def _decode_and_write(
        self, assignment: Assignment, received: ReceivedByPartition
    ) -> None:
        """Decode and apply one step's messages; does nothing more once the assignment ends."""
        decoded: dict[Partition, list[M]] = {partition: [] for partition in received}
        if not await retry_while_assigned(
            functools.partial(self._decode, assignment, received, decoded), assignment
        ):
            return
        after = None
        if self.observer is not None:
            # What is read again for a shard that was away is in effect elsewhere.
            new = [
                message
                for partition, messages in decoded.items()
                for message in messages
                if message.offset > assignment.reads[partition].newest
            ]
            after = await self.observer.before_step(new)
        if await self._write_all(assignment, decoded, received) and after is not None:
            after()

    async def _decode(
        self,
        assignment: Assignment,
        received: ReceivedByPartition,
        decoded: dict[Partition, list[M]],
    ) -> bool:
        """Decode the messages that are not in `decoded` yet; False if the assignment ended."""
        for partition, ones in received.items():
            done = decoded[partition]
            for one in ones[len(done) :]:
                if assignment.has_ended:
                    return False
                try:
                    message = await self._codec.decode(one)
                except Rejection as rejection:
                    await self._reject(one, rejection)
                    message = self._codec.without_effects(one)
                done.append(message)
        return True

    async def _write_all(
        self,
        assignment: Assignment,
        waiting: dict[Partition, list[M]],
        received: ReceivedByPartition,
    ) -> bool:
        """Write a step, and again the messages behind one that the store refuses.

        False if the assignment ended meanwhile: messages not yet in effect will be read again.
        """
        while waiting:
            parts = {}
            for partition, messages in waiting.items():
                read = assignment.reads[partition]
                parts[partition] = BatchPart(
                    read.field, read.written, messages, read.checksum, read.number
                )
            results = await retry_while_assigned(
                functools.partial(self._writer.write, list(parts.values())), assignment
            )
            if results is None:
                return False
            waiting = {}
            for (partition, part), result in zip(parts.items(), results, strict=True):
                rest = await self._record(assignment, partition, part, result, received[partition])
                if rest:
                    waiting[partition] = rest
        return not assignment.has_ended

    async def _record(
        self,
        assignment: Assignment,
        partition: Partition,
        part: BatchPart[M],
        result: PartResult,
        received: Sequence[ReceivedMessage],
    ) -> list[M]:
        """Record the result of one partition; returns its messages that are still to be applied."""
        if result.status == "lost":
            await self._rewinds.resume(assignment, partition)
            return []
        applied = [m for m in part.messages if part.expected < m.offset <= result.watermark]
        assignment.reads[partition].advance(
            result.watermark,
            [Witness(m.offset, m.timestamp_ms, m.checksum) for m in applied],
            is_behind=result.is_behind,
        )
        if not result.is_behind:
            self._writer.on_applied(applied)
        if result.status == "applied":
            return []
        at = next(n for n, one in enumerate(part.messages) if one.offset == result.offset)
        source = next(one for one in received if one.offset == result.offset)
        message = part.messages[at]
        if self._splitter is None:
            raise AssertionError(f"{result.status} at offset {result.offset}: cannot be refused")
        rejection, remainder = self._splitter.split(source, message, result)
        await self._reject(source, rejection)
        return [remainder, *part.messages[at + 1 :]]

    async def _reject(self, received: ReceivedMessage, rejection: Rejection) -> None:
        await self.dead_letters.put(received, rejection)
        if self._spans is not None:
            self._spans.reject(received, rejection.reason)
