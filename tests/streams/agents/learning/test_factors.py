"""The worker keeps factors up: once when due, for all groups, and none of an erased one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part
from models.state.stored_factors import NEVER_LEARNED, read_factors, read_factors_head
from models.state.tenants import Tenants
from streams.agents.learning.factors import ITEMS, LEARNED_AT, FactorUpkeep
from tests.streams.agents.learning.test_catch_up import NOW_S, visits

N_RING = 30
"""Items that these visits go along."""


class Kept:
    """Groups, and the upkeep of their factors."""

    def __init__(self, url: str) -> None:
        self.tenants = Tenants(connect(url), Settings(group="shop", redis=url))
        self.store = self.tenants.store("shop")
        self.now_s = float(NOW_S)
        self.upkeep = FactorUpkeep(self.tenants, clock=lambda: self.now_s, is_late=lambda: False)

    async def load(self, group: str, first: int, n: int) -> None:
        """Bring so many of the visits into effect."""
        messages = visits(first + n)
        messages = messages[len(visits(first)) :]
        start = messages[0].offset
        part = Part("c/0", start - 1, messages)
        await self.tenants.store(group).apply([part], now_s=self.now_s)


@pytest.fixture
async def kept(redis_url: str) -> AsyncIterator[Kept]:
    """No events yet."""
    one = Kept(redis_url)
    await one.store.redis.flushdb()
    yield one
    await one.store.redis.flushdb()
    await one.store.redis.aclose()


async def test_factors_are_learned_as_events_come(kept: Kept) -> None:
    """Not for few events; once for many, and again as the group grows."""
    await kept.load("shop", 0, 20)
    await kept.upkeep.check()
    assert await read_factors_head(kept.store) == NEVER_LEARNED

    await kept.load("shop", 20, 240)
    await kept.upkeep.check()
    head = await read_factors_head(kept.store)
    assert (head.learned_at_s, head.n_items) == (kept.now_s, N_RING)
    assert ITEMS.labels("shop")._value.get() == N_RING
    assert LEARNED_AT.labels("shop")._value.get() == kept.now_s

    kept.now_s += 60.0
    before = await read_factors(kept.store)
    await kept.upkeep.check()
    assert await read_factors(kept.store) == before

    await kept.load("shop", 260, 60)
    await kept.upkeep.check()
    assert (await read_factors_head(kept.store)).learned_at_s == kept.now_s


async def test_every_group_has_its_own(kept: Kept) -> None:
    """A registered group is kept up like that of the settings; erased, it leaves no figures."""
    await kept.tenants.create("other")
    await kept.load("other", 0, 260)
    await kept.upkeep.check()
    assert await read_factors_head(kept.store) == NEVER_LEARNED
    assert (await read_factors_head(kept.tenants.store("other"))).n_items == N_RING
    assert ("other",) in ITEMS._metrics
    await kept.tenants.erase("other")
    assert ("other",) not in ITEMS._metrics
