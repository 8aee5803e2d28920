"""Workers of one agent on a real Redis and a simulated broker, for tests of either agent."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from models.state.catalogue.metadata import item_properties
from models.state.messages import StoredMessage
from models.state.store import Store
from models.state.tenants import Tenants
from streams.agents.atomic_batches import AtomicBatches
from streams.agents.contracts import StepObserver
from streams.agents.events import event_agent
from streams.agents.metadata import metadata_agent
from streams.agents.rewinds import AssignedPartition, stored_positions
from streams.kafka.consuming.assignment import Partition, ReadStart, first_offset, next_read
from streams.kafka.dead_letters import DeadLetter
from tests.streams.agents.simulated_kafka import SimulatedKafka

NOW_S = 1.8e9


class AgentWorker(ABC):
    """An agent, its partitions in a simulated Kafka, and the dead letters that it has produced."""

    first: ClassVar[Partition]
    second: ClassVar[Partition]

    def __init__(self, tenants: Tenants) -> None:
        self.tenants = tenants
        self.kafka = SimulatedKafka()
        self.letters: list[DeadLetter] = []
        self.keys: set[bytes | None] = set()
        self.agent: AtomicBatches[Any] = self.new_agent()

    @abstractmethod
    def new_agent(self) -> AtomicBatches[Any]:
        """The agent under test."""

    @abstractmethod
    def encode(self, partition: Partition, name: str) -> bytes:
        """A valid message whose effect `n_in_effect` counts once."""

    @abstractmethod
    async def n_in_effect(self) -> int:
        """Number of messages of `encode` that are in effect."""

    async def publish(self, values: Sequence[bytes], key: bytes | None) -> None:
        """Keep dead letters, as Kafka would."""
        self.keys.add(key)
        self.letters.extend(msgspec.json.decode(value, type=DeadLetter) for value in values)

    async def assign(self, *partitions: Partition) -> None:
        """Assign partitions, to be read on from the store's positions."""
        fields = [f"{topic}/{number}" for topic, number in partitions]
        found = await stored_positions(self.agent.store, fields)
        assigned = {}
        for tp, field, (mark, witness) in zip(partitions, fields, found, strict=True):
            offset = max(self.kafka.of(tp).oldest, first_offset(mark, witness))
            start = ReadStart(offset, next_read())
            assigned[tp] = AssignedPartition(field, mark, start, witness)
        self.agent.assign(assigned)
        self.kafka.assign({tp: one.start for tp, one in assigned.items()})

    def send(self, partition: Partition, *names: str | bytes) -> None:
        """Append a valid message for each name to a partition, or bytes as they are."""
        for name in names:
            raw = name if isinstance(name, bytes) else self.encode(partition, name)
            self.kafka.append(partition, raw, self.key(name))

    def key(self, name: str | bytes) -> bytes:  # noqa: ARG002
        """Key of a message."""
        return b"key"

    async def read(self, *partitions: Partition) -> None:
        """Apply everything that lies ahead in these partitions, as one batch."""
        await self.agent.apply(self.kafka.read(*partitions))

    async def watermarks(self) -> list[int]:
        """The store's watermark of both partitions."""
        return await self.agent.store.watermarks(
            [f"{topic}/{number}" for topic, number in (self.first, self.second)]
        )

    async def in_effect(self) -> tuple[int, list[int]]:
        """Number of messages in effect, and the watermark of both partitions."""
        return await self.n_in_effect(), await self.watermarks()


class EventWorker(AgentWorker):
    """A worker of the event agent, whose messages are clicks of one session per partition."""

    first, second = ("clicks", 0), ("clicks", 1)

    def __init__(
        self,
        tenants: Tenants,
        *,
        clock: Callable[[], float] = lambda: NOW_S,
        observer: StepObserver[StoredMessage] | None = None,
    ) -> None:
        self._clock, self._observer = clock, observer
        super().__init__(tenants)

    def new_agent(self) -> AtomicBatches[Any]:
        """The event agent."""
        return event_agent(
            self.tenants,
            publish=self.publish,
            log=self.kafka,
            clock=self._clock,
            observer=self._observer,
        )

    def encode(self, partition: Partition, name: str, tracking_id: str = "shop") -> bytes:
        """A click on an item of this name."""
        at_s = 1.7e9 + len(self.kafka.of(partition).records)
        event = {"eventType": "click", "itemId": name, "sentAt": at_s}
        message = {
            "trackingId": tracking_id,
            "sessionId": f"s{partition[1]}",
            "eventList": [event],
        }
        return json.dumps(message).encode()

    def click(self, tracking_id: str, *items: str) -> None:
        """Append a click on each item, of the group with this tracking id."""
        for item in items:
            self.send(self.first, self.encode(self.first, item, tracking_id))

    async def n_in_effect(self, group: str = "shop") -> int:
        """Number of a group's events that are in effect."""
        return int((await self.tenants.store(group).counts()).get("events", 0))

    async def in_effect(self, group: str = "shop") -> tuple[int, list[int]]:
        """Number of a group's events in effect, and the watermark of both partitions."""
        return await self.n_in_effect(group), await self.watermarks()


class MetadataWorker(AgentWorker):
    """A worker of the metadata agent, whose messages are records of one item each."""

    first, second = ("items", 0), ("items", 1)

    def __init__(self, tenants: Tenants) -> None:
        self._names: set[str] = set()
        super().__init__(tenants)

    def new_agent(self) -> AtomicBatches[Any]:
        """The metadata agent."""
        return metadata_agent(
            self.tenants, publish=self.publish, log=self.kafka, clock=lambda: NOW_S
        )

    def key(self, name: str | bytes) -> bytes:
        """The record's key; of bytes that are no record, any."""
        return b"key" if isinstance(name, bytes) else f"shop/{name}".encode()

    def encode(self, partition: Partition, name: str) -> bytes:  # noqa: ARG002
        """A record of an item of this name."""
        self._names.add(name)
        return record("items", name, {"N": 1})

    async def n_in_effect(self) -> int:
        """Number of items that have a record."""
        found = await item_properties(self.agent.store, sorted(self._names))
        return sum(one is not None for one in found)


def record(kind: str, name: str, properties: Any, *, group: str = "shop", at: float = 1.0) -> bytes:
    """A metadata record as JSON text."""
    member = "itemId" if kind == "items" else "userId"
    value = {"group": group, member: name, "properties": properties, "at": 1.79e9 - 100 + at}
    return json.dumps(value).encode()


async def snapshot(store: Store) -> dict[bytes, bytes]:
    """Everything in Redis."""
    return {key: await store.redis.dump(key) for key in await store.redis.keys()}


async def restore(store: Store, kept: Mapping[bytes, bytes]) -> None:
    """Put Redis back to a snapshot."""
    await store.redis.flushdb()
    for key, value in kept.items():
        await store.redis.restore(key, 0, value)
