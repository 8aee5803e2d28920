"""Lifts against their definition, and answers that follow from circumstances."""

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
from models.serving.tenants import Tenants
from models.state import layout
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from tests.models.serving.test_recommender import ids
from tests.models.state.reference import NOW, contents

EVENTS = st.dictionaries(
    st.integers(1, 30), st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1
)


def counts(events: Mapping[int, float]) -> DecayedCounts:
    """Counts as they are stored: of items that have any."""
    held = {item: n for item, n in events.items() if n}
    return DecayedCounts(
        np.array(list(held), np.int64), np.array(list(held.values()), float), sum(held.values())
    )


@given(EVENTS)
def test_lift_is_its_definition(drawn: dict[int, tuple[int, int]]) -> None:
    """P(value | item) / P(value), each item's share drawn to everybody's by `shrinkage` events."""
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


def test_what_does_not_matter_lifts_nobody() -> None:
    """Shares that differ by chance weigh little, those that really differ weigh in full."""
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


def test_what_made_room_is_not_taken_to_be_here() -> None:
    """Where lists are full, what is missing has at most the least, and never a lift."""
    n = layout.CONTEXT_ITEMS
    items = np.arange(1, n + 1)
    here = DecayedCounts(items, np.full(n, 4.0), 10.0 * n)
    anywhere = DecayedCounts(items + 10, np.full(n, 6.0), 20.0 * n)

    found = lift(np.array([n + 5, 3, 5000]), ContextValue(here, anywhere))

    assert here.max_missing == 4.0
    assert found[0] == pytest.approx(0.0, abs=0.01)
    assert found[1] > 0
    assert found[2] == pytest.approx(0.0)


def test_an_order_without_scores_is_moved() -> None:
    """What is met here more often moves up, the rest keeps its order."""
    here = counts({3: 40})
    one = ContextValues((ContextValue(here, counts({1: 40, 2: 40, 3: 40})),))

    assert rerank_by_lift([1, 2, 3], one) == [3, 1, 2]
    assert rerank_by_lift([], one) == []


class Devices:
    """A shop whose events say on which device they happened."""

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
        """An answer under circumstances."""
        return await self.recommender.recommend(user_id=user, now_s=self.now_s, context=context)

    async def recommend_at(self, item: str, **context: str) -> Answer:
        """An answer to somebody new who looks at an item."""
        return await self.recommender.recommend(item_id=item, now_s=self.now_s, context=context)

    async def rank(self, items: list[str], **context: str) -> list[str]:
        """Items in their order under circumstances."""
        return ids(
            await self.recommender.rank(items, user_id="nobody", now_s=self.now_s, context=context)
        )


@pytest.fixture
async def devices(store: Store) -> Devices:
    """A shop where tents go on phones and desks go on desktops; everybody looks at lamps."""
    await Tenants(store.redis, store.settings).name_columns(store.settings.group, ["DEVICE"])
    shop = Devices(store)
    for n in range(6):
        await shop.send(f"p{n}", "phone", "lamp", "tent", "stove")
        await shop.send(f"d{n}", "desktop", "lamp", "desk", "chair")
    return shop


async def test_strangers_get_what_is_popular_here(devices: Devices) -> None:
    """Nobody's history is known: what is popular under the circumstances comes first."""
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


async def test_known_users_get_what_fits_both(devices: Devices) -> None:
    """After a lamp, what follows lamps here."""
    await devices.send("ada", "phone", "lamp")

    for device, own, others in (
        ("phone", ["tent", "stove"], ["desk", "chair"]),
        ("desktop", ["desk", "chair"], ["tent", "stove"]),
    ):
        found = ids(await devices.recommend("ada", DEVICE=device))
        assert found[0] == own[0]
        for one, other in zip(own, others, strict=True):
            assert found.index(one) < found.index(other)


