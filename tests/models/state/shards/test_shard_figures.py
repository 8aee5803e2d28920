"""Figures of shards: on one server by a sample, and the busiest of them."""

from __future__ import annotations

import random

from models.settings import Settings
from models.state.clients.client import connect
from models.state.operations import memory
from models.state.operations.shard_figures import most_of_mean, read_shard_figures
from models.state.shards.sharded_steps import ShardedSteps
from models.state.shards.sharded_store import ShardedStore
from models.state.store import Store
from tests.models.state.reference import click, message
from tests.models.state.shards.shard_network import ShardNetwork
from tests.models.state.shards.sharded_reference import ShardedReference


async def test_figures_of_shards(redis_url: str) -> None:
    """What each has applied, what waits for it, and keys with their memory."""
    settings = Settings(group="h", redis=redis_url, shards=2, outcomes=False)
    async with connect(redis_url) as client:
        try:
            network = ShardNetwork(
                ShardedSteps(client, settings, shards=2),
                ShardedReference(2, limit=100),
                random.Random(2).randrange,
            )
            for number in range(40):
                log = network.events[0]
                event = click(f"i{number % 9}", number)
                log.append(message(len(log), event, user=f"u{number % 7}", session="s"))
            await network.apply_events(0, 0, 100)
            await network.apply_events(0, 1, 100)
            store = ShardedStore(client, settings)
            before = {one.name: one for one in await read_shard_figures(store)}
            assert list(before) == ["u00", "u01", "i00", "i01"]
            assert before["i00"].waiting > 0
            await network.drain()
            after = await read_shard_figures(store)
            assert not any(one.waiting for one in after)
            assert sum(one.applied for one in after if one.name[0] == "u") == 40
            assert all(one.applied > 9 for one in after if one.name[0] == "i")
            for one in after:
                kind, number = one.name[0], int(one.name[1:])
                shard = (store.sessions if kind == "u" else store.items)[number]
                keys = [key async for key in client.scan_iter(match=shard.key("") + "*")]
                own = sum([await client.memory_usage(key) or 0 for key in keys])
                assert one.keys == len(keys)
                assert 0.6 * own < one.bytes < 1.6 * own, one
            assert set(most_of_mean(after)) == {"u", "i"}
            (only,) = await read_shard_figures(store, {"i01"})
            assert (only.name, only.waiting) == ("i01", 0)
            assert await read_shard_figures(Store(client, Settings(redis=redis_url))) == []
        finally:
            await client.flushdb()


async def test_keys_are_estimated_from_a_sample(redis_url: str) -> None:
    """Of a server with more keys than are sampled."""
    settings = Settings(group="h", redis=redis_url, shards=2, outcomes=False)
    assert memory.SCANNED == 5000
    async with connect(redis_url) as client:
        try:
            store = ShardedStore(client, settings)
            pipe = client.pipeline()
            for number in range(16_000):
                shard = store.items[number % 4 // 3]
                pipe.set(shard.key(f"pairs:{number}"), "x" * 100)
            await pipe.execute()
            found = {one.name: one for one in await read_shard_figures(store)}
            assert 10_000 < found["i00"].keys < 14_000
            assert 3_000 < found["i01"].keys < 5_000
            assert 100 * 10_000 < found["i00"].bytes < 300 * 14_000
        finally:
            await client.flushdb()
