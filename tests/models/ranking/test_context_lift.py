"""Lifts of contextual columns against their definition, and answers under context values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking.context_lift import (
    MAX_LIFT,
    NO_CONTEXT_VALUES,
    SHRINKAGE_RANGE,
    WEIGHT_WITH_HISTORY,
    ContextValue,
    ContextValues,
    DecayedCounts,
    lift,
    rerank_by_lift,
    shrinkage,
)
from models.serving.answers import Answer
from models.serving.recommender import Recommender
from models.state import layout
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from models.state.tenants import Tenants
from tests.models.serving.test_recommender import ids
from tests.models.state.reference import NOW, contents

EVENTS = st.dictionaries(
    st.integers(1, 30), st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1
)


def counts(events: Mapping[int, float]) -> DecayedCounts:
    """Counts as stored: only of items with events."""
    held = {item: n for item, n in events.items() if n}
    return DecayedCounts(
        np.array(list(held), np.int64), np.array(list(held.values()), float), sum(held.values())
    )


@given(EVENTS)
def test_lift_is_its_definition(drawn: dict[int, tuple[int, int]]) -> None:
    """P(value | item) / P(value), each item's share shrunk towards the overall share."""
    here = {item: here for item, (here, _) in drawn.items()}
    anywhere = {item: sum(both) for item, both in drawn.items()}
    n, total = sum(here.values()), sum(anywhere.values())
    if not n:
        return
    one = ContextValue(counts(here), counts(anywhere))
    base = shrinkage(one)

    found = lift(np.array([*drawn, 99]), one)

    for item, value in zip([*drawn, 99], found.tolist(), strict=True):
        x, of = here.get(item, 0), anywhere.get(item, 0)
        assert value == pytest.approx(math.log((x + base * n / total) / (of + base) / (n / total)))
    assert found[-1] == pytest.approx(0.0)
    assert SHRINKAGE_RANGE[0] <= base <= SHRINKAGE_RANGE[1] * 1.000001
    lifts = ContextValues((one,) * 9).lifts(np.array(list(drawn)))
    assert np.abs(lifts).max() <= MAX_LIFT


def test_a_value_without_information_has_no_lifts() -> None:
    """Shares that differ by chance are shrunk fully, those that really differ hardly."""
    rng = np.random.default_rng(7)
    items = np.arange(1, 201)
    anywhere = DecayedCounts(items, np.full(200, 40.0), 8000.0)
    alike = rng.binomial(40, 0.5, 200).astype(float)
    apart = rng.binomial(40, np.where(items % 2, 0.8, 0.2)).astype(float)

    by_chance = ContextValue(DecayedCounts(items, alike, alike.sum()), anywhere)
    really = ContextValue(DecayedCounts(items, apart, apart.sum()), anywhere)

    assert shrinkage(by_chance) > 100
    assert shrinkage(really) < 10
    assert np.abs(lift(items, by_chance)).max() < 0.2
    assert lift(items, really)[::2].mean() > 0.3
    assert shrinkage(ContextValue(anywhere, anywhere)) == SHRINKAGE_RANGE[1]


def test_an_evicted_item_has_no_positive_lift() -> None:
    """In full lists a missing item has at most the least count, and never a positive lift."""
    n = layout.CONTEXT_ITEMS
    items = np.arange(1, n + 1)
    here = DecayedCounts(items, np.full(n, 4.0), 10.0 * n)
    anywhere = DecayedCounts(items + 10, np.full(n, 6.0), 20.0 * n)

    found = lift(np.array([n + 5, 3, 5000]), ContextValue(here, anywhere))

    assert here.max_missing == 4.0
    assert found[0] == pytest.approx(0.0, abs=0.01)
    assert found[1] > 0
    assert found[2] == pytest.approx(0.0)


