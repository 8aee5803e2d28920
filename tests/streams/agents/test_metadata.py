"""The metadata agent on a real Redis: groups, removals, limits and dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from models.metadata_records import MAX_RECORD_BYTES
from models.settings import Settings
from models.state.catalogue.metadata import item_properties, user_properties
from models.state.clients.client import connect
from models.state.tenants import Tenants
from streams.kafka.consuming.assignment import Partition
from tests.streams.agents.agent_fixtures import MetadataWorker, record

ITEMS, USERS = ("items", 0), ("users", 0)


class Worker(MetadataWorker):
    """A worker of a partition of items and one of users."""

    first, second = ITEMS, USERS

    def put(
        self, topic: Partition, name: str, properties: Any, *, group: str = "shop", at: float = 1
    ) -> None:
        """Append a record; its removal without properties."""
        raw = b"" if properties is None else record(topic[0], name, properties, group=group, at=at)
        self.kafka.append(topic, raw, f"{group}/{name}".encode())

    async def items(self, *names: str, group: str = "shop") -> list[Any]:
        """Properties of items, None for those without a record."""
        return await item_properties(self.tenants.store(group), names)


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Worker]:
    """A worker on an empty store."""
    tenants = Tenants(connect(redis_url), Settings(cache_s=0))
    await tenants.redis.flushdb()
    one = Worker(tenants)
    await one.assign(ITEMS, USERS)
    yield one
    await tenants.redis.aclose()


async def test_records_of_several_groups(worker: Worker) -> None:
    """One batch applies each group's items and users to that group."""
    await worker.tenants.create("books")
    worker.put(ITEMS, "i", {"N": 1})
    worker.put(ITEMS, "i", {"N": 2}, group="books")
    worker.put(USERS, "ada", {"AGE": 36}, group="books")
    await worker.read(ITEMS, USERS)

    assert await worker.items("i") == [{"N": 1}]
    assert await worker.items("i", group="books") == [{"N": 2}]
    books = worker.tenants.store("books")
    assert await user_properties(books, "ada") == {"AGE": 36}
    assert await user_properties(worker.agent.store, "ada") is None
    assert worker.letters == []


async def test_invalid_records_are_dead_letters_of_their_group(worker: Worker) -> None:
    """The others take effect, and the watermark moves past all."""
    bad = [
        (b"shop/i", b"{bad"),
        (b"shop/i", b"x" * (MAX_RECORD_BYTES + 1)),
        (b"\xff", b""),
        (b"", b"\xff\xfe"),
    ]
    for key, value in bad:
        worker.kafka.append(ITEMS, value, key)
    worker.put(ITEMS, "i", {"N": [1]}, group="books")
    worker.put(ITEMS, "i", {"N": 1}, group="nowhere")
    worker.put(ITEMS, "i", {"N": 1})
    await worker.read(ITEMS, USERS)

    assert await worker.items("i") == [{"N": 1}]
    assert await worker.agent.store.watermarks(["items/0"]) == [6]
    assert [(letter.stage, letter.reason, letter.group) for letter in worker.letters] == [
        ("metadata", "invalid", group)
        for group in ("shop", "shop", "\N{REPLACEMENT CHARACTER}", "", "books", "nowhere")
    ]
    assert "unknown group 'nowhere'" in worker.letters[-1].detail


async def test_records_beyond_the_limit_are_dead_letters(redis_url: str) -> None:
    """Existing items and users can still change."""
    tenants = Tenants(connect(redis_url), Settings(cache_s=0, max_items=1, max_users=1))
    await tenants.redis.flushdb()
    worker = Worker(tenants)
    await worker.assign(ITEMS, USERS)
    for topic in (ITEMS, USERS):
        for name, n in (("a", 1), ("b", 2), ("a", 3)):
            worker.put(topic, name, {"N": n}, at=n)
    await worker.read(ITEMS, USERS)

    assert await worker.items("a", "b") == [{"N": 3}, None]
    assert await user_properties(worker.agent.store, "a") == {"N": 3}
    assert [(letter.reason, letter.source.offset) for letter in worker.letters] == [
        ("catalogue-full", 1)
    ] * 2
    await tenants.redis.aclose()


async def test_removal_and_record_in_the_order_of_the_topic(worker: Worker) -> None:
    """A removal affects earlier records only."""
    worker.put(USERS, "ada", {"AGE": 36})
    worker.put(USERS, "ada", None)
    worker.put(USERS, "bob", None)
    worker.put(USERS, "bob", {"AGE": 7})
    await worker.read(ITEMS, USERS)

    assert await user_properties(worker.agent.store, "ada") is None
    assert await user_properties(worker.agent.store, "bob") == {"AGE": 7}


async def test_a_worker_resumes_at_the_stored_position(worker: Worker) -> None:
    """Messages that are delivered again change nothing."""
    for n in range(250):
        worker.put(ITEMS, f"i{n % 60}", {"N": n}, at=n / 10)
    await worker.read(ITEMS, USERS)
    counts = await worker.agent.store.counts()

    other = Worker(worker.tenants)
    other.kafka.partitions = worker.kafka.partitions
    await other.assign(ITEMS, USERS)
    assert other.kafka.of(ITEMS).position == 249
    other.kafka.of(ITEMS).position = 0
    await other.read(ITEMS, USERS)

    assert await worker.agent.store.counts() == counts
    assert await other.items("i0", "i59") == [{"N": 240}, {"N": 239}]
