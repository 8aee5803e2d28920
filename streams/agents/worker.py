"""The worker process: its agents and timer, wired to Faust, Kafka and the store."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import platform
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import faust
from prometheus_client import Gauge

from models.audit_entries import AuditEntry
from models.errors import Unavailable
from models.kafka_operations import RunningWorker
from models.key_figures import bucket_totals, counter_total
from models.serving.recommenders import Recommenders
from models.settings import Settings
from models.state.clients.client import client_of
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.operations.figure_sums import WRITE_EVERY_S, FigureWriter
from models.state.operations.running_workers import report_worker
from models.state.shards.stored_layout import LOOK_EVERY_S, fix_layout, layout_and_move
from models.state.tenants import Tenants
from models.traces import traces_of
from streams.agents.agent_log import AgentLog
from streams.agents.atomic_batches import AtomicBatches
from streams.agents.dead_letter_queue import DeadLetterQueue, Rejection
from streams.agents.events import APPLIED, FRESHNESS, event_agent
from streams.agents.experiment_guard import GUARD_EVERY_S, guard_experiments
from streams.agents.learning.catch_up import CatchUp
from streams.agents.learning.challengers import WorkerChallengers
from streams.agents.learning.example_sampling import ExampleSampler
from streams.agents.learning.factors import FactorUpkeep
from streams.agents.learning.ranker import GroupLearners, group_of
from streams.agents.memory_report import MEMORY_EVERY_S, report_memory
from streams.agents.metadata import RECORDS, metadata_agent
from streams.agents.received import received_messages
from streams.agents.rewinds import AssignedPartition, stored_positions
from streams.agents.served import served_agent
from streams.agents.shards.worker_shards import WorkerShards
from streams.kafka.audit_log import AuditLog
from streams.kafka.consuming.assignment import (
    Partition,
    ReadStart,
    first_offset,
    next_read,
)
from streams.kafka.consuming.standstill import Standstill
from streams.kafka.dead_letters import of_unreadable
from streams.kafka.faust_clients.faust_app import add_agent, commit, create_app
from streams.kafka.faust_clients.faust_producing import keep_letter, offer
from streams.kafka.topics import Topics, topic_ids
from streams.retry_policy import AWAY, retry_outages

if TYPE_CHECKING:
    from streams.agents.step_spans import StepSpans

LOG = logging.getLogger(__name__)

COMMIT_EVERY_S = 1.0

LAG = Gauge("recommender_lag_messages", "Messages not in effect yet", ["topic", "partition"])
WATERMARK = Gauge(
    "recommender_watermark_offset", "Offset of the last message in effect", ["topic", "partition"]
)


class Worker:
    """The agents of a worker process, and its timer; all state is in Redis and Kafka."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics.of(settings)
        self._redis = client_of(settings)
        self.tenants = Tenants(self._redis, settings)
        self._recommenders = Recommenders(self.tenants)
        self.app = create_app("worker", settings, self.load_positions)
        self._log = AgentLog(self.app, settings)
        self._spans = _step_spans(settings, self.app.conf.id)
        sampler = ExampleSampler(self._recommenders, publish=self.publish_examples, clock=time.time)
        self.catch_up = CatchUp(
            self._recommenders,
            publish=self.publish_examples,
            clock=time.time,
            is_late=sampler.is_late,
        )
        self.factors = FactorUpkeep(self.tenants, clock=time.time, is_late=sampler.is_late)
        self.shards = WorkerShards(
            self.tenants, self.app, self._log, publish_dead_letters=self.publish_dead_letters
        )
        self.events = event_agent(
            self.tenants,
            publish=self.publish_dead_letters,
            log=self._log,
            clock=time.time,
            observer=self.shards.observer(sampler),
            spans=self._spans,
            writer=self.shards.event_writer,
        )
        self.metadata = metadata_agent(
            self.tenants,
            publish=self.publish_dead_letters,
            log=self._log,
            clock=time.time,
            spans=self._spans,
            writer=self.shards.record_writer,
        )
        self.served = served_agent(
            self.tenants,
            publish=self.publish_dead_letters,
            log=self._log,
            clock=time.time,
            spans=self._spans,
        )
        self.learners = GroupLearners(self.tenants)
        own = self.tenants.store(settings.group)
        self.challengers = WorkerChallengers(own, self.learners.champions)
        self._dead_letters = DeadLetterQueue(
            "ranker", self.publish_dead_letters, time.time, settings.dead_letter_payload_bytes
        )
        self._audit_log = AuditLog(settings)
        self._standstill = Standstill(self._redis, settings.group, "worker")
        self._figures = FigureWriter(own, "worker_s", _figure_totals, now_s=time.time())
        self._lag, self._memory_bytes = 0, math.nan
        self._name, self._started_at = f"{platform.node()}/{os.getpid()}", time.time()
        self.has_moved = False

    async def load_positions(
        self, oldest: Mapping[Partition, int]
    ) -> Mapping[Partition, ReadStart]:
        """First offset to read in each assigned partition: behind the store's watermarks."""
        return await retry_outages(lambda: self._positions(oldest), AWAY)

    async def _positions(self, oldest: Mapping[Partition, int]) -> dict[Partition, ReadStart]:
        await self.look_at_layout()
        if self.has_moved:
            # It ends: other shards have the state, and other topics what goes between them.
            raise Unavailable(f"group {self.settings.group} has other shards by now")
        read = (*self.topics.read, *self.shards.topics)
        ids = await asyncio.to_thread(topic_ids, self.settings, read)
        with contextlib.suppress(*AWAY_ERRORS):  # the next assignment does it
            await self.tenants.forget_partitions(set(ids.values()))
        fields = {tp: self.topics.field(tp[0], ids[tp[0]], tp[1]) for tp in oldest}
        kept = [tp for tp in oldest if tp[0] != self.topics.examples]
        found = await stored_positions(self.events.store, [fields[tp] for tp in kept])
        learned = {tp: await self.learners.load(fields[tp]) for tp in oldest.keys() - set(kept)}
        # Nothing is awaited from here on: the new assignment begins for all agents at once.
        starts = {tp: ReadStart(mark + 1, next_read()) for tp, mark in learned.items()}
        assigned = {}
        for tp, (mark, witness) in zip(kept, found, strict=True):
            starts[tp] = ReadStart(max(oldest[tp], first_offset(mark, witness)), next_read())
            assigned[tp] = AssignedPartition(fields[tp], mark, starts[tp], witness)
        self.catch_up.is_learner = (self.topics.examples, 0) in oldest
        self.factors.is_learner = self.catch_up.is_learner
        self.challengers.assign(is_learner=self.catch_up.is_learner)
        for agent, topics in self.appliers().items():
            agent.assign({tp: one for tp, one in assigned.items() if tp[0] in topics})
        LAG.clear()  # other workers report the partitions that they have now
        WATERMARK.clear()
        return starts

    def appliers(self) -> dict[AtomicBatches[Any], tuple[str, ...]]:
        """The agents that apply messages in atomic steps, and their topics."""
        topics = self.topics
        return {
            self.events: (topics.clicks, topics.purchases),
            self.metadata: (topics.items, topics.users),
            self.served: (topics.served,),
            **self.shards.appliers,
        }

    async def publish_dead_letters(self, values: Sequence[bytes], key: bytes | None = None) -> None:
        """Produce dead letters; returns when Kafka has acknowledged all."""
        await self._publish(keep_letter, self.topics.dead_letters, values, key)

    async def publish_examples(self, values: Sequence[bytes], key: bytes | None = None) -> None:
        """Produce training examples; returns when Kafka has acknowledged all."""
        await self._publish(offer, self.topics.examples, values, key)

    async def _publish(
        self,
        produce: Callable[[faust.App, str, bytes | None, bytes], Awaitable[None]],
        topic: str,
        values: Sequence[bytes],
        key: bytes | None,
    ) -> None:
        await asyncio.gather(
            *(
                retry_outages(functools.partial(produce, self.app, topic, key, value), AWAY)
                for value in values
            )
        )

    async def apply_events(self, batch: list[Any]) -> None:
        """Bring a batch of events into effect."""
        await self.events.apply(received_messages(batch, self._spans))

    async def apply_records(self, batch: list[Any]) -> None:
        """Bring a batch of metadata into effect."""
        await self.metadata.apply(received_messages(batch, self._spans))

    async def apply_served(self, batch: list[Any]) -> None:
        """Bring a batch of served lists into effect."""
        await self.served.apply(received_messages(batch, self._spans))

    async def learn_examples(self, batch: list[Any]) -> None:
        """Learn a batch of training examples; an invalid one becomes a dead letter."""
        for invalid in await self.learners.learn(received_messages(batch)):
            group = group_of(invalid) or self.settings.group
            rejection = Rejection("invalid", "no training example", invalid.value, group=group)
            await self._dead_letters.put(invalid, rejection)

    async def save_rankers(self) -> None:
        """Save the rankers; waits while Redis is away."""
        await self.learners.save()
        await self.challengers.save()
        self.learners.challengers_serve(self.challengers.serving)

    async def report_progress(self) -> None:
        """Report positions to Kafka and the metrics."""
        await self._check_unreadable()
        applied: dict[Partition, int] = {}
        for agent in self.appliers():
            applied |= {tp: read.applied for tp, read in agent.assignment.reads.items()}
        nexts = {tp: self._log.next_readable(tp, offset + 1) for tp, offset in applied.items()}
        learned = self.topics.examples, 0
        applied[learned] = self.learners.saved
        nexts[learned] = self._log.next_readable(learned, self.learners.saved + 1)
        offsets = nexts | {learned: self.learners.saved + 1}
        lag = 0
        await commit(self.app, {tp: offset for tp, offset in offsets.items() if offset > 0})
        for partition, offset in nexts.items():
            end = self._log.end(partition)
            # Only the worker that has the partition of the examples knows its end.
            if end is not None:
                LAG.labels(*partition).set(max(0, end - offset))
                WATERMARK.labels(*partition).set(applied[partition])
                lag += max(0, end - offset) if partition != learned else 0
        self._lag = lag

    async def look_at_layout(self) -> None:
        """Hold while the group moves to other shards; end once it has, to begin anew on those."""
        group = self.settings.group
        try:
            stored, move = await layout_and_move(self._redis, group)
            if stored is None:
                stored = await fix_layout(self._redis, group, self.settings.shards)
        except AWAY as error:
            LOG.debug("the layout of shards is not known for now: %s", error)
            return
        self.shards.hold(is_held=move is not None and move.is_holding)
        if stored != (self.settings.shards, self.settings.generation) and not self.has_moved:
            LOG.info("group %s is on %d shard(s) from now on", group, stored.shards)
            self.has_moved = True
            # As when somebody asks it to end.
            os.kill(os.getpid(), signal.SIGTERM)

    async def report_memory(self) -> None:
        """Report the memory of Redis to the metrics."""
        self._memory_bytes = await report_memory(self._redis)

    async def report_figures(self) -> None:
        """Add to the key figures of the present minute and hour."""
        newest = {} if math.isnan(self._memory_bytes) else {"memory": self._memory_bytes}
        quality = self.learners.take_sums()
        await self._figures.write(now_s=time.time(), more=quality, lag=self._lag, newest=newest)

    async def report_itself(self) -> None:
        """Say that this worker is running, and which partitions it has."""
        partitions: dict[str, list[int]] = {}
        for agent in self.appliers():
            for topic, number in sorted(agent.assignment.reads):
                partitions.setdefault(topic, []).append(number)
        if self.catch_up.is_learner:
            partitions[self.topics.examples] = [0]
        worker = RunningWorker(self._name, self._started_at, time.time(), partitions, self._lag)
        try:
            await report_worker(self._redis, self.settings.group, worker)
        except AWAY as error:
            LOG.warning("this worker is not listed for now: %s", error)

    async def guard_experiments(self) -> None:
        """End arms of experiments that do harm; one worker does, that which learns."""
        if not self.catch_up.is_learner or not self.settings.outcomes:
            return
        try:
            await guard_experiments(self.events.store, self._write_entry, now_s=time.time())
        except AWAY as error:
            LOG.warning("experiments are not guarded for now: %s", error)

    async def _write_entry(self, entry: AuditEntry) -> None:
        await asyncio.to_thread(self._audit_log.write, entry)

    async def _check_unreadable(self) -> None:
        """Report partitions that stand still at an unreadable message, and try them again."""
        found = []
        for error in self._log.unreadable():
            if error.topic == self.topics.examples:
                # Examples are a sample: learning goes on without the unreadable ones.
                letter = of_unreadable(error, now_s=time.time())
                await self.publish_dead_letters([letter])
                start = ReadStart(error.last + 1, next_read())
                await self._log.seek({(error.topic, error.partition): start})
            else:
                found.append(error)
        due = await self._standstill.update(found, now_s=time.time())
        partitions = {(error.topic, error.partition) for error in due}
        for agent in self.appliers():
            agent.reread(partitions)

    async def close(self, *_: object, **__: object) -> None:
        """Close the connections to Redis, and send the spans that wait."""
        self.challengers.close()
        await self._recommenders.close()
        await self._redis.aclose()
        await asyncio.to_thread(self._audit_log.close)
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)


