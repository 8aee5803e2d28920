"""Items of a group by their indexes, which have gaps where it has, or had, several shards."""

from __future__ import annotations

import pytest

from models.settings import Settings
from models.state.clients.client import connect
from models.state.shards.shard_names import shard_prefix
from models.state.shards.sharded_store import store_of

ITEMS = {shard: [shard * 64 + 1, (shard + 4) * 64 + 1] for shard in range(4)}
"""Of four shards: the first index of two of their pages."""


@pytest.mark.parametrize("shards", [1, 4])
async def test_no_item_is_passed_over(redis_url: str, shards: int) -> None:
    """All are found, lowest first, and of many not many more are read than are wanted."""
    async with connect(redis_url) as client:
        for shard, indexes in ITEMS.items():
            prefix = "{h}:" if shards == 1 else shard_prefix("h", "i", shard)
            await client.hset(f"{prefix}ids", mapping={str(one): f"i{one}" for one in indexes})
        store = store_of(
            client, Settings(group="h", redis=redis_url, shards=shards, outcomes=False)
        )
        found = await store.some_items(100)
        await client.flushdb()
        await client.hset(store.key("ids"), mapping={str(one): "" for one in range(1, 20_000)})
        many = await store.some_items(1_000) if shards == 1 else []
        await client.flushdb()

    assert found == sorted(index for indexes in ITEMS.values() for index in indexes)
    assert shards > 1 or 1_000 <= len(many) < 2_000
