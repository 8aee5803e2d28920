"""A worker's part for a group of several shards: both hops, and the outboxes between them.

For a group of one shard there is nothing here: the event agent writes to its store.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from typing import Any

import faust
from prometheus_client import Gauge

from models.state.catalogue.metadata import RecordEntry
from models.state.messages import StoredMessage
from models.state.operations.shard_figures import read_shard_figures
from models.state.shards.at_once import at_once
from models.state.shards.shard_names import ShardKind, shard_name
from models.state.shards.sharded_steps import ShardedSteps
from models.state.tenants import Tenants
from streams.agents.atomic_batches import AtomicBatches
from streams.agents.contracts import Publish, StepObserver, StepWriter
from streams.agents.received import received_messages
from streams.agents.shards.deltas import delta_agent
from streams.agents.shards.hot_lists import SPLIT, split_hot_lists
from streams.agents.shards.outboxes import LOOK_EVERY_S, Outboxes
from streams.agents.shards.sharded_events import LearningAhead, ShardedEventWriter
from streams.agents.shards.sharded_records import ShardedRecordWriter
from streams.kafka.consuming.assignment import PartitionLog
from streams.kafka.faust_clients.faust_app import add_agent
from streams.kafka.faust_clients.faust_producing import produce
from streams.kafka.topics import Topics
from streams.retry_policy import AWAY, retry_outages

LOG = logging.getLogger(__name__)

FIGURES_EVERY_S = 60.0
HOT_EVERY_S = 30.0

KINDS: tuple[ShardKind, ...] = ("u", "i")

KEYS = Gauge("recommender_shard_keys", "Keys of a shard, about", ["shard"])
BYTES = Gauge("recommender_shard_memory_bytes", "Memory of a shard's keys, about", ["shard"])


class WorkerShards:
    """The agents of deltas of a worker process, and the writer of its event agent.

    Attributes
    ----------
    topics
        Those of deltas; empty for a group of one shard.
    event_writer, record_writer
        Write events to the session shards, and metadata to all; None for a group of one shard.
    appliers
        The agents, and their topics.
    """

    def __init__(
        self,
        tenants: Tenants,
        app: faust.App,
        log: PartitionLog,
        *,
        publish_dead_letters: Publish,
    ) -> None:
        settings = tenants.settings
        self._app = app
        self._all_topics = Topics.of(settings)
        self.topics = self._all_topics.deltas(settings.shards)
        self.event_writer: StepWriter[StoredMessage] | None = None
        self.appliers: dict[AtomicBatches[Any], tuple[str, ...]] = {}
        self.record_writer: StepWriter[RecordEntry] | None = None
        self._writers: list[ShardedEventWriter | ShardedRecordWriter] = []
        if settings.shards == 1:
            return
        steps = ShardedSteps(tenants.redis, settings, shards=settings.shards)
        self._steps = steps
        self._events = ShardedEventWriter(steps, self.publish, time.time)
        records = ShardedRecordWriter(steps, self.publish)
        self.event_writer, self.record_writer = self._events, records
        self._writers = [self._events, records]
        self._sessions, self._items = (
            delta_agent(
                kind,
                tenants,
                steps,
                publish=publish_dead_letters,
                publish_deltas=self.publish,
                log=log,
                clock=time.time,
            )
            for kind in KINDS
        )
        self.appliers = {self._sessions: self.topics[:1], self._items: self.topics[1:]}
        self._outboxes = Outboxes(steps, self.publish)
        self._store = tenants.store(settings.group)

    def observer(self, observer: StepObserver[StoredMessage]) -> StepObserver[StoredMessage]:
        """The observer of steps of events; of several shards, names are learned meanwhile."""
        return LearningAhead(observer, self._events) if self._writers else observer

    def add_agents(self, limit: int) -> None:
        """Add the agents and the timer to the app, if there are any."""
        for name, (agent, topics) in zip(("links", "deltas"), self.appliers.items(), strict=False):

            async def apply(batch: list[Any], agent: AtomicBatches[Any] = agent) -> None:
                await agent.apply(received_messages(batch))

            add_agent(self._app, topics, apply, name=name, limit=limit)
        if self.appliers:
            self._app.timer(LOOK_EVERY_S)(self.look_into_outboxes)
            self._app.timer(FIGURES_EVERY_S)(self.report_figures)
            self._app.timer(HOT_EVERY_S)(self.split_hot_lists)

    def hold(self, *, is_held: bool) -> None:
        """Apply nothing new, or do again; what is between shards goes on. Of one shard, nothing."""
        for writer in self._writers:
            writer.is_held = is_held

    async def look_into_outboxes(self) -> None:
        """Look after the outboxes of the session shards whose deltas this worker applies."""
        await self._outboxes.look({number for _, number in self._sessions.assignment.reads})

    async def split_hot_lists(self) -> None:
        """Look for items too hot for a shard, if this worker applies the first one's deltas."""
        if any(number == 0 for _, number in self._items.assignment.reads):
            await split_hot_lists(self._steps, now_s=time.time())
        else:
            SPLIT.set(0)  # another worker reports them

    async def report_figures(self) -> None:
        """Report keys and memory of the shards whose deltas this worker applies."""
        own = {
            shard_name(kind, number)
            for kind, agent in zip(KINDS, self.appliers, strict=True)
            for _, number in agent.assignment.reads
        }
        KEYS.clear()
        BYTES.clear()
        if not own:
            return
        try:
            found = await read_shard_figures(self._store, own)
        except AWAY as error:
            LOG.warning("the memory of shards is not known: %s", error)
            return
        for one in found:
            KEYS.labels(one.name).set(one.keys)
            BYTES.labels(one.name).set(one.bytes)

    async def publish(self, values: Sequence[tuple[str, bytes]]) -> None:
        """Produce values to shards, each to its partition; ends when Kafka has acknowledged all."""
        topics = {"u": self._all_topics.session_deltas, "i": self._all_topics.item_deltas}
        await at_once(
            (
                retry_outages(
                    functools.partial(
                        produce, self._app, topics[name[0]], None, value, int(name[1:])
                    ),
                    AWAY,
                )
                for name, value in values
            )
        )
