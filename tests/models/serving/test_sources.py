"""Candidate sources and rankers: pre-ranking changes no answer, and a new one is one class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.arrays import Floats
from models.ranking.examples import Example, compared_orders
from models.ranking.features import FEATURES
from models.ranking.objectives import ObjectiveLearner
from models.ranking.ranker import N_PARAMETERS, RANKERS, ListwiseRanker
from models.retrieval.candidates import Evidence
from models.serving.cached.cache import StateCache
from models.serving.sources import SOURCES, RequestSnapshot, with_listed
from models.state import layout
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids

N_ITEMS = 300


async def filled(store: Store, rng: np.random.Generator) -> Shop:
    """A shop of many items with few users each; one user has had many of them."""
    shop, messages = Shop(store), []
    histories = [rng.integers(0, N_ITEMS, 4).tolist() for _ in range(30)]
    histories.append(rng.permutation(N_ITEMS)[:120].tolist())
    for user, items in enumerate(histories):
        for item in items:
            shop.offset += 1
            shop.now_s += 60
            event = StoredEvent(
                f"item-{item}", int(shop.now_s), "click", 0.0, False, shop.offset + 1
            )
            session = f"u{user}"
            messages.append(
                StoredMessage(shop.offset, session, session, shard_of(session), shop.now_s, [event])
            )
    await store.apply([Part("p/0", -1, messages)], now_s=shop.now_s)
    return shop


async def serve(shop: Shop, ranker: ListwiseRanker, champion: str) -> None:
    """Store a learned ranker and the name of the ranker to serve."""
    await shop.store.redis.hset(
        shop.store.key("ranker"),
        mapping={"interactions:state": ranker.state(), "interactions:serving": champion},
    )


@pytest.mark.parametrize("champion", ["blend", "ranker-alone", "ranker"])
@pytest.mark.parametrize("seed", range(3))
async def test_answers_are_those_of_all_candidates(
    make_store: Callable[..., Store], champion: str, seed: int
) -> None:
    """Reasons need all top-list candidates; the same items come without them, in the same order."""
    rng = np.random.default_rng(seed)
    shop = await filled(make_store(exploration_share=0), rng)
    await serve(shop, ListwiseRanker(rng.normal(size=N_PARAMETERS)), champion)
    for user in ("u1", "u7", "u30"):
        for k in (1, 5, 25, 60):
            for options in ({}, {"item_id": "item-3"}):
                answer = await shop.recommend(user, k=k, **options)
                everything = await shop.recommend(user, k=k, reasons=True, **options)
                assert ids(answer) == ids(everything), (user, k, options)
    snapshots, n_candidates = shop.recommender.snapshots, {1: 0, None: 0}
    for max_results in n_candidates:
        for number in range(30):
            snapshot = await snapshots.for_recommending(
                f"u{number}", None, now_s=shop.now_s, max_results=max_results
            )
            n_candidates[max_results] += len(snapshot.candidates().items)
    assert n_candidates[1] < n_candidates[None]


class OldFavourites:
    """A candidate source of one item that no other source finds."""

    has_signals = False

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:  # noqa: ARG002
        """List the item, if the group knows it."""
        found = np.array(await self._cache.store.item_indexes(["kite"]), np.int64)
        return with_listed(evidence, found[found > 0])


async def test_a_source_is_one_class_and_one_line(store: Store, monkeypatch: Any) -> None:
    """Its items are candidates in answers and in training examples."""
    monkeypatch.setattr("models.state.layout.TOPS", 3)
    plain = Shop(store)
    await plain.send("other", "kite")
    await plain.send("camper", *(f"item-{n}" for n in range(layout.TOPS + 3)))
    assert "kite" not in ids(await plain.recommend("camper", k=100))

    monkeypatch.setattr("models.serving.sources.SOURCES", [OldFavourites, *SOURCES])
    shop = Shop(store)
    shop.now_s, (kite,) = plain.now_s, await store.item_indexes(["kite"])

    assert "kite" in ids(await shop.recommend("camper", k=100))
    snapshot = await shop.recommender.snapshots.for_learning("camper", None, now_s=shop.now_s)
    assert kite in snapshot.candidates().items


class NewestFirst:
    """A ranker by the time since an item's first event."""

    uses_user_knn = False

    def scores(self, matrix: Floats) -> Floats:
        """Higher for later first events."""
        return -matrix[:, FEATURES.index("since_first_touch")]

    def contributions(self, matrix: Floats) -> Floats:
        """Of the only feature."""
        others = np.arange(len(FEATURES)) != FEATURES.index("since_first_touch")
        return np.where(others, 0.0, matrix.mean(axis=0) - matrix)


async def test_a_ranker_is_one_class_and_one_line(store: Store, monkeypatch: Any) -> None:
    """It is measured on every example, champion once it leads, and serves with reasons."""
    monkeypatch.setitem(RANKERS, "newest-first", lambda _: NewestFirst())
    learner = ObjectiveLearner()
    ranks = dict.fromkeys(compared_orders(), 2)
    for _ in range(400):
        learner.learn(Example(len(FEATURES), {}), ranks | {"newest-first": 1})
    assert learner.champion == "newest-first"

    shop = Shop(store)
    await shop.send("camper", "tent", "stove", "lamp", "kite")
    await shop.send("ada", "tent")
    await serve(shop, learner.ranker, learner.champion)
    answer = await shop.recommend("ada", reasons=True)

    assert ids(answer) == ["kite", "lamp", "stove"]
    assert answer.level == "ranked"
    assert answer.items[0].reasons[0].source == "new"
