"""Batches in, atomic steps on the store out: what every agent does that keeps a watermark.

Whatever fails for one message goes to the dead letters; whatever fails for all blocks and is tried
again. Nothing is skipped: the store's watermark moves only with the effects.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from prometheus_client import Counter

from models.store import RETRY_ERRORS, PartResult, Store
from models.tenants import Tenants
from streams.dead_letters import envelope
from streams.progress import Arrival, Partition, Progress

LOG = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MOST_S = 0.05, 2.0

STORE_RETRIES = Counter("recommender_store_retries_total", "Steps tried again: Redis was away")
REWINDS = Counter("recommender_rewinds_total", "Times the store had lost effects")

T = TypeVar("T")


async def retried(
    action: Callable[[], Awaitable[T]], errors: tuple[type[Exception], ...] = RETRY_ERRORS
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


class Message(Protocol):
    """What a Kafka message says, as the store takes it."""

    @property
    def offset(self) -> int:
        """Its place in its partition."""


M = TypeVar("M", bound=Message)


Publish = Callable[[str, Sequence[bytes], bytes | None], Coroutine[None, None, None]]
"""Produces values under a key to the topic of a kind, `dead_letters` or `examples`.

It returns when Kafka has acknowledged all, trying again until then.
"""

Rewind = Callable[[Mapping[Partition, int]], Awaitable[None]]
"""Makes Kafka deliver partitions again, each from an offset."""


class Steps(ABC, Generic[M]):
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
        rewind: Rewind,
        clock: Callable[[], float],
        step_size: int,
        stage: str,
    ) -> None:
        self.tenants = tenants
        self.settings = tenants.settings
        self.store: Store = tenants.store(tenants.settings.group)
        self.progress = Progress()
        self._publish = publish
        self._rewind = rewind
        self._clock = clock
        self._step_size = step_size
        self._stage = stage
        # To go back in the middle of a step would let its messages follow what is missing.
        self._stepping = asyncio.Lock()

    @abstractmethod
    def _size(self, arrival: Arrival) -> int:
        """What the message takes of a step, about."""

    @abstractmethod
    async def _message(self, arrival: Arrival) -> M:
        """What the message says; nothing, once its dead letter is kept."""

    @abstractmethod
    async def _write(self, parts: Sequence[tuple[str, int, list[M]]]) -> list[PartResult]:
        """What became of watermark field, expected watermark and messages of each partition."""

    @abstractmethod
    async def _rest(self, arrival: Arrival, message: M, result: PartResult) -> M:
        """What is left of a message that the store refused, once the rest is a dead letter."""

    def _noted(self, messages: Sequence[M]) -> None:
        """Take note of messages that have come into effect."""

    async def apply(self, arrivals: Iterable[Arrival]) -> None:
        """Bring messages into effect, in their order; returns when all are, or are dead letters."""
        epoch = self.progress.epoch
        async with self._stepping:
            if self.progress.epoch == epoch:
                await self._apply(arrivals)

    async def go_back_where_lost(self) -> None:
        """Read again what the store has lost, also of partitions where nothing new arrives.

        To be called now and then: a step notices only what its own partitions have lost.
        """
        async with self._stepping:
            epoch, applied = self.progress.epoch, dict(self.progress.applied)
            try:
                marks = await self.store.watermarks([self.progress.fields[tp] for tp in applied])
            except RETRY_ERRORS as error:
                LOG.warning("Redis is away, what it may have lost is asked later: %s", error)
                return
            overdue = self.progress.overdue()
            for (partition, offset), watermark in zip(applied.items(), marks, strict=True):
                if self.progress.epoch != epoch:
                    return
                if watermark < offset:
                    await self._go_back(partition, watermark)
                elif partition in overdue:
                    LOG.warning("%s/%d has lost what was to be read again", *partition)
                    self.progress.rewound(partition, offset)
                    await self._rewind({partition: offset + 1})

    async def _apply(self, arrivals: Iterable[Arrival]) -> None:
        epoch = self.progress.epoch
        waiting: dict[Partition, list[Arrival]] = {}
        size = 0
        for arrival in arrivals:
            partition = (arrival.topic, arrival.partition)
            if not self.progress.expects(partition, arrival.offset):
                continue
            waiting.setdefault(partition, []).append(arrival)
            size += self._size(arrival)
            if size >= self._step_size:
                await self._step(waiting)
                waiting, size = {}, 0
            if self.progress.epoch != epoch:
                return
        if waiting:
            await self._step(waiting)

    async def _step(self, arrivals: Mapping[Partition, list[Arrival]]) -> None:
        epoch = self.progress.epoch
        waiting = {
            partition: [await self._message(arrival) for arrival in group]
            for partition, group in arrivals.items()
        }
        if self.progress.epoch == epoch:
            await self._written(waiting, arrivals)

    async def _written(
        self, waiting: dict[Partition, list[M]], arrivals: Mapping[Partition, list[Arrival]]
    ) -> bool:
        """One atomic step, and more where the store refused a part of it.

        False if the partitions were reassigned meanwhile, and so will be read again.
        """
        epoch = self.progress.epoch
        while waiting:
            partitions = list(waiting)
            parts = [
                (self.progress.fields[tp], self.progress.applied[tp], waiting[tp])
                for tp in partitions
            ]
            results = await self._on_store(functools.partial(self._write, parts), epoch)
            if results is None:
                return False
            waiting = {}
            for tp, part, result in zip(partitions, parts, results, strict=True):
                if self.progress.epoch != epoch:
                    return False
                rest = await self._settled(tp, part, result, arrivals[tp])
                if rest:
                    waiting[tp] = rest
        return True

    async def _on_store(self, action: Callable[[], Awaitable[T]], epoch: int) -> T | None:
        """The result of an action on Redis; None if partitions are reassigned before there is."""
        delay_s = RETRY_FIRST_S
        while self.progress.epoch == epoch:
            try:
                return await action()
            except RETRY_ERRORS as error:
                STORE_RETRIES.inc()
                LOG.warning("Redis is away, trying again: %s", error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MOST_S)
        return None

    async def _settled(
        self,
        partition: Partition,
        part: tuple[str, int, list[M]],
        result: PartResult,
        arrivals: Sequence[Arrival],
    ) -> list[M]:
        """Take note of a result; gives the messages still to be applied."""
        _, expected, messages = part
        if result.status == "lost":
            await self._go_back(partition, result.watermark)
            return []
        self.progress.applied[partition] = max(expected, result.watermark)
        self._noted([m for m in messages if expected < m.offset <= result.watermark])
        if result.status == "applied":
            return []
        at = next(n for n, message in enumerate(messages) if message.offset == result.offset)
        arrival = next(a for a in arrivals if a.offset == result.offset)
        return [await self._rest(arrival, messages[at], result), *messages[at + 1 :]]

    async def _go_back(self, partition: Partition, watermark: int) -> None:
        """Read a partition again from where the store is."""
        REWINDS.inc()
        LOG.warning(
            "Redis has lost effects of %s/%d, reading again after %d", *partition, watermark
        )
        self.progress.rewound(partition, watermark)
        await self._rewind({partition: watermark + 1})

    async def _bury(
        self, arrival: Arrival, reason: str, detail: str, raw: bytes, *, group: str = ""
    ) -> None:
        """Keep a dead letter; only then may the watermark pass it."""
        letter = envelope(
            self._stage, reason, detail, arrival[:3], raw, now_s=self._clock(), group=group
        )
        # With its key it will go to the same partition again.
        await self._publish("dead_letters", [letter], arrival.key or None)
