"""The worker's Faust app: its two agents, wired to Kafka and the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import faust
from aiokafka.errors import KafkaError

from models.errors import Unavailable
from models.settings import Settings
from models.store import RETRY_ERRORS, Store, connect
from streams.app import EARLIEST, add_agent, commit, create_app, rewind
from streams.dead_letters import envelope
from streams.ranker import Learner
from streams.sessions import RETRY_FIRST_S, RETRY_MOST_S, Arrival, Partition, Sessions
from streams.topics import Topics, topic_ids

LOG = logging.getLogger(__name__)

COMMIT_EVERY_S = 1.0

T = TypeVar("T")


def worker_app(settings: Settings) -> faust.App:
    """A Faust app that brings events into effect and learns the ranking; starts nothing.

    Cost of an empty stream: none to speak of. Everything it knows is in Redis and Kafka, so it
    may be killed at any point.
    """
    topics = Topics.of(settings)
    store = Store(connect(settings.redis), settings)

    async def load_positions(partitions: set[Partition]) -> Mapping[Partition, int]:
        return await _retried(lambda: _positions(partitions))

    async def _positions(partitions: set[Partition]) -> dict[Partition, int]:
        names = sorted({topic for topic, _ in partitions})
        ids = await asyncio.to_thread(topic_ids, settings, names)
        fields = {tp: f"{ids[tp[0]]}/{tp[1]}" for tp in partitions}
        events = [tp for tp in partitions if tp[0] != topics.examples]
        marks = await store.watermarks([fields[tp] for tp in events])
        watermarks = dict(zip(events, marks, strict=True))
        sessions.progress.assigned({tp: (fields[tp], watermarks[tp]) for tp in events})
        for tp in partitions - set(events):
            watermarks[tp] = await learner.assigned(fields[tp])
        return {tp: mark + 1 if mark >= 0 else EARLIEST for tp, mark in watermarks.items()}

    app = create_app("worker", settings, load_positions)

    async def publish(kind: str, values: Sequence[bytes]) -> None:
        topic = getattr(topics, kind)
        for value in values:
            await _retried(lambda value=value: app.producer.send_and_wait(  # type: ignore[misc]
                topic, None, value, None, None, None))  # fmt: skip

    sessions = Sessions(
        store, settings, publish=publish, rewind=lambda at: rewind(app, at), clock=time.time
    )
    learner = Learner(store)

    async def apply_events(batch: list[Any]) -> None:
        await sessions.apply(_arrivals(app, batch))

    async def learn_examples(batch: list[Any]) -> None:
        spoiled = learner.learn(_arrivals(app, batch))
        now_s = time.time()
        letters = [
            envelope("ranker", "invalid", "no training example", a[:3], a.value, now_s=now_s)
            for a in spoiled
        ]
        await publish("dead_letters", letters)

    limit = settings.batch_events
    events = (topics.clicks, topics.purchases)
    add_agent(app, events, apply_events, name="sessions", limit=limit, wait_s=settings.batch_wait_s)
    add_agent(app, (topics.examples,), learn_examples, name="ranker", limit=limit)

    @app.timer(COMMIT_EVERY_S)
    async def report_progress() -> None:
        await learner.save()
        offsets = {tp: offset + 1 for tp, offset in sessions.progress.applied.items()}
        offsets[topics.examples, 0] = learner.saved + 1
        await commit(app, {tp: offset for tp, offset in offsets.items() if offset > 0})

    @app.on_before_shutdown.connect
    async def close(*_: object, **__: object) -> None:
        with contextlib.suppress(*RETRY_ERRORS):
            await store.redis.aclose()

    return app


async def _retried(action: Callable[[], Awaitable[T]]) -> T:
    """The result of an action against Kafka or Redis, tried again until there is one."""
    delay_s = RETRY_FIRST_S
    while True:
        try:
            return await action()
        except (*RETRY_ERRORS, KafkaError, Unavailable) as error:
            LOG.warning("a server is away, trying again: %s", error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MOST_S)


def _arrivals(app: faust.App, batch: Sequence[Any]) -> list[Arrival]:
    """The batch's messages, without those of an assignment that has ended since."""
    generation = app.consumer_generation_id
    return [
        Arrival(m.topic, m.partition, m.offset, m.value)
        for event in batch
        if (m := event.message).generation_id == generation
    ]
