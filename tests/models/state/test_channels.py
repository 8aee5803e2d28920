"""Changes that a process hears of: lists are as new as the step, whatever happens between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from models.retrieval.covisitation import unpack_neighbours
from models.serving.cached.cache import StateCache
from models.settings import Settings
from models.state.clients.batched_reads import BatchingClient
from models.state.clients.client import connect
from models.state.groups.group_registry import erase_group
from models.state.messages import Part
from models.state.store import Store
from tests.models.state.reference import NOW, click, message


class Shop(NamedTuple):
    """A group, written over one connection and read through a cache over another."""

    writer: Store
    cache: StateCache
    reader: BatchingClient

    async def visit(self, offset: int, *items: str) -> None:
        """One session that sees the items, in effect."""
        clicks = [click(item, 10 * offset + place) for place, item in enumerate(items)]
        one = message(offset, *clicks, session=f"s{offset}")
        await self.writer.apply([Part("p/0", offset - 1, [one])], now_s=NOW)

    async def neighbours(self, item: int, *, now_s: float = NOW) -> list[int]:
        """Items in a list, as a request reads it: after a history."""
        await self.cache.store.values([self.cache.store.key("history:s:none")])
        (raw,) = await self.cache.neighbours([item], now_s)
        return sorted(unpack_neighbours(raw, NOW).items.tolist())


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    """An empty shop whose lists would never be read again for their age."""
    settings = Settings(cache_s=60)
    writer, reader = connect(redis_url), connect(redis_url)
    await writer.flushdb()
    one = Shop(
        Store(writer, settings), StateCache(Store(reader, settings), hears_changes=True), reader
    )
    yield one
    await one.cache.close()
    await writer.flushdb()
    await writer.aclose()
    await reader.aclose()


def hears(shop: Shop) -> bool:
    """True while the lists of a shop's cache need not age."""
    return shop.cache._lists.hears_changes


async def test_what_others_do_is_in_the_next_list(shop: Shop) -> None:
    """A list that is cached is read again once a step has changed it, and not before."""
    await shop.visit(0, "tent", "stove")
    assert await shop.neighbours(1) == [2]
    before = (await shop.writer.redis.info("commandstats"))["cmdstat_mget"]["calls"]
    assert await shop.neighbours(1) == [2]
    await shop.visit(1, "tent", "lamp")

    assert await shop.neighbours(1) == [2, 3]
    assert hears(shop)
    calls = (await shop.writer.redis.info("commandstats"))["cmdstat_mget"]["calls"] - before
    assert calls == 3, "two histories and one list"


async def test_changes_during_a_lost_connection_are_not_missed(shop: Shop) -> None:
    """Without a connection nothing is heard; with the next one all lists are read again."""
    await shop.visit(0, "tent", "stove")
    await shop.neighbours(1)
    await shop.writer.redis.client_kill_filter(_type="pubsub")
    await shop.visit(1, "tent", "lamp")

    assert await shop.neighbours(1) == [2, 3]
    await shop.visit(2, "tent", "mat")
    assert await shop.neighbours(1) == [2, 3, 4]
    assert hears(shop)


async def test_lists_age_where_changes_may_not_be_heard(shop: Shop, redis_url: str) -> None:
    """A user without channels gets answers all the same, at most `cache_s` old."""
    await shop.writer.redis.acl_setuser(
        "deaf", enabled=True, nopass=True, keys="*", commands=["+@all"], reset_channels=True
    )
    reader = connect(redis_url.replace("redis://", "redis://deaf:any@"))
    settings = shop.writer.settings
    deaf = shop._replace(cache=StateCache(Store(reader, settings), hears_changes=True))
    try:
        await shop.visit(0, "tent", "stove")
        assert await deaf.neighbours(1) == [2]
        await shop.visit(1, "tent", "lamp")
        assert await deaf.neighbours(1) == [2]
        assert await deaf.neighbours(1, now_s=NOW + 61) == [2, 3]
        assert not hears(deaf)
    finally:
        await deaf.cache.close()
        await reader.aclose()
        await shop.writer.redis.acl_deluser("deaf")


async def test_an_erased_group_has_no_lists(shop: Shop) -> None:
    """Nothing is left of a group that another process erases."""
    await shop.visit(0, "tent", "stove")
    assert await shop.neighbours(1) == [2]
    await erase_group(shop.writer.redis, "shop")

    assert await shop.neighbours(1) == []


async def test_a_closed_cache_hears_nothing(shop: Shop) -> None:
    """The subscription ends with the cache, and its lists age again."""
    await shop.visit(0, "tent", "stove")
    assert await shop.neighbours(1) == [2]
    await shop.cache.close()
    await shop.visit(1, "tent", "lamp")

    assert await shop.neighbours(1) == [2]
    assert await shop.neighbours(1, now_s=NOW + 61) == [2, 3]
    assert (await shop.writer.redis.pubsub_numsub("{shop}:changed"))[0][1] == 0
