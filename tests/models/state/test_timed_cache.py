"""Values by key with a maximum age: right for every caller, whatever others make room for."""

from __future__ import annotations

import asyncio
from functools import partial

from models.state.timed_cache import TimedCache


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


async def test_values_stay_until_they_change() -> None:
    """While changes are heard, a value has no age, and is loaded again once it has changed."""
    cache, load = TimedCache[int, int](size=9, max_age_s=1.0), Loads()
    cache.hears_changes = True
    await cache.read([1, 2], 0.0, load)
    await cache.read([1, 2], 1e9, load)
    cache.invalidate([2, 3])
    await cache.read([1, 2], 1e9, load)
    assert load.keys == [1, 2, 2]

    cache.hears_changes = False
    await cache.read([1, 2], 1e9 + 2, load)
    assert load.keys == [1, 2, 2, 1, 2]


async def test_a_value_that_changes_while_it_is_loaded_is_not_kept() -> None:
    """A load may give a value of before a change that is heard before the load's answer."""
    cache, load = TimedCache[int, int](size=9, max_age_s=1.0), Loads()
    cache.hears_changes = True
    for change, kept in ((partial(cache.invalidate, [1]), {2}), (cache.invalidate_all, set())):
        reading = asyncio.create_task(cache.read([1, 2], 0.0, load))
        await asyncio.sleep(0)
        change()
        assert await reading == [10, 20]
        assert {key for key in (1, 2) if key in cache} == kept
        cache.clear()
