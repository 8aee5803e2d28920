"""The recommender on a real store: what changes an answer, and how it explains itself."""

from __future__ import annotations

import random
from collections.abc import Sequence

from models.recommender import Answer, Recommender
from models.store import Part, Store, StoredEvent, StoredMessage, shard_of

NOW = 1_790_000_000


class Shop:
    """A store that events are sent to, and the recommender on it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recommender = Recommender(store, store.settings)
        self.offset = -1
        self.now_s = NOW * 1.0

    async def send(self, user: str, *items: str, kind: str = "click", session: str = "") -> None:
        """Events of one user, or of a session without one, a minute apart."""
        for item in items:
            self.offset += 1
            self.now_s += 60
            purchase = kind == "purchase"
            event = StoredEvent(item, int(self.now_s), kind, 0.0, purchase, self.offset + 1)
            session_id = session or user
            message = StoredMessage(
                self.offset, user, session_id, shard_of(session_id), self.now_s, [event]
            )
            await self.store.apply([Part("p/0", self.offset - 1, [message])], now_s=self.now_s)

    async def recommend(self, user: str, **options: object) -> Answer:
        """What to recommend now."""
        self.now_s += 1
        return await self.recommender.recommend(user_id=user, now_s=self.now_s, **options)  # type: ignore[arg-type]


def ids(answer: Answer) -> Sequence[str]:
    """The item ids of an answer."""
    return [item.item_id for item in answer.items]


async def fill(shop: Shop) -> None:
    """Campers and readers."""
    for n in range(4):
        await shop.send(f"camper{n}", "tent", "stove", "lamp")
        await shop.send(f"reader{n}", "novel", "pen", "ink")


async def test_the_last_click_decides(store: Store) -> None:
    """A click moves what followed it to the top, with the click as the reason."""
    shop = Shop(store)
    await fill(shop)
    assert (await shop.recommend("ada")).recipe == "trending-now"

    await shop.send("ada", "tent")
    answer = await shop.recommend("ada", reasons=True)

    assert ids(answer)[0] == "stove"
    reason = answer.items[0].reasons[0]
    assert (reason.source, reason.item_id, reason.event_type) == ("event", "tent", "click")
    assert reason.occurred_at == int(shop.now_s) - 1
    await shop.send("ada", "novel")
    assert ids(await shop.recommend("ada"))[0] == "pen"


async def test_answers_are_ordered_and_bounded(store: Store) -> None:
    """Scores are in [0, 1] and fall; no item twice; the item looked at is not recommended."""
    shop = Shop(store)
    await fill(shop)
    await shop.send("ada", "tent")

    for k in (1, 3, 500):
        answer = await shop.recommend("ada", k=k, item_id="pen")
        scores = [item.score for item in answer.items]
        assert len(answer.items) <= k
        assert len(set(ids(answer))) == len(answer.items)
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert "pen" not in ids(answer)


async def test_equal_scores_are_in_order_of_ids(store: Store) -> None:
    """Items that nothing tells apart come in the order of their ids."""
    shop = Shop(store)
    for item in ("d", "b", "c", "a"):
        await shop.send("", item, session="one")
        shop.now_s -= 60

    assert list(ids(await shop.recommender.popular(now_s=shop.now_s))) == ["a", "b", "c", "d"]


async def test_purchases_can_be_left_out(store: Store) -> None:
    """What the user bought is left out where that is asked."""
    shop = Shop(store)
    await fill(shop)
    await shop.send("ada", "stove", kind="purchase")
    await shop.send("ada", "tent")

    assert "stove" in ids(await shop.recommend("ada"))
    assert "stove" not in ids(await shop.recommend("ada", exclude_purchased=True))


async def test_similar_and_ranked(store: Store) -> None:
    """Similar items were seen together; a given list is ordered, unknown ones last at 0."""
    shop = Shop(store)
    await fill(shop)
    await shop.send("ada", "tent")

    similar = await shop.recommender.similar("pen", k=2, now_s=shop.now_s)
    ranked = await shop.recommender.rank(
        ["zz", "ink", "stove", "aa"], user_id="ada", now_s=shop.now_s
    )

    assert set(ids(similar)) == {"novel", "ink"}
    assert list(ids(ranked)) == ["stove", "ink", "aa", "zz"]
    assert [item.score for item in ranked.items][2:] == [0, 0]


async def test_asking_changes_nothing(store: Store) -> None:
    """Recommending writes no key."""
    shop = Shop(store)
    await fill(shop)
    keys = await store.redis.dbsize()

    await shop.recommend("ada", session_id="s", item_id="unheard-of")

    assert await store.redis.dbsize() == keys


async def test_better_than_popularity(store: Store) -> None:
    """On a stream with structure, the next item is found far oftener than among the popular."""
    shop, chance = Shop(store), random.Random(7)
    hits = popular_hits = asked = 0
    for number in range(400):
        start = chance.randrange(40)
        items = [f"i{(start + step) % 40}" for step in range(3)]
        if number > 100:
            await shop.send("", *items[:2], session=f"s{number}")
            answer = await shop.recommender.recommend(
                session_id=f"s{number}", k=5, now_s=shop.now_s
            )
            popular = await shop.recommender.popular(k=5, now_s=shop.now_s)
            hits += items[2] in ids(answer)
            popular_hits += items[2] in ids(popular)
            asked += 1
            await shop.send("", items[2], session=f"s{number}")
        else:
            await shop.send("", *items, session=f"s{number}")

    assert hits > 0.9 * asked
    assert hits > 3 * popular_hits
