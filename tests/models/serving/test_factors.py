"""Factors of items in a shop: learned from its histories, kept in Redis, and counted in answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.retrieval.item_factors import factors_of
from models.retrieval.signals import BOTH_10, FACTORS
from models.serving.factor_renewal import MIN_EVENTS, is_due, renew_factors
from models.serving.local import LocalRecommender
from models.serving.recommender import Recommender
from models.serving.sources import MIN_FACTOR_ITEMS
from models.settings import Settings
from models.state import layout
from models.state.store import Store
from models.state.stored_factors import (
    NEVER_LEARNED,
    FactorsHead,
    read_factors,
    read_factors_head,
    save_factors,
)
from tests.models.serving.test_similar_texts import send
from tests.models.state.reference import NOW

N_BETWEEN = layout.WINDOW + 1
"""Items between two of a history that make no pair of them."""

N_ITEMS = 2 * (MIN_FACTOR_ITEMS + N_BETWEEN + 1)


@pytest.fixture
async def shop(make_store: Callable[..., Store]) -> Store:
    """Users who begin with the first items of a style, and end with its last one."""
    store, offset = make_store(), 0
    for n in range(60):
        style = "red" if n % 2 else "blue"
        items = [f"{style} {at}" for at in range(MIN_FACTOR_ITEMS + N_BETWEEN)]
        offset = await send(store, offset, f"u{n}", *items, f"last {style}")
    offset = await send(store, offset, "ada", *(f"red {at}" for at in range(MIN_FACTOR_ITEMS)))
    await send(store, offset, "bob", *(f"red {at}" for at in range(MIN_FACTOR_ITEMS - 1)))
    return store


async def test_items_far_apart_in_histories_are_found(shop: Store) -> None:
    """What was never within ten events of the user's item is a candidate for its factors alone."""
    now_s = NOW + 9000.0
    recommender = Recommender(shop, seed=1)
    red, blue = await shop.item_indexes(["last red", "last blue"])
    before = (await recommender.snapshots.for_recommending("ada", None, now_s=now_s)).candidates()
    assert not before.signals[:, FACTORS].any()

    head = await renew_factors(shop, 800, most_events=10**6, now_s=now_s)

    assert head == FactorsHead(now_s, 800, N_ITEMS) == await read_factors_head(shop)
    now_s += 1.0
    snapshot = await recommender.snapshots.for_recommending("ada", None, now_s=now_s)
    found = snapshot.candidates()
    signals = dict(zip(found.items.tolist(), found.signals, strict=True))
    assert signals[red][FACTORS] > 0.0
    assert signals[red][BOTH_10] == 0.0
    assert blue not in signals or signals[blue][FACTORS] < 0.1 * signals[red][FACTORS]
    given = (await recommender.snapshots.for_ranking(
        "ada", None, now_s=now_s, objective="interactions", context=None
    )).candidates_among(np.array([blue, red]))  # fmt: skip
    assert given.signals[1, FACTORS] == pytest.approx(signals[red][FACTORS])
    assert given.signals[0, FACTORS] < 0.1 * given.signals[1, FACTORS]

    few = (await recommender.snapshots.for_recommending("bob", None, now_s=now_s)).candidates()
    assert not few.signals[:, FACTORS].any()


async def test_a_bound_of_events_takes_whole_histories(shop: Store) -> None:
    """Pages of histories are read until there are enough events."""
    await renew_factors(shop, 800, most_events=1, now_s=NOW)
    assert len(factors_of(await read_factors(shop)).items) == N_ITEMS


async def test_what_was_erased_meanwhile_stays_erased(make_store: Callable[..., Store]) -> None:
    """A group without state gets no factors."""
    store = make_store()
    assert not await save_factors(store, b"something")
    assert not await store.redis.keys(store.key("*"))
    assert await read_factors_head(store) == NEVER_LEARNED


def test_factors_are_due_as_a_group_grows() -> None:
    """Not for a handful of events; then by a tenth, and after a day by a hundredth."""
    last = FactorsHead(NOW, 10_000, 50)
    assert [is_due(n, NEVER_LEARNED, now_s=NOW) for n in (999, 1000)] == [False, True]
    assert [is_due(n, last, now_s=NOW + 60) for n in (10_999, 11_000)] == [False, True]
    next_day = NOW + layout.DAY_S
    assert [is_due(n, last, now_s=next_day) for n in (10_099, 10_100)] == [False, True]


@pytest.mark.parametrize("is_on", [True, False])
def test_one_process_learns_factors_when_a_worker_would(
    redis_url: str, make_store: Callable[..., Store], *, is_on: bool
) -> None:
    """Evaluation has them, too; without events to learn them from, there are none."""
    # A store's group, which is removed behind the test.
    group = make_store().settings.group
    settings = Settings(redis=redis_url, group=group, factor_events=1000 if is_on else 0, cache_s=0)
    with LocalRecommender(settings, examples_of=0) as one:
        for n in range(MIN_EVENTS):
            one.learn(f"u{n // 8}", f"i{n // 8 % 3} {n % 8}", at_s=NOW + n)
            if n == MIN_EVENTS - 2:
                assert not one.candidates("u0").candidates.signals[:, FACTORS].any()
        one.candidates("u0", at_s=NOW + 2 * MIN_EVENTS)
        found = one.candidates("u0", at_s=NOW + 3 * MIN_EVENTS).candidates
        assert found.signals[:, FACTORS].any() == is_on