def test_items_without_scores_are_reranked_by_lift() -> None:
    """Items with a positive lift move up, the rest keeps its order."""
    here = counts({3: 40})
    one = ContextValues((ContextValue(here, counts({1: 40, 2: 40, 3: 40})),))

    assert rerank_by_lift([1, 2, 3], one) == [3, 1, 2]
    assert rerank_by_lift([], one) == []


class Devices:
    """A shop with a contextual column for the device of an event."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recommender = Recommender(store)
        self.n = 0

    async def send(self, user: str, device: str, *items: str) -> None:
        """Events of a user on a device, a minute apart."""
        for item in items:
            event = StoredEvent(
                item, NOW + 60 * self.n, "click", 0.0, False, self.n + 1, {"device": [device]}
            )
            message = StoredMessage(self.n, user, user, shard_of(user), 1.0, [event])
            await self.store.apply([Part("p/0", self.n - 1, [message])], now_s=self.now_s)
            self.n += 1

    @property
    def now_s(self) -> float:
        """The present."""
        return NOW + 60.0 * self.n

    async def recommend(self, user: str | None = None, **context: str) -> Answer:
        """Recommendations under context values."""
        return await self.recommender.recommend(user_id=user, now_s=self.now_s, context=context)

    async def recommend_at(self, item: str, **context: str) -> Answer:
        """Recommendations for a user without a history who looks at an item."""
        return await self.recommender.recommend(item_id=item, now_s=self.now_s, context=context)

    async def rank(self, items: list[str], **context: str) -> list[str]:
        """Given items, ranked under context values."""
        return ids(
            await self.recommender.rank(items, user_id="nobody", now_s=self.now_s, context=context)
        )


@pytest.fixture
async def devices(store: Store) -> Devices:
    """A shop where tents sell on phones and desks on desktops; lamps on both."""
    await Tenants(store.redis, store.settings).name_columns(store.settings.group, ["DEVICE"])
    shop = Devices(store)
    for n in range(6):
        await shop.send(f"p{n}", "phone", "lamp", "tent", "stove")
        await shop.send(f"d{n}", "desktop", "lamp", "desk", "chair")
    return shop


async def test_cold_start_users_get_popular_items_of_the_context(devices: Devices) -> None:
    """Without a history, items popular under the context values come first."""
    phone, desktop = (
        await devices.recommend(DEVICE="phone"),
        await devices.recommend(device="Desktop"),
    )

    assert set(ids(phone)) == set(ids(desktop)) == {"lamp", "tent", "stove", "desk", "chair"}
    assert set(ids(phone)[-2:]) == {"desk", "chair"}
    assert set(ids(desktop)[-2:]) == {"tent", "stove"}
    assert phone.level == "trending"
    assert sum(item.score for item in phone.items) == pytest.approx(1.0)
    assert phone.items[0].reasons[0].source == "popular"


async def test_history_and_context_both_count(devices: Devices) -> None:
    """After a lamp, items that follow lamps on this device."""
    await devices.send("ada", "phone", "lamp")

    for device, own, others in (
        ("phone", ["tent", "stove"], ["desk", "chair"]),
        ("desktop", ["desk", "chair"], ["tent", "stove"]),
    ):
        found = ids(await devices.recommend("ada", DEVICE=device))
        assert found[0] == own[0]
        for one, other in zip(own, others, strict=True):
            assert found.index(one) < found.index(other)


async def test_frequent_items_of_the_context_are_candidates(devices: Devices) -> None:
    """Also if they are in no top list and not co-visited with the user's items."""
    for n in range(layout.TOPS + 50):
        await devices.send(f"x{n}", "desktop", f"other{n}", f"more{n}")
    for n in range(3):
        await devices.send(f"w{n}", "watch", "strap")
    for n in range(layout.TOPS):
        await devices.send(f"y{n}", "desktop", f"late{n}", f"later{n}")

    assert "strap" not in ids(await devices.recommend("x1"))
    assert "strap" in ids(await devices.recommend("x1", DEVICE="watch"))


