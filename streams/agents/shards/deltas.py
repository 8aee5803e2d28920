"""The second hop: agents of what session shards leave for other shards, one for each kind.

A partition of a topic of deltas is of one shard, which applies each delta once by marks of the
sources, and keeps the partition's watermark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Counter, Histogram

from models.state.messages import BehindResult, PartResult
from models.state.shards.shard_names import (
    DeltaMessage,
    DeltaPart,
    ShardKind,
    mark_shard,
    shard_name,
    split,
)
from models.state.shards.sharded_steps import ShardedSteps
from models.state.tenants import Tenants
from streams.agents.atomic_batches import AtomicBatches
from streams.agents.contracts import BatchPart, Publish
from streams.agents.dead_letter_queue import DeadLetterQueue, Rejection
from streams.agents.events import count_applied
from streams.agents.shards.item_names import PublishDeltas
from streams.agents.shards.sharded_events import SHARD_CHANGES
from streams.kafka.consuming.assignment import PartitionLog, ReceivedMessage

DELTA_BYTES = 250
"""Typical bytes of the deltas of an event, to estimate the size of a step."""

STEP_DELTAS = 200
"""Bound of the events whose deltas are in one atomic step."""

LABELS: Mapping[ShardKind, str] = {"u": "sessions", "i": "items"}
"""Label of the shards of each kind in metrics."""

DELTAS_DEAD = Counter(
    "recommender_deltas_dead_total", "Messages of topics of deltas that hold none", ["kind"]
)
GAPS = Counter(
    "recommender_delta_gaps_total", "Deltas left, as some before them had not come yet", ["kind"]
)
HOP = Histogram(
    "recommender_hop_seconds",
    "From the step of a session shard to the effect of its deltas in another shard",
    ["kind"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60),
)


def delta_agent(
    kind: ShardKind,
    tenants: Tenants,
    steps: ShardedSteps,
    *,
    publish: Publish,
    publish_deltas: PublishDeltas,
    log: PartitionLog,
    clock: Callable[[], float],
) -> AtomicBatches[DeltaMessage]:
    """The agent of a topic of deltas; one of each kind for a worker process.

    Parameters
    ----------
    publish, publish_deltas
        Produce to the topic of dead letters, and to the shards.
    clock
        The present in Unix seconds.
    """
    kept_bytes = tenants.settings.dead_letter_payload_bytes
    return AtomicBatches(
        tenants,
        DeltaCodec(),
        DeltaWriter(kind, steps, publish_deltas, clock),
        DeadLetterQueue("deltas", publish, clock, kept_bytes, DELTAS_DEAD.labels(LABELS[kind])),
        log=log,
        step_size=STEP_DELTAS,
    )


class DeltaCodec:
    """Takes deltas apart: a `MessageCodec`."""

    def size(self, received: ReceivedMessage) -> int:
        """Estimated number of events whose deltas are in a message."""
        return max(1, len(received.value) // DELTA_BYTES)

    async def decode(self, received: ReceivedMessage) -> DeltaMessage:
        """The message as the steps take it; asks Redis nothing.

        Raises
        ------
        Rejection
            It is no message of deltas.
        """
        try:
            _, runs = split(received.value)
        except ValueError as error:
            raise Rejection("invalid", str(error), received.value) from error
        return self.without_effects(received)._replace(runs=runs)

    def without_effects(self, received: ReceivedMessage) -> DeltaMessage:
        """A message without deltas, which only moves the watermark."""
        offset, timestamp_ms, checksum = received.witness
        return DeltaMessage(offset, NO_RUNS, timestamp_ms, checksum)


class DeltaWriter:
    """Writes deltas to their shards: a `StepWriter`."""

    def __init__(
        self,
        kind: ShardKind,
        steps: ShardedSteps,
        publish: PublishDeltas,
        clock: Callable[[], float],
    ) -> None:
        self._kind: ShardKind = kind
        self._steps = steps
        self._publish = publish
        self._clock = clock
        # By partition, the last read in which its shard was away.
        self._away: dict[str, int] = {}

    async def write(self, parts: Sequence[BatchPart[DeltaMessage]]) -> list[PartResult]:
        """Apply each part in one atomic step of its shard, all at once.

        A shard that is away gets its messages when they are read again.
        """
        asked = [part for part in parts if self._away.get(part.field) != part.read]
        found = await asyncio.gather(
            *(self._write(DeltaPart(*part[:4])) for part in asked), return_exceptions=True
        )
        done: dict[str, PartResult] = {}
        for part, result in zip(asked, found, strict=True):
            if not isinstance(result, BaseException):
                done[part.field] = result
            elif self._steps.is_absence(result):
                self._away[part.field] = part.read
            else:
                raise result
        return [
            done.get(part.field) or BehindResult("applied", part.messages[-1].offset, -1, [])
            for part in parts
        ]

    async def _write(self, part: DeltaPart) -> PartResult:
        now_s, (_, shard) = self._clock(), mark_shard(part.field)
        gaps = GAPS.labels(LABELS[self._kind])
        if self._kind == "i":
            applied = await self._steps.apply_deltas(shard, [part], now_s=now_s)
            gaps.inc(applied.n_gaps)
            SHARD_CHANGES.labels(shard_name("i", shard)).inc(applied.counts["changes"])
            return applied.deltas[0]
        result = await self._steps.apply_events(
            shard, [], [part], indexes={}, types={}, now_s=now_s
        )
        gaps.inc(result.n_gaps)
        count_applied(result.counts)
        SHARD_CHANGES.labels(shard_name("u", shard)).inc(result.counts["events"])
        await self._publish(result.outbox)
        return result.deltas[0]

    def on_applied(self, messages: Sequence[DeltaMessage]) -> None:
        """Record how long the deltas were on their way."""
        now_s, hop = self._clock(), HOP.labels(LABELS[self._kind])
        for message in messages:
            hop.observe(max(0.0, now_s - message.timestamp_ms / 1000))


NO_RUNS = b"\x90"
"""An empty list in MessagePack."""
