"""Recommenders by group: bounded, and forgotten with the group, on a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from models.serving import recommenders as module
from models.serving.recommenders import Recommenders
from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part
from models.state.tenants import Tenants
from tests.models.state.reference import NOW, click, message


@pytest.fixture
async def recommenders(redis_url: str) -> AsyncIterator[Recommenders]:
    """The recommenders of an empty Redis; `shop` is the settings' group."""
    tenants = Tenants(connect(redis_url), Settings(cache_s=0))
    await tenants.redis.flushdb()
    one = Recommenders(tenants)
    yield one
    await one.close()
    await tenants.redis.flushdb()
    await tenants.redis.aclose()


async def test_recommenders_are_bounded(recommenders: Recommenders) -> None:
    """A process keeps the recently used recommenders, and that of the settings' group."""
    own, first = recommenders.of("shop"), recommenders.of("g0")
    assert recommenders.of("g0") is first
    for number in range(module.MAX_OPEN_RECOMMENDERS):
        recommenders.of(f"g{number + 1}")

    assert recommenders.of("shop") is own
    assert recommenders.of("g0") is not first
    assert len(recommenders._others) == module.MAX_OPEN_RECOMMENDERS
    assert recommenders.of("g0").store is recommenders.tenants.store("g0")


async def test_a_group_made_again_has_its_own_items(recommenders: Recommenders) -> None:
    """What was cached of a group goes when the group is erased: its items have other names then."""
    for name in ("tent", "lamp"):
        await recommenders.tenants.create("books")
        part = Part("p/0", -1, [message(0, click(name, 0), user="ada")])
        await recommenders.tenants.store("books").apply([part], now_s=NOW)
        (item,) = (await recommenders.of("books").popular(k=1, now_s=NOW)).items
        assert item.item_id == name

        await recommenders.tenants.erase("books")