async def test_lifts_count_less_with_a_history(devices: Devices) -> None:
    """Past interactions of a user contain a part of the lift already."""
    items = await devices.store.item_indexes(["tent", "desk"])
    met = await devices.recommender.cache.context_values({"device": "phone"}, devices.now_s)
    scores = np.zeros(2)

    user, new_user = (met.with_lifts(scores, np.array(items), has_history=x) for x in (True, False))

    assert user == pytest.approx(WEIGHT_WITH_HISTORY * new_user)
    assert new_user[0] > 0 > new_user[1]
    assert NO_CONTEXT_VALUES.with_lifts(scores, np.array(items)) is scores


async def test_rankings_depend_on_context(devices: Devices) -> None:
    """Given items by their lift on this device, unknown ones last."""
    wanted = ["desk", "nothing", "tent", "chair", "stove"]

    assert set((await devices.rank(wanted, DEVICE="phone"))[:2]) == {"tent", "stove"}
    assert set((await devices.rank(wanted, DEVICE="desktop"))[:2]) == {"desk", "chair"}
    assert (await devices.rank(wanted, DEVICE="phone"))[-1] == "nothing"


@pytest.mark.parametrize(
    "context", [{}, {"DEVICE": "fridge"}, {"WEATHER": "rain"}, {"DEVICE": ""}, {"A": "x" * 1000}]
)
async def test_unknown_columns_and_values_change_nothing(
    devices: Devices, context: dict[str, str]
) -> None:
    """Columns and values without events give the answers of a request without context."""
    plain = await devices.recommender.recommend(user_id="p1", now_s=devices.now_s)

    assert await devices.recommend("p1", **context) == plain
    assert await devices.recommend(**context) == await devices.recommend()
    wanted = ["desk", "tent"]
    assert await devices.rank(wanted, **context) == await devices.rank(wanted)


async def test_nothing_is_read_without_context(devices: Devices) -> None:
    """Counts are read only for a request with context, and no request changes state."""
    before = await contents(devices.store)
    await devices.recommend("p1")
    assert not len(devices.recommender.cache.context._counts)
    await devices.recommend("p1", DEVICE="phone")
    counts = devices.recommender.cache.context._counts
    assert len(counts) == 2
    assert "device" in counts
    assert "device=phone" in counts
    assert await contents(devices.store) == before


async def test_cached_counts_are_bounded(devices: Devices, monkeypatch: Any) -> None:
    """Requests with made-up values do not exceed the size of the cache."""
    counts = devices.recommender.cache.context._counts
    monkeypatch.setattr(counts, "size", 5)
    for n in range(20):
        await devices.recommend(DEVICE=f"made-up-{n}")
        assert len(counts) <= 5
    assert set(ids(await devices.recommend(DEVICE="phone"))[:3]) == {"lamp", "tent", "stove"}


async def test_a_column_older_than_its_first_event(make_store: Callable[..., Store]) -> None:
    """Counts of a column that were cached before its first event give no lift yet."""
    shop = Devices(make_store(cache_s=60))
    await Tenants(shop.store.redis, shop.store.settings).name_columns(
        shop.store.settings.group, ["DEVICE"]
    )
    await shop.recommend(DEVICE="watch")
    await shop.send("p", "phone", "tent")
    cache = shop.recommender.cache

    at_once = await cache.context_values({"DEVICE": "phone"}, NOW)
    later = await cache.context_values({"DEVICE": "phone"}, NOW + 61.0)

    assert at_once == NO_CONTEXT_VALUES
    assert len(later.values) == 1


async def test_same_category_is_reranked_by_context(devices: Devices) -> None:
    """Without co-visitation, items of the category with a positive lift come first."""
    from models.state.catalogue.metadata import put_items

    shelf = [(name, {"GENRE": "gear"}) for name in ("tent", "desk", "novelty")]
    await put_items(devices.store, shelf, devices.now_s)

    assert ids(await devices.recommend_at("novelty", DEVICE="phone"))[0] == "tent"
    assert ids(await devices.recommend_at("novelty", DEVICE="desktop"))[0] == "desk"
