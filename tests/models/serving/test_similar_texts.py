"""New items are found from their texts, in similar items, recommendations and rankings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.retrieval.signals import TEXT
from models.serving.recommender import Recommender
from models.state import layout
from models.state.catalogue.metadata import put_items
from models.state.messages import Part
from models.state.store import Store
from tests.models.state.reference import NOW, click, message

TITLES = {
    "red tent": "Red tent for two",
    "stove": "Gas stove",
    "lamp": "Reading lamp of brass",
    "green tent": "Green tent for four",
}


N_EVENTS = 92
"""Events of the shop."""


async def send(store: Store, offset: int, user: str, *items: str) -> int:
    """Clicks of a user, a minute apart; returns the next offset."""
    messages = [
        message(
            offset + n, click(item, offset + n, NOW + 60 * (offset + n)), user=user, session=user
        )
        for n, item in enumerate(items)
    ]
    await store.apply([Part("p/0", offset - 1, messages)], now_s=NOW)
    return offset + len(items)


@pytest.fixture
async def shop(make_store: Callable[..., Store]) -> Recommender:
    """Red tent, stove and lamp are bought together; the green tent has no event yet."""
    store = make_store()
    items = [(name, {"TITLE": TITLES[name]}) for name in ("red tent", "stove", "lamp")]
    await put_items(store, items, NOW)
    offset = 0
    for n in range(30):
        offset = await send(store, offset, f"u{n}", "red tent", "stove", "lamp")
    assert await send(store, offset, "ada", "lamp", "red tent") == N_EVENTS
    return Recommender(store, seed=1)


async def test_a_new_item_is_a_candidate_with_its_record(shop: Recommender) -> None:
    """Of the items that have no event, the one like what the user last saw comes before another."""
    now_s = NOW + 9000.0
    before = await shop.similar("red tent", k=9, now_s=now_s)
    assert {one.item_id for one in before.items} == {"stove", "lamp"}

    await put_items(
        shop.store,
        [("green tent", {"TITLE": TITLES["green tent"]}), ("book", {"TITLE": "A book"})],
        NOW + 1,
    )

    later = now_s + 2 * shop.store.settings.cache_s + 1
    found = [one.item_id for one in (await shop.similar("red tent", k=9, now_s=later)).items]
    assert "green tent" in found
    assert "book" not in found
    answer = await shop.recommend(user_id="ada", k=9, now_s=later, reasons=True)
    reasons = {one.item_id: one.reasons[0].source for one in answer.items if one.reasons}
    assert reasons["green tent"] == "text"
    ranked = await shop.rank(["book", "green tent"], user_id="ada", now_s=later)
    assert [one.item_id for one in ranked.items] == ["green tent", "book"]
    assert ranked.items[0].score > ranked.items[1].score


async def test_a_new_item_shows_those_like_it(shop: Recommender) -> None:
    """Its own page has known items with similar texts first, though nothing was seen with it."""
    await put_items(shop.store, [("green tent", {"TITLE": TITLES["green tent"]})], NOW + 1)
    answer = await shop.similar("green tent", k=9, now_s=NOW + 9000.0)
    assert answer.items[0].item_id == "red tent"


async def test_texts_fade_as_events_come(shop: Recommender) -> None:
    """The signal falls with each event, and is gone when others know the item well enough."""
    await put_items(shop.store, [("green tent", {"TITLE": TITLES["green tent"]})], NOW + 1)
    (green,) = await shop.store.item_indexes(["green tent"])
    weights, offset = [], N_EVENTS
    for n_events in (0, layout.COLD_EVENTS // 2, layout.COLD_EVENTS):
        while offset < N_EVENTS + n_events:
            offset = await send(shop.store, offset, f"v{offset}", "green tent")
        later = NOW + 9000.0 + 1000 * n_events
        snapshot = await shop.snapshots.for_recommending("ada", None, now_s=later)
        candidates = snapshot.candidates()
        weights.append(float(candidates.signals[candidates.items == green, TEXT].sum()))
    assert weights[0] > weights[1] > weights[2] == 0.0


async def test_a_shop_without_texts_reads_nothing(make_store: Callable[..., Store]) -> None:
    """Records without words leave no lists, and no signal."""
    store = make_store()
    await put_items(store, [("a", {"PRICE": 2}), ("b", {"PRICE": 2})], NOW)
    await send(store, 0, "ada", "a", "b")
    recommender = Recommender(store, seed=1)
    snapshot = await recommender.snapshots.for_recommending("ada", None, now_s=NOW + 99.0)
    assert not len(snapshot.evidence.similar_texts.items)
    assert not np.any(snapshot.candidates().signals[:, TEXT])
    assert not await store.redis.keys(store.key("term*"))
