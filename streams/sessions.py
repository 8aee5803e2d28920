"""The sessions agent: event messages in, the store's atomic step, examples for the ranker out.

Whatever fails for one event goes to the dead letters; whatever fails for all blocks and is tried
again. Nothing is skipped: the store's watermark moves only with the effects.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
from prometheus_client import Counter, Histogram

from models import events, examples
from models.errors import InvalidEvent
from models.objectives import counted
from models.recommender import Recommender
from models.settings import Settings
from models.store import (
    RETRY_ERRORS,
    Part,
    PartResult,
    Store,
    StoredMessage,
    shard_of,
    stored_events,
)
from streams.dead_letters import envelope

LOG = logging.getLogger(__name__)

STEP_EVENTS = 200
"""Events in one atomic step, at most: a longer step would hold up reading requests."""

EVENT_BYTES = 150
"""What an event takes in a message, about; only to guess the size of a step."""

RETRY_FIRST_S, RETRY_MOST_S = 0.05, 2.0

APPLIED = Counter("recommender_events_total", "Events by what became of them", ["outcome"])
FRESHNESS = Histogram(
    "recommender_freshness_seconds",
    "From the acceptance of a message to its effect",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60),
)
STEP = Histogram("recommender_step_seconds", "Duration of one atomic step")
STORE_RETRIES = Counter("recommender_store_retries_total", "Steps tried again: Redis was away")
REWINDS = Counter("recommender_rewinds_total", "Times the store had lost effects")

Partition = tuple[str, int]


class Arrival(NamedTuple):
    """A Kafka message as it arrived."""

    topic: str
    partition: int
    offset: int
    value: bytes


@dataclass
class Progress:
    """How far each partition is: the offset whose effects the next message follows."""

    epoch: int = 0
    applied: dict[Partition, int] = field(default_factory=dict)
    fields: dict[Partition, str] = field(default_factory=dict)
    _rereading_from: dict[Partition, int] = field(default_factory=dict)

    def assigned(self, watermarks: Mapping[Partition, tuple[str, int]]) -> None:
        """Start at the store's watermarks: watermark field and offset of each partition.

        Whatever arrived before will arrive again, and must not be applied out of order.
        """
        self.epoch += 1
        self.applied.clear()
        self.fields.clear()
        self._rereading_from.clear()
        for partition, (name, offset) in watermarks.items():
            self.fields[partition] = name
            self.applied[partition] = offset

    def rewound(self, partition: Partition, watermark: int) -> None:
        """The store has only effects up to `watermark`; expect to read again from there."""
        last = max(self.applied[partition], self._rereading_from.get(partition, -1))
        self._rereading_from[partition] = last
        self.applied[partition] = watermark

    def expects(self, partition: Partition, offset: int) -> bool:
        """Whether a message continues what was applied.

        After going back, messages fetched earlier still arrive: they lie beyond all that was
        applied before, and are dropped until one at or below that arrives.
        """
        if partition not in self.applied:
            return False
        last = self._rereading_from.get(partition)
        if last is not None:
            if offset > last:
                return False
            del self._rereading_from[partition]
        return True


class Sessions:
    """Applies batches of messages; one for each worker process.

    Parameters
    ----------
    publish
        Produces values to the topic "dead_letters" or "examples"; returns when Kafka has
        acknowledged all, trying again until then.
    rewind
        Makes Kafka deliver a partition again from an offset.
    clock
        The present in Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        publish: Callable[[str, Sequence[bytes]], Coroutine[None, None, None]],
        rewind: Callable[[Mapping[Partition, int]], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self.store = store
        self.settings = settings
        self.progress = Progress()
        self._publish = publish
        self._rewind = rewind
        self._clock = clock
        self._recommender = Recommender(store)
        self._rng = np.random.default_rng()
        self._tokens, self._tokens_at = 0.0, clock()
        self._offering: asyncio.Task[None] | None = None
        # To go back in the middle of a step would let its messages follow what is missing.
        self._stepping = asyncio.Lock()

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
            for (partition, offset), watermark in zip(applied.items(), marks, strict=True):
                if self.progress.epoch != epoch:
                    return
                if watermark < offset:
                    await self._go_back(partition, watermark)

    async def _apply(self, arrivals: Iterable[Arrival]) -> None:
        epoch = self.progress.epoch
        waiting: dict[Partition, list[Arrival]] = {}
        size = 0
        for arrival in arrivals:
            partition = (arrival.topic, arrival.partition)
            if not self.progress.expects(partition, arrival.offset):
                continue
            waiting.setdefault(partition, []).append(arrival)
            size += max(1, len(arrival.value) // EVENT_BYTES)
            if size >= STEP_EVENTS:
                await self._step(waiting)
                waiting, size = {}, 0
            if self.progress.epoch != epoch:
                return
        if waiting:
            await self._step(waiting)

    async def _message(self, arrival: Arrival) -> StoredMessage:
        try:
            return self._decoded(arrival)
        except InvalidEvent as error:
            await self._bury(arrival, "invalid", str(error), arrival.value)
            return StoredMessage(arrival.offset, "", "", 0, 0.0, [])

    def _decoded(self, arrival: Arrival) -> StoredMessage:
        settings, now_s = self.settings, self._clock()
        message = events.parse(arrival.value, now_s=now_s, future_limit_s=settings.future_limit_s)
        if message.tracking_id not in (None, settings.tracking_id):
            raise InvalidEvent(f"unknown tracking id {message.tracking_id!r} - at `$.trackingId`")
        return StoredMessage(
            arrival.offset,
            message.user_id or "",
            message.session_id,
            shard_of(message.session_id),
            # Whoever produces to Kafka directly writes this time: the future would look fresh.
            min(message.accepted_at or now_s, now_s),
            stored_events(
                message.event_list,
                weights=settings.event_weights,
                purchase_types=settings.purchase_types,
            ),
        )

    async def _bury(self, arrival: Arrival, reason: str, detail: str, raw: bytes) -> None:
        """Keep a dead letter; only then may the watermark pass it."""
        letter = envelope("sessions", reason, detail, arrival[:3], raw, now_s=self._clock())
        await self._publish("dead_letters", [letter])
        APPLIED.labels("dead").inc()

    async def _step(self, arrivals: Mapping[Partition, list[Arrival]]) -> None:
        """One atomic step, and more where the store refused a part of it."""
        epoch = self.progress.epoch
        waiting = {
            partition: [await self._message(arrival) for arrival in group]
            for partition, group in arrivals.items()
        }
        if self.progress.epoch != epoch:
            return
        chosen = await self._examples(waiting)
        while waiting and self.progress.epoch == epoch:
            partitions = list(waiting)
            parts = [
                Part(self.progress.fields[tp], self.progress.applied[tp], waiting[tp])
                for tp in partitions
            ]
            results = await self._applied(parts, epoch)
            if results is None:
                return
            waiting = {}
            for tp, part, result in zip(partitions, parts, results, strict=True):
                if self.progress.epoch != epoch:
                    return
                rest = await self._settled(tp, part, result, arrivals[tp])
                if rest:
                    waiting[tp] = rest
        self._offer(chosen)

    async def _applied(self, parts: Sequence[Part], epoch: int) -> list[PartResult] | None:
        """What became of the parts; None if they were reassigned, and so will be read again."""
        delay_s = RETRY_FIRST_S
        while self.progress.epoch == epoch:
            try:
                with STEP.time():
                    results, counts = await self.store.apply(parts, now_s=self._clock())
            except RETRY_ERRORS as error:
                STORE_RETRIES.inc()
                LOG.warning("Redis is away, trying again: %s", error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MOST_S)
            else:
                APPLIED.labels("applied").inc(counts["events"])
                APPLIED.labels("duplicate").inc(counts["duplicates"])
                return results
        return None

    async def _settled(
        self, partition: Partition, part: Part, result: PartResult, arrivals: Sequence[Arrival]
    ) -> list[StoredMessage]:
        """Take note of a result; gives the messages still to be applied."""
        if result.status == "lost":
            await self._go_back(partition, result.watermark)
            return []
        self.progress.applied[partition] = max(part.expected, result.watermark)
        now_s = self._clock()
        for message in part.messages:
            if part.expected < message.offset <= result.watermark and message.accepted_at:
                FRESHNESS.observe(max(0.0, now_s - message.accepted_at))
        if result.status == "applied":
            return []
        at = next(n for n, m in enumerate(part.messages) if m.offset == result.offset)
        arrival = next(a for a in arrivals if a.offset == result.offset)
        await self._bury_events(arrival, result.refused)
        message = part.messages[at]
        kept = [event for n, event in enumerate(message.events) if n not in set(result.refused)]
        return [message._replace(events=kept), *part.messages[at + 1 :]]

    async def _go_back(self, partition: Partition, watermark: int) -> None:
        """Read a partition again from where the store is."""
        REWINDS.inc()
        LOG.warning(
            "Redis has lost effects of %s/%d, reading again after %d", *partition, watermark
        )
        self.progress.rewound(partition, watermark)
        await self._rewind({partition: watermark + 1})

    async def _bury_events(self, arrival: Arrival, numbers: Sequence[int]) -> None:
        message = events.parse(arrival.value, now_s=self._clock(), future_limit_s=float("inf"))
        refused = [message.event_list[n] for n in numbers]
        raw = events.encode(msgspec.structs.replace(message, event_list=refused))
        await self._bury(arrival, "catalogue-full", "the group holds max_items items", raw)

    async def _examples(self, waiting: Mapping[Partition, list[StoredMessage]]) -> list[bytes]:
        """Examples of some of the choices about to be applied, from the state before them."""
        choices = self._choices(waiting)
        if not choices:
            return []
        now_s = self._clock()
        try:
            made = await asyncio.gather(*(self._example(*choice, now_s) for choice in choices))
        except RETRY_ERRORS as error:
            LOG.warning("no examples from this step, Redis is away: %s", error)
            return []
        return [examples.encode(example) for example in made if example]

    def _choices(
        self, waiting: Mapping[Partition, list[StoredMessage]]
    ) -> list[tuple[StoredMessage, str]]:
        """Messages to sample: each owner's first of the step, as many as the rate allows."""
        now_s, rate = self._clock(), self.settings.examples_per_s
        self._tokens = min(rate, self._tokens + max(0.0, now_s - self._tokens_at) * rate)
        self._tokens_at = now_s
        owners: dict[str, tuple[StoredMessage, str]] = {}
        for partition, messages in waiting.items():
            for message in messages:
                owner = message.user_id or message.session_id
                if owner in owners or message.offset <= self.progress.applied[partition]:
                    continue
                if message.events and message.events[0].item_id:
                    owners[owner] = (message, message.events[0].item_id)
        choices = list(owners.values())
        affordable = int(self._tokens)
        if not affordable:
            return []
        if len(choices) > affordable:
            picks = self._rng.choice(len(choices), affordable, replace=False)
            choices = [choices[pick] for pick in picks]
        self._tokens -= len(choices)
        return choices

    async def _example(
        self, message: StoredMessage, item_id: str, now_s: float
    ) -> examples.Example | None:
        situation = await self._recommender.situation(
            message.user_id or None, message.session_id, now_s=now_s, learning=True
        )
        return await self._recommender.example(
            situation,
            item_id,
            counted(situation.overview.rankers, is_purchase=message.events[0].is_purchase),
            self._rng,
            now_s=now_s,
        )

    def _offer(self, chosen: Sequence[bytes]) -> None:
        """Send examples along, unless the last ones are still on their way: they are a sample."""
        if chosen and (self._offering is None or self._offering.done()):
            self._offering = asyncio.create_task(self._publish("examples", chosen))