async def test_what_is_popular_here_is_a_candidate(devices: Devices) -> None:
    """Also where it is in no top list and was never seen with the user's items."""
    for n in range(layout.TOPS + 50):
        await devices.send(f"x{n}", "desktop", f"other{n}", f"more{n}")
    for n in range(3):
        await devices.send(f"w{n}", "watch", "strap")
    for n in range(layout.TOPS):
        await devices.send(f"y{n}", "desktop", f"late{n}", f"later{n}")

    assert "strap" not in ids(await devices.recommend("x1"))
    assert "strap" in ids(await devices.recommend("x1", DEVICE="watch"))


async def test_history_and_circumstances_share(devices: Devices) -> None:
    """A user's lift is a part of that of a stranger: the history says some of it already."""
    items = await devices.store.item_indexes(["tent", "desk"])
    met = await devices.recommender.cache.context_values({"device": "phone"}, devices.now_s)
    scores = np.zeros(2)

    user, stranger = (met.with_lifts(scores, np.array(items), has_history=x) for x in (True, False))

    assert user == pytest.approx(WEIGHT_WITH_HISTORY * stranger)
    assert stranger[0] > 0 > stranger[1]
    assert NO_CONTEXT_VALUES.with_lifts(scores, np.array(items)) is scores


async def test_rankings_follow_circumstances(devices: Devices) -> None:
    """The given items, what is met here first, unknown ones last."""
    wanted = ["desk", "nothing", "tent", "chair", "stove"]

    assert set((await devices.rank(wanted, DEVICE="phone"))[:2]) == {"tent", "stove"}
    assert set((await devices.rank(wanted, DEVICE="desktop"))[:2]) == {"desk", "chair"}
    assert (await devices.rank(wanted, DEVICE="phone"))[-1] == "nothing"


@pytest.mark.parametrize(
    "context", [{}, {"DEVICE": "fridge"}, {"WEATHER": "rain"}, {"DEVICE": ""}, {"A": "x" * 1000}]
)
async def test_what_is_not_known_changes_nothing(devices: Devices, context: dict[str, str]) -> None:
    """Columns and values that were never met are as if nothing was said."""
    plain = await devices.recommender.recommend(user_id="p1", now_s=devices.now_s)

    assert await devices.recommend("p1", **context) == plain
    assert await devices.recommend(**context) == await devices.recommend()
    wanted = ["desk", "tent"]
    assert await devices.rank(wanted, **context) == await devices.rank(wanted)


async def test_nothing_is_read_where_nothing_is_said(devices: Devices) -> None:
    """A request without context reads what it did before, and asking changes no state."""
    before = await contents(devices.store)
    await devices.recommend("p1")
    assert not len(devices.recommender.cache._context_counts)
    await devices.recommend("p1", DEVICE="phone")
    counts = devices.recommender.cache._context_counts
    assert len(counts) == 2
    assert "device" in counts
    assert "device=phone" in counts
    assert await contents(devices.store) == before


async def test_what_is_kept_is_bounded(devices: Devices, monkeypatch: Any) -> None:
    """Whatever values requests make up, a process keeps so many lists."""
    counts = devices.recommender.cache._context_counts
    monkeypatch.setattr(counts, "size", 5)
    for n in range(20):
        await devices.recommend(DEVICE=f"made-up-{n}")
        assert len(counts) <= 5
    assert set(ids(await devices.recommend(DEVICE="phone"))[:3]) == {"lamp", "tent", "stove"}


async def test_lists_of_different_age(make_store: Callable[..., Store]) -> None:
    """A column that was read before its first event tells nothing yet."""
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


async def test_same_category_follows_circumstances(devices: Devices) -> None:
    """Where nothing was seen together, what is like it and met here comes first."""
    from models.state.metadata import put_items

    shelf = [(name, {"GENRE": "gear"}) for name in ("tent", "desk", "novelty")]
    await put_items(devices.store, shelf, devices.now_s)

    assert ids(await devices.recommend_at("novelty", DEVICE="phone"))[0] == "tent"
    assert ids(await devices.recommend_at("novelty", DEVICE="desktop"))[0] == "desk"
