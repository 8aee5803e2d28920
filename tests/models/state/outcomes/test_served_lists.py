"""Served lists: found by their ids, within a budget, and first to make room."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part
from models.state.outcomes.served_lists import BUCKETS, MAX_SHOWN, MAX_TRIED, log_served, served
from models.state.store import Store
from ops.embedded_servers import start_redis
from tests.models.state.reference import NOW, click, message
from tests.servers import debian_redis

NAMES = [f"product-{n:05}-of-a-shop" for n in range(500)]
MB = 1024 * 1024


async def catalogue(store: Store, names: list[str] = NAMES) -> None:
    """Store items, as events do."""
    numbers = {name: number for number, name in enumerate(names, 1)}
    await store.redis.hset(store.key("items"), mapping=numbers)
    await store.redis.hset(
        store.key("ids"), mapping={str(number): name for name, number in numbers.items()}
    )


def ids(n: int, start: int = 0) -> list[str]:
    """Ids in the form of this service."""
    return [f"{start + k:032x}" for k in range(n)]


async def taken(store: Store) -> int:
    """Bytes of served lists, as the server measures them."""
    keys = [key async for key in store.redis.scan_iter(match=store.key("served*"))]
    return sum([int(await store.redis.memory_usage(key, samples=0)) for key in keys])


async def test_lists_are_found_by_their_ids(store: Store) -> None:
    """In order, under any form of id, with "" for unknown items, until they expire."""
    await catalogue(store)
    lists = {
        ids(1)[0]: [NAMES[3], "unheard-of", NAMES[1]],
        "an-id-of-another-kind": [NAMES[0]],
        "00": [],
        "F" * 32: [NAMES[2]],
        ids(1, 7)[0]: NAMES,
    }
    assert await log_served(store, lists, now_s=NOW) == len(lists)

    assert await served(store, ids(1)[0]) == [NAMES[3], "", NAMES[1]]
    assert await served(store, "an-id-of-another-kind") == [NAMES[0]]
    assert await served(store, "00") == []
    assert await served(store, "F" * 32) == [NAMES[2]]
    assert await served(store, "f" * 32) is None
    assert await served(store, ids(1, 7)[0]) == NAMES[:MAX_SHOWN]
    async for key in store.redis.scan_iter(match=store.key("served*")):
        assert 0 < await store.redis.ttl(key) <= 2 * store.settings.impression_ttl_s


async def test_a_list_is_kept_for_its_time(make_store: Callable[..., Store]) -> None:
    """For the whole of it and not much longer, however steadily others come."""
    store = make_store(impression_ttl_s=1600)
    for n in range(0, 4000, 100):
        await log_served(store, {f"r{n}": []}, now_s=NOW + n)

        assert await served(store, f"r{max(0, n - 1500)}") is not None
        if n >= 1900:
            assert await served(store, f"r{n - 1900}") is None


async def test_the_budget_holds_under_any_load(make_store: Callable[..., Store]) -> None:
    """Long lists or short, memory stays within the budget, and the newest stay."""
    store = make_store(impression_budget_mb=1)
    await catalogue(store)
    for length, n in ((500, 3000), (0, 14_000), (25, 6500)):
        names = ids(n, 100_000 * length)
        for at in range(0, n, 1500):
            lists = dict.fromkeys(names[at : at + 1500], NAMES[:length])
            await log_served(store, lists, now_s=NOW)
            assert await taken(store) < 1.4 * MB

        assert await taken(store) > 0.3 * MB
        assert await served(store, names[-1]) == NAMES[:length][:MAX_SHOWN]
        assert await served(store, names[0]) is None
    keys = [key async for key in store.redis.scan_iter(match=store.key("served*"))]
    assert len(keys) <= BUCKETS + 2


async def test_nothing_is_kept_without_a_budget(make_store: Callable[..., Store]) -> None:
    """Exploration is counted all the same, within a bound."""
    store = make_store(impression_budget_mb=0)
    await catalogue(store)

    assert await log_served(store, {"r": NAMES[:3]}, NAMES[:2], now_s=NOW) == 0

    assert [key async for key in store.redis.scan_iter(match=store.key("served*"))] == []
    assert await store.redis.hlen(store.key("tried")) == 2
    many = [f"new{n}" for n in range(MAX_TRIED + 1)]
    await catalogue(store, many)
    await log_served(store, {}, many, now_s=NOW)
    assert await store.redis.hlen(store.key("tried")) <= MAX_TRIED


@pytest.fixture(params=["embedded", pytest.param("debian", marks=pytest.mark.kafka)])
def server_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A Redis server for one test alone, which may limit its memory."""
    if request.param == "embedded":
        server = start_redis(tmp_path)
        yield server.url
        server.stop()
    else:
        with debian_redis(tmp_path) as running:
            yield running.address


@pytest.fixture
async def small(server_url: str) -> AsyncIterator[Store]:
    """A store on a server of its own."""
    one = Store(connect(server_url), Settings(impression_budget_mb=1000))
    yield one
    await one.redis.aclose()


async def limit(store: Store, room: int) -> dict[str, Any]:
    """Set the server's limit this many bytes above its use; returns its memory."""
    used = (await store.redis.info("memory"))["used_memory"]
    await store.redis.config_set("maxmemory-policy", "noeviction")
    await store.redis.config_set("maxmemory", used + room)
    said: dict[str, Any] = await store.redis.info("memory")
    return said


async def test_lists_give_way_before_the_server_is_full(small: Store) -> None:
    """With a budget beyond the limit they stop at nine tenths, and shrink as other keys grow."""
    await catalogue(small)
    said = await limit(small, 4 * MB)
    most = said["maxmemory"]
    kept = [
        await log_served(small, dict.fromkeys(ids(1000, 1000 * n), NAMES), now_s=NOW)
        for n in range(20)
    ]
    assert kept[0] == 1000
    assert min(kept) < 1000
    assert (await small.redis.info("memory"))["used_memory"] < most

    filler = 0
    while await taken(small) > 0:
        await small.redis.set(f"state-{filler}", b"x" * 40_000)
        filler += 1
        await log_served(small, {"one": NAMES}, now_s=NOW)
    assert (await small.redis.info("memory"))["used_memory"] < most


async def test_a_step_that_finds_the_server_full_makes_room(small: Store) -> None:
    """Events take effect without any request: lists go first, in all groups."""
    await catalogue(small)
    other = Store(small.redis, small.settings.model_copy(update={"group": "other"}))
    await small.redis.sadd("{recommender}:groups", "other")
    for store in (small, other):
        await log_served(store, dict.fromkeys(ids(3000), NAMES), now_s=NOW)
    await limit(small, -MB)
    part = Part("c/0", -1, [message(0, click("tent", 1), user="ada")])

    with pytest.raises(ResponseError, match=re.compile("command not allowed", re.IGNORECASE)):
        await small.apply([part], now_s=NOW)
    assert await taken(small) == await taken(other) == 0

    deadline_s = time.monotonic() + 60
    while True:
        try:
            results, counts = await small.apply([part], now_s=NOW)
            break
        except ResponseError:
            assert time.monotonic() < deadline_s
    assert (results[0].status, counts["events"]) == ("applied", 1)
