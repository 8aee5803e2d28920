"""A worker process of a simulated broker, with faults between any two commands to Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.settings import Settings
from models.state.clients.batched_reads import BatchingClient
from models.state.messages import StoredMessage
from models.state.store import Store
from models.state.tenants import Tenants
from streams.agents.events import event_agent
from streams.agents.rewinds import AssignedPartition, stored_positions
from streams.kafka.consuming.assignment import Partition, ReadStart, first_offset, next_read
from streams.kafka.dead_letters import DeadLetter
from tests.streams.agents.simulated_kafka import SimulatedKafka

NOW_S = 1_790_000_000

Action = Callable[[], Awaitable[None]]


class FaultyClient(BatchingClient):
    """A client of Redis that runs an action between two of its commands."""

    after: int = -1
    action: Action | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command, after the action if this is the chosen one."""
        if self.action is not None:
            self.after -= 1
            if self.after < 0:
                action, self.action = self.action, None
                await action()
        return await super().execute_command(*args, **options)


class CommandBeforeStep:
    """A `StepObserver` that sends Redis a command: an occasion for a fault before the write."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def before_step(self, messages: Sequence[StoredMessage]) -> Callable[[], None]:  # noqa: ARG002
        """Ask Redis for something."""
        await self._client.exists("nothing")
        return lambda: None


class Worker:
    """One worker process: an agent, and the partitions that the broker thinks it has."""

    def __init__(self, url: str, options: Settings, kafka: SimulatedKafka) -> None:
        self.client: Any = FaultyClient.from_url(
            url, retry=Retry(NoBackoff(), 1), socket_timeout=10
        )
        self.tenants = Tenants(self.client, options)
        self.kafka = kafka
        self.dead_lettered: list[int] = []
        self.agent = event_agent(
            self.tenants,
            publish=self.publish,
            log=kafka,
            clock=lambda: NOW_S,
            observer=CommandBeforeStep(self.client),
        )

    async def publish(self, values: Sequence[bytes], _: bytes | None) -> None:
        """Record the offsets of dead letters."""
        letters = [msgspec.json.decode(value, type=DeadLetter) for value in values]
        self.dead_lettered += [letter.source.offset for letter in letters]

    async def assign(self, partitions: Sequence[Partition]) -> None:
        """Assign partitions at the store's positions, as a worker does after a rebalance."""
        store = self.agent.store
        fields = [f"{topic}/{number}" for topic, number in partitions]
        found = await stored_positions(store, fields)
        assigned = {}
        for partition, name, (mark, witness) in zip(partitions, fields, found, strict=True):
            start = ReadStart(first_offset(mark, witness), next_read())
            assigned[partition] = AssignedPartition(name, mark, start, witness)
        self.agent.assign(assigned)
        self.kafka.assign({partition: one.start for partition, one in assigned.items()})

    async def close(self) -> None:
        """Close the connection to Redis."""
        await self.client.aclose()


async def events_by_item(store: Store) -> dict[str, int]:
    """Number of counted events of each item."""
    items = await store.redis.hgetall(store.key("items"))
    pages: dict[int, bytes] = {}
    found = {}
    for name, raw in items.items():
        page, place = divmod(int(raw), 64)
        if page not in pages:
            pages[page] = await store.redis.get(store.key(f"stats:{page}")) or b""
        found[name.decode()] = int.from_bytes(pages[page][48 * place : 48 * place + 4], "little")
    return {name: n for name, n in found.items() if n}
