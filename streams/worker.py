"""The worker's Faust app: its two agents, wired to Kafka and the store."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import faust
from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError
from prometheus_client import Gauge

from models.errors import Unavailable
from models.settings import Settings
from models.store import RETRY_ERRORS, Store, connect
from streams.app import EARLIEST, add_agent, commit, create_app, high_water, rewind
from streams.dead_letters import envelope
from streams.ranker import Learner
from streams.sessions import RETRY_FIRST_S, RETRY_MOST_S, Arrival, Partition, Sessions
from streams.topics import Topics, topic_ids

LOG = logging.getLogger(__name__)

COMMIT_EVERY_S = 1.0

LAG = Gauge("recommender_lag_messages", "Messages not in effect yet", ["topic", "partition"])

T = TypeVar("T")


class Worker:
    """What the app's agents and timer do; everything it knows is in Redis and Kafka."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics.of(settings)
        self.store = Store(connect(settings.redis), settings)
        self.app = create_app("worker", settings, self.load_positions)
        self.sessions = Sessions(
            self.store,
            settings,
            publish=self.publish,
            rewind=lambda positions: rewind(self.app, positions),
            clock=time.time,
        )
        self.learner = Learner(self.store)

    async def load_positions(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """Where to read on: behind the store's watermarks."""
        return await _retried(lambda: self._positions(partitions))

    async def _positions(self, partitions: set[Partition]) -> dict[Partition, int]:
        names = sorted({topic for topic, _ in partitions})
        ids = await asyncio.to_thread(topic_ids, self.settings, names)
        fields = {tp: f"{ids[tp[0]]}/{tp[1]}" for tp in partitions}
        events = [tp for tp in partitions if tp[0] != self.topics.examples]
        marks = await self.store.watermarks([fields[tp] for tp in events])
        watermarks = dict(zip(events, marks, strict=True))
        self.sessions.progress.assigned({tp: (fields[tp], watermarks[tp]) for tp in events})
        LAG.clear()  # others tell it of the partitions that are theirs now
        for tp in partitions - set(events):
            watermarks[tp] = await self.learner.assigned(fields[tp])
        return {tp: mark + 1 if mark >= 0 else EARLIEST for tp, mark in watermarks.items()}

    async def publish(self, kind: str, values: Sequence[bytes]) -> None:
        """Produce to the topic of that kind; returns when Kafka has acknowledged all."""
        topic = getattr(self.topics, kind)
        for value in values:
            await _retried(functools.partial(self._produce, topic, value))

    async def _produce(self, topic: str, value: bytes) -> None:
        await self.app.producer.send_and_wait(topic, None, value, None, None, None)

    async def apply_events(self, batch: list[Any]) -> None:
        """Bring a batch of events into effect."""
        await self.sessions.apply(_arrivals(self.app, batch))

    async def learn_examples(self, batch: list[Any]) -> None:
        """Learn a batch of training examples; what is none becomes a dead letter."""
        spoiled = self.learner.learn(_arrivals(self.app, batch))
        now_s = time.time()
        letters = [
            envelope("ranker", "invalid", "no training example", a[:3], a.value, now_s=now_s)
            for a in spoiled
        ]
        await self.publish("dead_letters", letters)

    async def report_progress(self) -> None:
        """Save what was learned, and tell Kafka and the metrics how far this worker is."""
        await self.learner.save()
        await self.sessions.go_back_where_lost()
        applied = self.sessions.progress.applied
        offsets = {tp: offset + 1 for tp, offset in applied.items()}
        offsets[self.topics.examples, 0] = self.learner.saved + 1
        await commit(self.app, {tp: offset for tp, offset in offsets.items() if offset > 0})
        for partition, offset in applied.items():
            end = high_water(self.app, partition)
            if end is not None:
                LAG.labels(*partition).set(max(0, end - 1 - offset))

    async def close(self, *_: object, **__: object) -> None:
        """Let go of Redis."""
        await self.store.redis.aclose()


def worker_app(settings: Settings) -> faust.App:
    """A Faust app that brings events into effect and learns the ranking; starts nothing.

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
    add_agent(app, (topics.examples,), worker.learn_examples, name="ranker", limit=limit)
    app.timer(COMMIT_EVERY_S)(worker.report_progress)
    app.on_before_shutdown.connect(worker.close)
    return app


async def _retried(action: Callable[[], Awaitable[T]]) -> T:
    """The result of an action against Kafka or Redis, tried again until there is one."""
    delay_s = RETRY_FIRST_S
    while True:
        try:
            return await action()
        except (*RETRY_ERRORS, KafkaError, ProducerSendError, Unavailable) as error:
            LOG.warning("a server is away, trying again: %s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MOST_S)


def _arrivals(app: faust.App, batch: Sequence[Any]) -> list[Arrival]:
    """The batch's messages, without those of an assignment that has ended since."""
    generation = app.consumer_generation_id
    return [
        Arrival(m.topic, m.partition, m.offset, m.value or b"")  # a tombstone has no value
        for event in batch
        if (m := event.message).generation_id == generation
    ]
