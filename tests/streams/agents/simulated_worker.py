"""A worker process of a simulated broker, to which something happens between any two commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.serving.tenants import Tenants
from models.settings import Settings
from models.state.batched_reads import BatchingClient
from models.state.store import Store
from streams.agents.atomic_batches import Assigned, places
from streams.agents.events import EventAgent
from streams.kafka.assignment import Partition, ReadStart, first_offset, next_read
from streams.kafka.dead_letters import DeadLetter
from tests.streams.agents.simulated_kafka import SimulatedKafka

NOW_S = 1_790_000_000

Action = Callable[[], Awaitable[None]]


class Struck(BatchingClient):
    """A client of Redis that lets something happen between two of its commands."""

    after: int = -1
    action: Action | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Do what the client does; at the chosen command, let it happen before."""
        if self.action is not None:
            self.after -= 1
            if self.after < 0:
                action, self.action = self.action, None
                await action()
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class Waiting(EventAgent):
    """The agent, which asks Redis for something between the arrival of a batch and its step."""

    async def _examples(self, *_: object) -> dict[str, list[bytes]]:
        await self.store.redis.exists("nothing")
        return {}


class Worker:
    """One worker process: an agent, and the partitions that the broker thinks it has."""

    def __init__(self, url: str, options: Settings, kafka: SimulatedKafka) -> None:
        self.client: Any = Struck.from_url(url, retry=Retry(NoBackoff(), 1), socket_timeout=10)
        self.tenants = Tenants(self.client, options)
        self.kafka = kafka
        self.buried: list[int] = []
        self.sessions = Waiting(self.tenants, publish=self.publish, log=kafka, clock=lambda: NOW_S)

    async def publish(self, _: str, values: Sequence[bytes], __: bytes | None) -> None:
        """Keep dead letters."""
        letters = [msgspec.json.decode(value, type=DeadLetter) for value in values]
        self.buried += [letter.source.offset for letter in letters]

    async def assign(self, partitions: Sequence[Partition]) -> None:
        """Begin where the store is, as a worker does at an assignment."""
        store = self.sessions.store
        fields = [f"{topic}/{number}" for topic, number in partitions]
        found = await places(store, fields)
        assigned = {}
        for partition, name, (mark, witness) in zip(partitions, fields, found, strict=True):
            start = ReadStart(first_offset(mark, witness), next_read())
            assigned[partition] = Assigned(name, mark, start, witness)
        self.sessions.assigned(assigned)
        self.kafka.assign({partition: one.start for partition, one in assigned.items()})

    async def close(self) -> None:
        """Let go of Redis."""
        await self.client.aclose()


async def events_by_item(store: Store) -> dict[str, int]:
    """How often each item is counted."""
    items = await store.redis.hgetall(store.key("items"))
    pages: dict[int, bytes] = {}
    found = {}
    for name, raw in items.items():
        page, place = divmod(int(raw), 64)
        if page not in pages:
            pages[page] = await store.redis.get(store.key(f"stats:{page}")) or b""
        found[name.decode()] = int.from_bytes(pages[page][48 * place : 48 * place + 4], "little")
    return {name: n for name, n in found.items() if n}
