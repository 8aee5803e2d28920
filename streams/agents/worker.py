"""The worker's Faust app: its agents, wired to Kafka and the store."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import faust
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from models.errors import Unavailable
from models.serving.tenants import Tenants
from models.settings import Settings
from models.state.redis_errors import AWAY_ERRORS
from models.state.store import connect
from streams.agents.atomic_batches import Assigned, places, retried
from streams.agents.events import EventAgent
from streams.agents.metadata import MetadataAgent
from streams.agents.ranker import GroupLearners, group_of
from streams.kafka.assignment import Partition, ReadStart, ReceivedMessage, first_offset, next_read
from streams.kafka.dead_letters import envelope, letter_key, of_unreadable
from streams.kafka.faust_app import AppLog, add_agent, commit, create_app
from streams.kafka.faust_producing import keep_letter, offer
from streams.kafka.produce_errors import classified
from streams.kafka.standstill import Standstill
from streams.kafka.topics import Topics, topic_ids

COMMIT_EVERY_S = 1.0

LAG = Gauge("recommender_lag_messages", "Messages not in effect yet", ["topic", "partition"])

AWAY = (*AWAY_ERRORS, Unavailable)
"""What a server that is away causes, Redis or Kafka."""


class Worker:
    """What the app's agents and timer do; everything it knows is in Redis and Kafka."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics.of(settings)
        self.tenants = Tenants(connect(settings.redis), settings)
        self.app = create_app("worker", settings, self.load_positions)
        self._log = WorkerLog(self.app, settings)
        self.sessions = EventAgent(
            self.tenants, publish=self.publish, log=self._log, clock=time.time
        )
        self.metadata = MetadataAgent(
            self.tenants, publish=self.publish, log=self._log, clock=time.time
        )
        self.learners = GroupLearners(self.tenants)
        self._standstill = Standstill(self.tenants.redis, settings.group, "worker")

    async def load_positions(self, begin: Mapping[Partition, ReadStart]) -> Mapping[Partition, int]:
        """Where to read on: behind the store's watermarks."""
        return await retried(lambda: self._positions(begin), AWAY)

    async def _positions(self, begin: Mapping[Partition, ReadStart]) -> dict[Partition, int]:
        ids = await asyncio.to_thread(topic_ids, self.settings, self.topics.read)
        await self.tenants.forget_partitions(set(ids.values()))
        fields = {tp: f"{ids[tp[0]]}/{tp[1]}" for tp in begin}
        kept = [tp for tp in begin if tp[0] != self.topics.examples]
        found = await places(self.sessions.store, [fields[tp] for tp in kept])
        assigned, positions = {}, {}
        for tp, (mark, witness) in zip(kept, found, strict=True):
            oldest, number = begin[tp]
            positions[tp] = max(oldest, first_offset(mark, witness))
            assigned[tp] = Assigned(fields[tp], mark, ReadStart(positions[tp], number), witness)
        for tp in begin.keys() - set(kept):
            positions[tp] = 1 + await self.learners.assigned(fields[tp])
        # From here on nothing is awaited: what begins, begins for all agents at once.
        events = (self.topics.clicks, self.topics.purchases)
        for agent, is_its in ((self.sessions, True), (self.metadata, False)):
            agent.assigned({tp: one for tp, one in assigned.items() if (tp[0] in events) is is_its})
        LAG.clear()  # others tell it of the partitions that are theirs now
        return positions

    async def publish(self, kind: str, values: Sequence[bytes], key: bytes | None = None) -> None:
        """Produce to the topic of that kind; returns when Kafka has acknowledged all."""
        topic = getattr(self.topics, kind)
        send = offer if kind == "examples" else keep_letter
        await asyncio.gather(
            *(
                retried(functools.partial(send, self.app, topic, key, value), AWAY)
                for value in values
            )
        )

    async def apply_events(self, batch: list[Any]) -> None:
        """Bring a batch of events into effect."""
        await self.sessions.apply(_arrivals(batch))

    async def apply_records(self, batch: list[Any]) -> None:
        """Bring a batch of metadata into effect."""
        await self.metadata.apply(_arrivals(batch))

    async def learn_examples(self, batch: list[Any]) -> None:
        """Learn a batch of training examples; what is none becomes a dead letter."""
        for spoiled in await self.learners.learn(_arrivals(batch)):
            group = group_of(spoiled) or self.settings.group
            letter = envelope(
                "ranker",
                "invalid",
                "no training example",
                spoiled[:3],
                spoiled.value,
                key=spoiled.key,
                now_s=time.time(),
                group=group,
                payload_bytes=self.settings.dead_letter_payload_bytes,
            )
            await self.publish("dead_letters", [letter], letter_key(spoiled.key))

    async def report_progress(self) -> None:
        """Save what was learned, and tell Kafka and the metrics how far this worker is."""
        await self._look_at_unreadable()
        await self.learners.save()
        applied: dict[Partition, int] = {}
        for agent in (self.sessions, self.metadata):
            await agent.look_after()
            applied |= {tp: one.applied for tp, one in agent.assignment.readings.items()}
        nexts = {tp: self._log.nothing_before(tp, offset + 1) for tp, offset in applied.items()}
        offsets = dict(nexts)
        offsets[self.topics.examples, 0] = self.learners.saved + 1
        await commit(self.app, {tp: offset for tp, offset in offsets.items() if offset > 0})
        for partition, offset in nexts.items():
            end = self._log.end(partition)
            if end is not None:
                LAG.labels(*partition).set(max(0, end - offset))

    async def _look_at_unreadable(self) -> None:
        """Tell where a partition stands still, and read anew where that may help."""
        found = []
        for error in self._log.unreadable():
            if error.topic == self.topics.examples:
                # Examples are a sample: what cannot be read of them is no reason to stop learning.
                letter = of_unreadable(error, now_s=time.time())
                await self.publish("dead_letters", [letter])
                start = ReadStart(error.last + 1, next_read())
                await self._log.seek({(error.topic, error.partition): start})
            else:
                found.append(error)
        due = await self._standstill.look(found, now_s=time.time())
        places = {(error.topic, error.partition) for error in due}
        for agent in (self.sessions, self.metadata):
            agent.read_anew(places)

    async def close(self, *_: object, **__: object) -> None:
        """Let go of Redis."""
        await self.tenants.close()
        await self.tenants.redis.aclose()


