"""Memory by families of keys, at a bounded cost, and warnings about limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from models.settings import Settings
from models.state.catalogue.metadata import put_items, put_users
from models.state.clients.client import connect
from models.state.messages import Part
from models.state.operations import memory
from models.state.operations.memory import read_families, read_memory, risks, shortages
from models.state.outcomes.served_lists import log_served
from models.state.store import Store
from ops.embedded_servers import start_redis
from tests.models.state.reference import NOW, click, message


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Store]:
    """A store on a server of its own."""
    server = start_redis(tmp_path)
    one = Store(connect(server.url), Settings())
    yield one
    await one.redis.aclose()
    server.stop()


async def test_families_are_estimated(alone: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact if all keys are sampled, close otherwise, and as cheap with many keys."""
    clicks = [
        message(n, click(f"i{n % 50}", n), click(f"i{n % 7}", 1000 + n), user=f"u{n}")
        for n in range(300)
    ]
    await alone.apply([Part("c/0", -1, clicks)], now_s=NOW)
    await put_items(alone, [("i1", {"CATEGORY": "red"})], now_s=NOW)
    await put_users(alone, [("ada", {"AGE": 36})], NOW)
    await log_served(alone, {"r": ["i1"]}, ["i1"], now_s=NOW)
    await alone.redis.set("somebody-elses", "x" * 1000)

    whole = await read_families(alone)
    counted = {name: family.keys for name, family in whole.items()}
    for name, n in {"history": 300, "pairs": 50, "takers": 50, "items": 1, "served": 2}.items():
        assert counted[name] == n, name
    assert {"stats", "owners", "ids", "counts", "users", "tried", "category", "other"} <= set(
        counted
    )
    assert sum(counted.values()) == await alone.redis.dbsize()
    total = sum([int(await alone.redis.memory_usage(key)) async for key in alone.redis.scan_iter()])
    assert 0.8 * total < sum(family.bytes for family in whole.values()) < 1.2 * total
    assert list(whole.values()) == sorted(whole.values(), key=lambda one: -one.bytes)

    monkeypatch.setattr(memory, "SCANNED", 1000)
    async with alone.redis.pipeline(transaction=False) as pipe:
        for n in range(20_000):
            pipe.set(f"{{shop}}:history:u:more{n}", b"x" * 500)
        await pipe.execute()
    before = (await alone.redis.info("stats"))["total_commands_processed"]
    sampled = await read_families(alone)
    asked = (await alone.redis.info("stats"))["total_commands_processed"] - before
    assert asked < 500
    assert 18_000 < sampled["history"].keys < 22_000
    assert 0.7 < sampled["history"].bytes / (20_000 * 600) < 1.5
    assert sampled["items"].keys == 1


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_an_eviction_policy_is_a_risk(alone: Store, policy: str) -> None:
    """Whatever the limit is: one may be set at any time."""
    await alone.redis.config_set("maxmemory-policy", policy)

    told = await read_memory(alone.redis)

    assert shortages(told) == []
    (risk,) = risks(told)
    assert policy in risk
    assert "noeviction" in risk


async def test_a_full_server_is_a_shortage(alone: Store) -> None:
    """As long as it refuses writes, and no longer."""
    assert shortages(await read_memory(alone.redis)) == []
    await alone.redis.config_set("maxmemory", 100_000)
    (told,) = shortages(await read_memory(alone.redis))
    assert "full" in told
    assert "100000" in told
    await alone.redis.config_set("maxmemory", 1_000_000_000)
    assert shortages(await read_memory(alone.redis)) == []
    assert risks(await read_memory(alone.redis)) == []


async def test_watermarks_of_deleted_topics_are_bounded(alone: Store) -> None:
    """Topics made again and again leave a bounded number; those of live topics stay."""
    for n in range(30):
        one = message(n, click("a", n))._replace(checksum=n)
        await alone.apply(
            [Part(f"c/old{n}/0", -1, [one]), Part("c/new/1", n - 1, [one])], now_s=NOW
        )
    kept = ["c/new/1", "c/old29/0"]
    assert await alone.watermarks(kept) == [29, 29]

    await alone.forget_partitions({"c/new"}, most=31)
    assert await alone.watermarks(kept) == [29, 29]
    await alone.forget_partitions({"c/new"}, most=30)
    assert await alone.watermarks(kept) == [29, -1]
    assert await alone.witnesses(kept) == [(29, one.timestamp_ms, 29), None]
    for key in ("watermarks", "witnesses"):
        assert await alone.redis.hlen(alone.key(key)) == 1
