"""Containers of the state cache: right for every request, whatever others make room for."""

from __future__ import annotations

import asyncio

from models.serving.cached.cached_items import ItemIds
from models.state.store import Store
from tests.models.serving.test_recommender import Shop

UNKNOWN = 10**9


async def test_item_ids_are_read_once(store: Store) -> None:
    """Known ids are not read again, unknown indexes stay unknown, and gaps are not ids."""
    shop = Shop(store)
    await shop.send("a", "tent", "stove", "lamp")
    tent, stove, lamp = await store.item_indexes(["tent", "stove", "lamp"])
    item_ids = ItemIds(store, size=10)

    assert item_ids.known([tent, stove]) == []
    assert await item_ids.of([lamp, UNKNOWN, tent]) == ["lamp", None, "tent"]
    assert item_ids.known([tent, stove, lamp, 1000, UNKNOWN]) == ["tent", "lamp"]
    await store.redis.delete(store.key("ids"))
    assert await item_ids.of([tent, lamp]) == ["tent", "lamp"]


async def test_evicted_item_ids_are_still_returned(store: Store) -> None:
    """Ids that are evicted during a read are still in its result."""
    shop = Shop(store)
    await shop.send("a", "tent", "stove", "lamp", *(f"other-{n}" for n in range(3)))
    tent, stove, lamp = await store.item_indexes(["tent", "stove", "lamp"])
    others = await store.item_indexes([f"other-{n}" for n in range(3)])
    item_ids = ItemIds(store, size=3)
    assert await item_ids.of([tent]) == ["tent"]

    waiting = asyncio.create_task(item_ids.of([tent, stove, UNKNOWN]))
    await asyncio.sleep(0)
    await item_ids.of(others)

    assert await waiting == ["tent", "stove", None]
    assert await item_ids.of([tent, lamp]) == ["tent", "lamp"]
    assert len(item_ids.known(range(100))) <= 3
