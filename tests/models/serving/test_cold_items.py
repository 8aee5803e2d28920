"""Cold start of items: items of the same category, and the newest items."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.serving.answers import Answer
from models.serving.recommender import Recommender
from models.state.catalogue.metadata import put_items
from models.state.messages import Part, StoredEvent
from models.state.store import Store
from tests.models.state.reference import NOW, click, message

GENRES = {"tent": "camping", "stove": "camping|kitchen", "pan": "kitchen", "book": "reading"}


class Shop:
    """Items of a few genres, and the recommender of a store with them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recommender = Recommender(store)
        self.now_s = NOW + 1000
        self._offset = -1

    async def stock(self) -> None:
        """Put the items, a second between them."""
        for n, (name, genre) in enumerate(GENRES.items()):
            await put_items(self.store, [(name, {"GENRE": genre})], NOW + n)

    async def send(self, user: str, *items: str, kind: str = "click") -> None:
        """Events of one user, a minute apart."""
        for item in items:
            self._offset += 1
            self.now_s += 60
            event = click(item, self._offset, self.now_s)._replace(
                type=kind, is_purchase=kind == "purchase"
            )
            await self._apply(user, event)

    async def _apply(self, user: str, event: StoredEvent) -> None:
        one = message(self._offset, event, user=user, session=user)
        await self.store.apply([Part("p/0", self._offset - 1, [one])], now_s=self.now_s)


@pytest.fixture
async def shop(make_store: Callable[..., Store]) -> Shop:
    """A stocked shop without events."""
    one = Shop(make_store())
    await one.stock()
    return one


def told(answer: Answer) -> list[tuple[str, str]]:
    """Items and the sources of their first reasons; "" without reasons."""
    return [(item.item_id, item.reasons[0].source if item.reasons else "") for item in answer.items]


async def test_a_shop_without_events_shows_its_newest_items(shop: Shop) -> None:
    """The newest item comes first; from the first event on, trending items."""
    answer = await shop.recommender.recommend(user_id="ada", k=3, now_s=shop.now_s)
    assert told(answer) == [("book", "fresh"), ("pan", "fresh"), ("stove", "fresh")]
    assert (answer.recipe, answer.level) == ("trending-now", "trending")

    await shop.send("bob", "tent")
    answer = await shop.recommender.recommend(user_id="ada", k=3, now_s=shop.now_s)
    assert told(answer) == [("tent", "trending")]


async def test_items_of_the_same_category_come_first(shop: Shop) -> None:
    """The one with the newest event leads; then trending items, without the item itself."""
    await shop.send("bob", "book")
    await shop.send("eve", "tent")

    answer = await shop.recommender.similar("stove", k=9, now_s=shop.now_s)

    assert told(answer) == [("tent", "category"), ("pan", "category"), ("book", "trending")]
    assert [item.score for item in answer.items] == [1.0, 1 / 2, 1 / 3]
    assert (answer.recipe, answer.level) == ("similar-items", "retrieved")
    short = await shop.recommender.similar("stove", k=1, now_s=shop.now_s)
    assert told(short) == [("tent", "category")]


async def test_a_user_gets_the_categories_of_recent_items(shop: Shop) -> None:
    """Bought items can be excluded; an item being looked at counts as recent."""
    await shop.send("bob", "book", kind="purchase")
    await put_items(shop.store, [("novel", {"GENRE": "reading"})], NOW + 20)
    await shop.send("ada", "pan")

    answer = await shop.recommender.recommend(user_id="bob", k=1, now_s=shop.now_s)
    assert told(answer) == [("novel", "category")]
    answer = await shop.recommender.recommend(item_id="novel", k=9, now_s=shop.now_s)
    assert told(answer)[0] == ("book", "category")
    await shop.send("bob", "pan", kind="purchase")
    await shop.send("eve", *["tent"] * 3, *["poem"] * 4)
    await put_items(shop.store, [("wok", {"GENRE": "kitchen"})], NOW + 20)
    for is_out in (False, True):
        answer = await shop.recommender.recommend(
            session_id="x", item_id="wok", user_id="bob", k=9, now_s=shop.now_s,
            exclude_purchased=is_out,
        )  # fmt: skip
        assert ("pan" in dict(told(answer))) is not is_out


async def test_co_visitation_comes_before_categories(shop: Shop) -> None:
    """Items with neighbours are answered by them, also without categories."""
    await put_items(shop.store, [("plain", {})], NOW)
    await shop.send("ada", "stove", "book")

    answer = await shop.recommender.similar("stove", k=3, now_s=shop.now_s)
    assert told(answer)[0] == ("book", "")
    plain = await shop.recommender.similar("plain", k=9, now_s=shop.now_s)
    assert dict(told(plain)) == {"book": "", "stove": ""}


async def test_an_item_without_events_can_be_ranked(shop: Shop) -> None:
    """A cold item in a ranking has finite features and a rank."""
    await shop.send("ada", "stove", "book")

    answer = await shop.recommender.rank(["tent", "book"], user_id="ada", now_s=shop.now_s)

    assert sorted(item.item_id for item in answer.items) == ["book", "tent"]
    assert np.isfinite([item.score for item in answer.items]).all()
