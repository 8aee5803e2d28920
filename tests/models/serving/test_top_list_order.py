"""Heads not looked at for each request: the answers are still those of all candidates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.ranking.ranker import N_PARAMETERS, Ranker
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids

N_ITEMS = 300


async def filled(store: Store, rng: np.random.Generator) -> Shop:
    """A shop of many items that few users know; one of them has had many of them."""
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


@pytest.mark.parametrize("serving", ["blend", "ranker-alone", "ranker"])
@pytest.mark.parametrize("seed", range(3))
async def test_answers_are_those_of_all_candidates(
    make_store: Callable[..., Store], serving: str, seed: int
) -> None:
    """To ask for reasons looks at all heads; the same items come without, in the same order."""
    rng = np.random.default_rng(seed)
    shop = await filled(make_store(exploration_share=0), rng)
    ranker = Ranker(rng.normal(size=N_PARAMETERS))
    await shop.store.redis.hset(
        shop.store.key("ranker"),
        mapping={"interactions:state": ranker.state(), "interactions:serving": serving},
    )
    for user in ("u1", "u7", "u30"):
        for k in (1, 5, 25, 60):
            for options in ({}, {"item_id": "item-3"}):
                answer = await shop.recommend(user, k=k, **options)
                everything = await shop.recommend(user, k=k, reasons=True, **options)
                assert ids(answer) == ids(everything), (user, k, options)
    situations, looked_at = shop.recommender.situations, {1: 0, None: 0}
    for wanted in looked_at:
        for number in range(30):
            found = await situations.of(f"u{number}", None, now_s=shop.now_s, k=wanted)
            looked_at[wanted] += len(found.candidates.items)
    assert looked_at[1] < looked_at[None]
