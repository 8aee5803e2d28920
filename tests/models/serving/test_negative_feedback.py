"""Negative feedback: disliked items leave the user's own answers at once, and similar ones sink."""

from __future__ import annotations

import numpy as np
import pytest

from models.retrieval.negative_feedback import negative_feedback_of
from models.serving.answers import Answer
from models.serving.merchandising.ruled_answers import answer_by_rules
from models.serving.merchandising.rules import Asker, Hide, Rules
from models.state import layout
from models.state.histories import History
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids
from tests.models.state.reference import contents


async def turn_away(
    shop: Shop, user: str, *items: str, effect: int = layout.HIDES, kind: str = "dislike"
) -> None:
    """Negative events of a user."""
    for item in items:
        shop.offset += 1
        shop.now_s += 60
        event = StoredEvent(item, int(shop.now_s), kind, 0.0, False, shop.offset + 1, effect=effect)
        one = StoredMessage(shop.offset, user, user, shard_of(user), shop.now_s, [event])
        await shop.store.apply([Part("p/0", shop.offset - 1, [one])], now_s=shop.now_s)


@pytest.fixture
async def shop(store: Store) -> Shop:
    """A shop of campers and readers."""
    shop = Shop(store)
    for n in range(4):
        await shop.send(f"camper{n}", "tent", "stove", "lamp", "rope")
        await shop.send(f"reader{n}", "novel", "pen", "ink", "paper")
    return shop


async def test_a_disliked_item_leaves_the_users_answers(shop: Shop) -> None:
    """At once, from every answer to that user, and from nobody else's."""
    await shop.send("ada", "tent")
    await shop.send("bob", "tent")
    assert ids(await shop.recommend("ada"))[0] == "stove"

    await turn_away(shop, "ada", "stove")

    answer = await shop.recommend("ada")
    assert "stove" not in ids(answer)
    assert answer.disliked == ("stove",)
    assert ids(await shop.recommend("bob"))[0] == "stove"
    ranked = await shop.recommender.rank(
        ["stove", "ink", "never seen"], user_id="ada", now_s=shop.now_s
    )
    assert ids(ranked) == ["ink", "stove", "never seen"]
    explained = await shop.recommend("ada", reasons=True, exclude_purchased=True)
    assert "stove" not in ids(explained)


async def test_a_user_of_dislikes_alone_gets_other_trending_items(shop: Shop) -> None:
    """Who has no other events gets what trends, as many items, without the disliked ones."""
    trending = ids(await shop.recommender.trending(now_s=shop.now_s))

    await turn_away(shop, "new", trending[0], trending[2])

    answer = await shop.recommend("new", k=4)
    assert answer.level == "trending"
    assert ids(answer) == [one for one in trending if one not in answer.disliked][:4]


async def test_a_dislike_counts_as_nothing_positive(shop: Shop) -> None:
    """Lists of neighbours, popularity and top lists stay as they were; nobody is its owner."""
    await shop.send("ada", "tent")
    before = await contents(shop.store)

    await turn_away(shop, "ada", "stove")
    await turn_away(shop, "ada", "heard of by nobody")

    after = await contents(shop.store)
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {
        "counts", "history:u:ada", "recent", "types", "watermarks", "witnesses", "items", "ids",
    }  # fmt: skip
    await shop.send("ada", "lamp")
    (index,) = await shop.store.item_indexes(["stove"])
    stats = await shop.recommender.cache.stats(np.array([index]), shop.now_s)
    assert stats["events"].tolist() == [4]


async def test_similar_items_sink(shop: Shop) -> None:
    """What was seen together with a disliked item comes later, most for a dislike."""
    scores = {}
    for user in ("ada", "bea", "cyd"):
        await shop.send(user, "tent", "novel")
    await turn_away(shop, "bea", "lamp", effect=layout.SINKS, kind="skip")
    await turn_away(shop, "cyd", "lamp")
    for user in ("ada", "bea", "cyd"):
        answer = await shop.recommend(user)
        by_item = {one.item_id: one.score for one in answer.items}
        scores[user] = by_item["rope"] / by_item["paper"]

    assert scores["ada"] > scores["bea"] > scores["cyd"]


async def test_a_purchase_is_interest_again(shop: Shop) -> None:
    """A later purchase brings the item back; a click does not."""
    await shop.send("ada", "novel")
    await turn_away(shop, "ada", "pen")
    await shop.send("ada", "pen", "novel")
    assert "pen" not in ids(await shop.recommend("ada"))

    await shop.send("ada", "pen", kind="purchase")
    await shop.send("ada", "novel")

    assert "pen" in ids(await shop.recommend("ada"))


async def test_rules_add_no_disliked_item(shop: Shop) -> None:
    """A pin of a disliked item is not shown to the user; `hide=disliked` bars it elsewhere too."""
    await shop.send("ada", "tent")
    await turn_away(shop, "ada", "pen")

    async def ask(length: int, history: History | None) -> Answer:
        return await shop.recommend("ada", k=length, history=history)

    async def popular(length: int, _: History | None) -> Answer:
        return await shop.recommender.popular(k=length, now_s=shop.now_s)

    pinned = await answer_by_rules(
        shop.recommender, Rules(pins={1: "pen", 2: "ink"}), ask, k=3, asker=Asker("ada"),
        now_s=shop.now_s,
    )  # fmt: skip
    hidden = await answer_by_rules(
        shop.recommender, Rules(hide=(Hide("disliked"),)), popular, k=9, asker=Asker("ada"),
        now_s=shop.now_s,
    )  # fmt: skip

    assert "pen" not in ids(pinned)
    assert ids(pinned)[1] == "ink"
    assert len(ids(hidden)) == 7
    assert "pen" not in ids(hidden)


def test_the_last_feedback_on_an_item_counts() -> None:
    """Of an item's negative events the newest counts; a strong event ends all before it."""
    place = layout.EFFECT_PLACE
    items = np.array([-(place * layout.HIDES + 3), 3, -(place * layout.SINKS + 3), 4, 0])
    strong = np.zeros(256, np.bool_)
    strong[2] = True
    history = History(5, 0.0, items, np.arange(5), np.array([1, 1, 1, 2, 0], np.uint8))

    found = negative_feedback_of(history, strong)

    assert found.hidden.tolist() == [3]
    assert found.items.tolist() == [3]
    bought = history.types.copy()
    bought[1] = 2
    again = negative_feedback_of(History(5, 0.0, items, np.arange(5), bought), strong)
    assert (again.hidden.tolist(), again.items.tolist()) == ([], [3])
