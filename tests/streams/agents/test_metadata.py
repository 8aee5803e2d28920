"""The metadata agent on a real Redis: what it takes in, what it buries, what it goes back to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from models.metadata_records import MAX_RECORD_BYTES
from models.serving.tenants import Tenants
from models.settings import Settings
from models.state.metadata import item_properties, user_properties
from models.state.store import connect
from ops.embedded_servers import start_redis
from streams.agents.atomic_batches import Assigned, places
from streams.agents.metadata import MetadataAgent
from streams.kafka.assignment import Partition, ReadStart, first_offset, next_read
from streams.kafka.dead_letters import DeadLetter
from tests.streams.agents.simulated_kafka import SimulatedKafka

ITEMS, USERS = ("items", 0), ("users", 0)
NOW_S = 1.79e9


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@dataclass
class Worker:
    """An agent whose records a test hands over, as Kafka would from the position it asked for."""

    agent: MetadataAgent
    kafka: SimulatedKafka
    letters: list[DeadLetter] = field(default_factory=list)

    async def assign(self) -> None:
        """Give it both partitions, to read on where the store is."""
        fields = ["items/0", "users/0"]
        found = await places(self.agent.store, fields)
        assigned = {}
        for tp, name, (mark, witness) in zip((ITEMS, USERS), fields, found, strict=True):
            start = ReadStart(first_offset(mark, witness), next_read())
            assigned[tp] = Assigned(name, mark, start, witness)
        self.agent.assigned(assigned)
        self.kafka.assign({tp: one.start for tp, one in assigned.items()})

    def send(
        self, topic: Partition, name: str, properties: Any, *, group: str = "shop", at: float = 1
    ) -> None:
        """Add a record; a removal without properties."""
        member = "itemId" if topic == ITEMS else "userId"
        value = {"group": group, member: name, "properties": properties, "at": NOW_S - 100 + at}
        raw = b"" if properties is None else json.dumps(value).encode()
        self.kafka.append(topic, raw, f"{group}/{name}".encode())

    async def read(self) -> None:
        """Hand over what lies beyond its positions, as one batch."""
        await self.agent.apply(self.kafka.read(ITEMS, USERS))

    async def items(self, *names: str, group: str = "shop") -> list[Any]:
        """What is known of items."""
        return await item_properties(self.agent.tenants.store(group), names)


def worker_of(tenants: Tenants) -> Worker:
    """A worker on these tenants."""

    async def publish(_: str, values: Sequence[bytes], __: bytes | None) -> None:
        one.letters.extend(msgspec.json.decode(value, type=DeadLetter) for value in values)

    kafka = SimulatedKafka()
    one = Worker(MetadataAgent(tenants, publish=publish, log=kafka, clock=lambda: NOW_S), kafka)
    return one


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Worker]:
    """A worker on an empty store."""
    tenants = Tenants(connect(redis_url), Settings(cache_s=0))
    await tenants.redis.flushdb()
    one = worker_of(tenants)
    await one.assign()
    yield one
    await tenants.redis.aclose()


async def test_records_of_several_groups(worker: Worker) -> None:
    """Each group gets its own, items and users, in one batch."""
    await worker.agent.tenants.create("books")
    worker.send(ITEMS, "i", {"N": 1})
    worker.send(ITEMS, "i", {"N": 2}, group="books")
    worker.send(USERS, "ada", {"AGE": 36}, group="books")
    await worker.read()

    assert await worker.items("i") == [{"N": 1}]
    assert await worker.items("i", group="books") == [{"N": 2}]
    books = worker.agent.tenants.store("books")
    assert await user_properties(books, "ada") == {"AGE": 36}
    assert await user_properties(worker.agent.store, "ada") is None
    assert worker.letters == []


async def test_bad_records_are_buried_in_the_name_of_their_group(worker: Worker) -> None:
    """Whatever is wrong with one, the others take effect and the watermark moves on."""
    bad = [
        (b"shop/i", b"{bad"),
        (b"shop/i", b"x" * (MAX_RECORD_BYTES + 1)),
        (b"\xff", b""),
        (b"", b"\xff\xfe"),
    ]
    for key, value in bad:
        worker.kafka.append(ITEMS, value, key)
    worker.send(ITEMS, "i", {"N": [1]}, group="books")
    worker.send(ITEMS, "i", {"N": 1}, group="nowhere")
    worker.send(ITEMS, "i", {"N": 1})
    await worker.read()

    assert await worker.items("i") == [{"N": 1}]
    assert await worker.agent.store.watermarks(["items/0"]) == [6]
    assert [(letter.stage, letter.reason, letter.group) for letter in worker.letters] == [
        ("metadata", "invalid", group)
        for group in ("shop", "shop", "\N{REPLACEMENT CHARACTER}", "", "books", "nowhere")
    ]
    assert "unknown group 'nowhere'" in worker.letters[-1].detail


async def test_too_many_are_buried(redis_url: str) -> None:
    """One item or user beyond the limit is a dead letter; those there are can change."""
    tenants = Tenants(connect(redis_url), Settings(cache_s=0, max_items=1, max_users=1))
    await tenants.redis.flushdb()
    worker = worker_of(tenants)
    await worker.assign()
    for topic in (ITEMS, USERS):
        for name, n in (("a", 1), ("b", 2), ("a", 3)):
            worker.send(topic, name, {"N": n}, at=n)
    await worker.read()

    assert await worker.items("a", "b") == [{"N": 3}, None]
    assert await user_properties(worker.agent.store, "a") == {"N": 3}
    assert [(letter.reason, letter.source.offset) for letter in worker.letters] == [
        ("catalogue-full", 1)
    ] * 2
    await tenants.redis.aclose()


async def test_removal_and_record_in_the_order_of_the_topic(worker: Worker) -> None:
    """A removal takes what came before it, and nothing of what comes after."""
    worker.send(USERS, "ada", {"AGE": 36})
    worker.send(USERS, "ada", None)
    worker.send(USERS, "bob", None)
    worker.send(USERS, "bob", {"AGE": 7})
    await worker.read()

    assert await user_properties(worker.agent.store, "ada") is None
    assert await user_properties(worker.agent.store, "bob") == {"AGE": 7}


async def test_a_worker_goes_on_where_another_stopped(worker: Worker) -> None:
    """The state says how far it is; what is handed over again changes nothing."""
    for n in range(250):
        worker.send(ITEMS, f"i{n % 60}", {"N": n}, at=n / 10)
    await worker.read()
    counts = await worker.agent.store.counts()

    other = worker_of(worker.agent.tenants)
    other.kafka.partitions = worker.kafka.partitions
    await other.assign()
    assert other.kafka.of(ITEMS).position == 249
    other.kafka.of(ITEMS).position = 0
    await other.read()

    assert await worker.agent.store.counts() == counts
    assert await other.items("i0", "i59") == [{"N": 240}, {"N": 239}]


async def test_what_redis_lost_is_read_again(worker: Worker) -> None:
    """Records that Redis forgot come back, also where nothing new arrives."""
    worker.send(ITEMS, "a", {"N": 1})
    worker.send(USERS, "ada", {"AGE": 36})
    await worker.read()
    await worker.agent.store.redis.flushdb()
    await worker.agent.look_after()
    worker.send(ITEMS, "b", {"N": 2})
    await worker.read()

    assert await worker.items("a", "b") == [{"N": 1}, {"N": 2}]
    assert await user_properties(worker.agent.store, "ada") == {"AGE": 36}
    assert await worker.agent.store.watermarks(["items/0", "users/0"]) == [1, 0]
