"""Containers of the state cache: right for every request, whatever others make room for."""

from __future__ import annotations

import asyncio

from models.serving.cached_items import ItemIds, TimedCache
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


class Loads:
    """Loads the tenfold of each key, nothing for key 0, and counts what it loads."""

    def __init__(self) -> None:
        self.keys: list[int] = []

    async def __call__(self, keys: list[int]) -> list[int | None]:
        """One read of several keys."""
        self.keys += keys
        await asyncio.sleep(0)
        return [10 * key or None for key in keys]


async def test_values_are_loaded_again_when_too_old() -> None:
    """Also those of a clock that was set back; missing keys are loaded each time, repeated once."""
    cache, load = TimedCache[int, int](size=9, max_age_s=2.0), Loads()

    assert await cache.read([1, 2, 1, 0], 100.0, load) == [10, 20, 10, None]
    assert await cache.read([1, 2], 102.0, load) == [10, 20]
    assert await cache.read([1], 98.0, load) == [10]
    assert load.keys == [1, 2, 0]
    await cache.read([1], 102.1, load)
    await cache.read([2], 97.9, load)
    await cache.read([0], 97.9, load)
    assert load.keys == [1, 2, 0, 1, 2, 0]


async def test_the_first_values_make_room() -> None:
    """The cache stays within its size; a value that was read anew is not the first any more."""
    cache, load = TimedCache[int, int](size=2, max_age_s=1.0), Loads()
    await cache.read([1, 2], 0.0, load)
    await cache.read([1], 5.0, load)

    one, two = await asyncio.gather(cache.read([1, 3], 5.0, load), cache.read([4, 5], 5.0, load))

    assert (one, two) == ([10, 30], [40, 50])
    assert len(cache) == 2
    assert 1 not in cache


async def test_values_that_never_change_do_not_age() -> None:
    """Without a maximum age, a value is loaded once."""
    cache, load = TimedCache[int, int](size=2), Loads()
    await cache.read([1], 0.0, load)
    await cache.read([1], 1e9, load)
    assert load.keys == [1]
