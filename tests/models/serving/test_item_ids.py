"""Names held in the process: right for whoever asked, however many there are."""

from __future__ import annotations

import asyncio

from models.serving.item_ids import ItemIds
from models.state.store import Store
from tests.models.serving.test_recommender import Shop

UNKNOWN = 10**9


async def test_names_are_read_once(store: Store) -> None:
    """What is known is not read again, what no item has stays unknown, and gaps are no names."""
    shop = Shop(store)
    await shop.send("a", "tent", "stove", "lamp")
    tent, stove, lamp = await store.item_indexes(["tent", "stove", "lamp"])
    names = ItemIds(store, most=10)

    assert names.known([tent, stove]) == []
    assert await names.of([lamp, UNKNOWN, tent]) == ["lamp", None, "tent"]
    assert names.known([tent, stove, lamp, 1000, UNKNOWN]) == ["tent", "lamp"]
    await store.redis.delete(store.key("ids"))
    assert await names.of([tent, lamp]) == ["tent", "lamp"]


async def test_making_room_forgets_nothing_under_way(store: Store) -> None:
    """Names that make room for others are still given to who already counted on them."""
    shop = Shop(store)
    await shop.send("a", "tent", "stove", "lamp", *(f"other-{n}" for n in range(3)))
    tent, stove, lamp = await store.item_indexes(["tent", "stove", "lamp"])
    others = await store.item_indexes([f"other-{n}" for n in range(3)])
    names = ItemIds(store, most=3)
    assert await names.of([tent]) == ["tent"]

    waiting = asyncio.create_task(names.of([tent, stove, UNKNOWN]))
    await asyncio.sleep(0)
    await names.of(others)

    assert await waiting == ["tent", "stove", None]
    assert await names.of([tent, lamp]) == ["tent", "lamp"]
    assert len(names.known(range(100))) <= 3