def worker_app(settings: Settings, *, ready: Callable[[], None] | None = None) -> faust.App:
    """The Faust app of a `Worker` with these settings, not started."""
    return app_of(Worker(settings), ready=ready)


def app_of(worker: Worker, *, ready: Callable[[], None] | None = None) -> faust.App:
    """A worker's Faust app, not started: applies events and metadata, and learns rankers.

    It may be killed at any point: its positions are in the store. `ready` is called after each
    assignment, once Redis has answered where to read on.
    """
    settings = worker.settings
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
    add_agent(app, (topics.served,), worker.apply_served, name="served", limit=limit)
    add_agent(app, (topics.examples,), worker.learn_examples, name="ranker", limit=limit)
    worker.shards.add_agents(limit)
    app.timer(COMMIT_EVERY_S)(worker.report_progress)
    # Each by itself: where the rankers are may be away while shards are not, and events may wait
    # for the numbers of items, which come once the agent of deltas has read again.
    app.timer(COMMIT_EVERY_S)(worker.save_rankers)
    for agent in worker.appliers():
        app.timer(COMMIT_EVERY_S)(agent.detect_losses)
    app.timer(LOOK_EVERY_S)(worker.look_at_layout)
    app.timer(MEMORY_EVERY_S)(worker.report_memory)
    app.timer(GUARD_EVERY_S)(worker.guard_experiments)
    app.timer(WRITE_EVERY_S)(worker.report_figures)
    app.timer(WRITE_EVERY_S)(worker.report_itself)
    app.task(worker.catch_up.run)
    app.task(worker.factors.run)
    app.on_before_shutdown.connect(worker.close)
    return app


def _figure_totals() -> dict[str, float]:
    """Totals of this process, by the names of the key figures' sums."""
    return {
        **bucket_totals("fresh", FRESHNESS.collect()),
        "events": counter_total(APPLIED.collect(), "outcome", "applied"),
        "dead": sum(counter_total(one.collect(), "outcome", "dead") for one in (APPLIED, RECORDS)),
    }


def _step_spans(settings: Settings, consumer_group: str) -> StepSpans | None:
    traces = traces_of(settings, "worker")
    if traces is None:
        return None
    from streams.agents.step_spans import StepSpans  # noqa: PLC0415  it loads an extra

    return StepSpans(traces, consumer_group)
