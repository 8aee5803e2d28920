"""Factors of items in a shop: learned from its histories, kept in Redis, and counted in answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.ranking.ranker import ListwiseRanker
from models.ranking.similarity import (
    START,
    SimilarityChances,
    chances_of,
    similarity,
    taught,
)
from models.retrieval.item_factors import factors_of
from models.retrieval.signals import BOTH_10, FACTORS
from models.serving.factor_renewal import MIN_EVENTS, is_due, renew_factors
from models.serving.local import LocalRecommender
from models.serving.recommender import Recommender
from models.serving.snapshots import SIMILARITY_EVERY
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


async def test_similar_items_are_those_that_users_go_on_to(shop: Store) -> None:
    """Choices teach whether lists are by what is seen next, or by what goes together at all."""
    now_s = NOW + 9000.0
    recommender = Recommender(shop, seed=1)
    (near,) = await shop.item_indexes(["red 1"])
    plain = (await recommender.snapshots.for_similar(near, now_s=now_s)).similar_candidates()
    assert not plain.signals[:, FACTORS].any()

    await renew_factors(shop, 800, most_events=10**6, now_s=now_s)
    now_s += 1.0
    found = (await recommender.snapshots.for_similar(near, now_s=now_s)).similar_candidates()
    assert len(set(found.items.tolist())) == len(found.items)
    assert near not in found.items
    before = await recommender.similar("red 1", k=99, now_s=now_s)

    evidence = START
    for _ in range(100):
        evidence = taught(evidence, SimilarityChances(0.5, 0.25))
    ranker = ListwiseRanker(similarity_evidence=evidence)
    await shop.redis.hset(shop.key("ranker"), "interactions:state", ranker.state())
    after = await recommender.similar("red 1", k=99, now_s=now_s + 9.0)
    shares = []
    for answer in (before, after):
        scores = {one.item_id: one.score for one in answer.items}
        # Ada and Bob took the first one, too, and not the other.
        shares.append(scores["red 0"] / scores["red 5"])
    assert shares[1] > 5.0 * shares[0]
    assert after.items[0].score == pytest.approx(
        np.exp(similarity(found, evidence)).max(), rel=1e-3
    )


async def test_one_choice_of_a_few_teaches_about_similar_items(shop: Store) -> None:
    """What it says is of the user's last item alone, out of what the example read anyway."""
    now_s = NOW + 9000.0
    await renew_factors(shop, 800, most_events=10**6, now_s=now_s)
    recommender = Recommender(shop, seed=1)
    last, taken, stranger = await shop.item_indexes(["red 4", "last red", "blue 1"])
    snapshot = await recommender.snapshots.for_learning("ada", None, now_s=now_s + 1.0)
    assert snapshot.profile.last_item == last

    async def taught_by(item: int) -> list[SimilarityChances]:
        candidates = snapshot.candidates()
        choices = [
            await recommender.snapshots.choice(snapshot, candidates, item)
            for _ in range(SIMILARITY_EVERY)
        ]
        return [one.similarity for one in choices if one is not None and one.similarity]

    (chances,) = await taught_by(taken)
    alone = (await recommender.snapshots.for_similar(last, now_s=now_s + 1.0)).similar_candidates()
    assert chances == pytest.approx(chances_of(alone, taken), rel=0.2)
    assert chances.factors > 5 * chances.co_visited
    assert await taught_by(stranger) == []


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
