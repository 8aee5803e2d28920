"""The worker's Faust app: its agents, wired to Kafka and the store."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError
from prometheus_client import Gauge

from models.errors import Unavailable
from models.settings import Settings
from models.store import RETRY_ERRORS, connect
from models.tenants import Tenants
from streams.app import EARLIEST, add_agent, commit, create_app, high_water, rewind
from streams.dead_letters import envelope
from streams.metadata import Metadata
from streams.progress import Arrival, Partition
from streams.ranker import Learners, group_of
from streams.sessions import Sessions
from streams.steps import retried
from streams.topics import Topics, topic_ids

COMMIT_EVERY_S = 1.0

LAG = Gauge("recommender_lag_messages", "Messages not in effect yet", ["topic", "partition"])

AWAY = (*RETRY_ERRORS, KafkaError, ProducerSendError, Unavailable)
"""What a server that is away causes, Redis or Kafka."""


class Worker:
    """What the app's agents and timer do; everything it knows is in Redis and Kafka."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics.of(settings)
        self.tenants = Tenants(connect(settings.redis), settings)
        self.app = create_app("worker", settings, self.load_positions)
        self.sessions = Sessions(
            self.tenants, publish=self.publish, rewind=self._rewind, clock=time.time
        )
        self.metadata = Metadata(
            self.tenants, publish=self.publish, rewind=self._rewind, clock=time.time
        )
        self.learners = Learners(self.tenants)

    async def load_positions(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """Where to read on: behind the store's watermarks."""
        return await retried(lambda: self._positions(partitions), AWAY)

    async def _positions(self, partitions: set[Partition]) -> dict[Partition, int]:
        names = sorted({topic for topic, _ in partitions})
        ids = await asyncio.to_thread(topic_ids, self.settings, names)
        fields = {tp: f"{ids[tp[0]]}/{tp[1]}" for tp in partitions}
        kept = [tp for tp in partitions if tp[0] != self.topics.examples]
        marks = await self.sessions.store.watermarks([fields[tp] for tp in kept])
        watermarks = dict(zip(kept, marks, strict=True))
        events = (self.topics.clicks, self.topics.purchases)
        for agent, is_its in ((self.sessions, True), (self.metadata, False)):
            agent.progress.assigned(
                {tp: (fields[tp], watermarks[tp]) for tp in kept if (tp[0] in events) is is_its}
            )
        LAG.clear()  # others tell it of the partitions that are theirs now
        for tp in partitions - set(kept):
            watermarks[tp] = await self.learners.assigned(fields[tp])
        return {tp: mark + 1 if mark >= 0 else EARLIEST for tp, mark in watermarks.items()}

    async def publish(self, kind: str, values: Sequence[bytes], key: bytes | None = None) -> None:
        """Produce to the topic of that kind; returns when Kafka has acknowledged all."""
        topic = getattr(self.topics, kind)
        await asyncio.gather(
            *(
                retried(functools.partial(self._produce, topic, key, value), AWAY)
                for value in values
            )
        )

    async def _produce(self, topic: str, key: bytes | None, value: bytes) -> None:
        await self.app.producer.send_and_wait(topic, key, value, None, None, None)

    async def _rewind(self, positions: Mapping[Partition, int]) -> None:
        await rewind(self.app, positions)

    async def apply_events(self, batch: list[Any]) -> None:
        """Bring a batch of events into effect."""
        await self.sessions.apply(_arrivals(self.app, batch))

    async def apply_records(self, batch: list[Any]) -> None:
        """Bring a batch of metadata into effect."""
        await self.metadata.apply(_arrivals(self.app, batch))

    async def learn_examples(self, batch: list[Any]) -> None:
        """Learn a batch of training examples; what is none becomes a dead letter."""
        for spoiled in await self.learners.learn(_arrivals(self.app, batch)):
            group = group_of(spoiled) or self.settings.group
            letter = envelope(
                "ranker",
                "invalid",
                "no training example",
                spoiled[:3],
                spoiled.value,
                now_s=time.time(),
                group=group,
            )
            await self.publish("dead_letters", [letter], spoiled.key or None)

    async def report_progress(self) -> None:
        """Save what was learned, and tell Kafka and the metrics how far this worker is."""
        await self.learners.save()
        applied: dict[Partition, int] = {}
        for agent in (self.sessions, self.metadata):
            await agent.go_back_where_lost()
            applied |= agent.progress.applied
        offsets = {tp: offset + 1 for tp, offset in applied.items()}
        offsets[self.topics.examples, 0] = self.learners.saved + 1
        await commit(self.app, {tp: offset for tp, offset in offsets.items() if offset > 0})
        for partition, offset in applied.items():
            end = high_water(self.app, partition)
            if end is not None:
                LAG.labels(*partition).set(max(0, end - 1 - offset))

    async def close(self, *_: object, **__: object) -> None:
        """Let go of Redis."""
        await self.tenants.close()
        await self.tenants.redis.aclose()


def worker_app(settings: Settings) -> faust.App:
    """A Faust app that brings events and metadata into effect and learns; starts nothing.

    It may be killed at any point: the store says where to go on.
    """
    worker = Worker(settings)
    app, topics, limit = worker.app, worker.topics, settings.batch_events
    add_agent(
        app,
        (topics.clicks, topics.purchases),
        worker.apply_events,
        name="sessions",
        limit=limit,
        wait_s=settings.batch_wait_s,
    )
    add_agent(app, (topics.items, topics.users), worker.apply_records, name="metadata", limit=limit)
    add_agent(app, (topics.examples,), worker.learn_examples, name="ranker", limit=limit)
    app.timer(COMMIT_EVERY_S)(worker.report_progress)
    app.on_before_shutdown.connect(worker.close)
    return app


def _arrivals(app: faust.App, batch: Sequence[Any]) -> list[Arrival]:
    """The batch's messages, without those of an assignment that has ended since."""
    generation = app.consumer_generation_id
    return [
        Arrival(m.topic, m.partition, m.offset, m.value or b"", m.key or b"")  # or a tombstone
        for event in batch
        if (m := event.message).generation_id == generation
    ]