def worker_app(settings: Settings, *, ready: Callable[[], None] | None = None) -> faust.App:
    """A Faust app that brings events and metadata into effect and learns; starts nothing.

    It may be killed at any point: the store says where to go on. `ready` is called each time it
    has been given partitions, if any, and Redis has told where to read them on.
    """
    worker = Worker(settings)
    if ready is not None:
        worker.app.on_positions = ready
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


class WorkerLog(AppLog):
    """Kafka's partitions as a worker's agents need them: a `PartitionLog`."""

    def __init__(self, app: faust.App, settings: Settings) -> None:
        super().__init__(app)
        self._settings = settings

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int | None:
        """The first offset whose message is no older than this; waits while Kafka is away."""
        ask = functools.partial(super().offset_at, partition, timestamp_ms)

        async def find() -> int | None:
            try:
                return await ask()
            except KafkaError as error:
                explained = classified(error)
                if explained is None:
                    raise
                raise explained from error

        return await retried(find, AWAY)

    async def is_renewed(self, partition: Partition, field: str) -> bool:
        """Whether the topic was made anew since; waits while Kafka is away."""
        topic, number = partition

        async def renewed() -> bool:
            ids = await asyncio.to_thread(topic_ids, self._settings, [topic])
            return f"{ids[topic]}/{number}" != field

        return await retried(renewed, AWAY)


def _arrivals(batch: Sequence[Any]) -> list[ReceivedMessage]:
    """The batch's messages; one without a value is a tombstone."""
    return [
        ReceivedMessage(
            m.topic,
            m.partition,
            m.offset,
            m.value or b"",
            m.key or b"",
            round(1000 * m.timestamp),
            m.read,
            m.follows,
            m.connection,
        )
        for m in (event.message for event in batch)
    ]
