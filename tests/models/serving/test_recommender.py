"""The recommender on a real store: answers, their reasons, and the state cache."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import redis.exceptions

from models.ranking.features import BASE, FEATURES
from models.ranking.ranker import ListwiseRanker, layers_of
from models.retrieval.covisitation import unpack_neighbours
from models.serving.answers import Answer
from models.serving.recommender import Recommender
from models.state.clients.client import connect
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from models.state.stored_ranker import save_ranker
from tests.models.state.reference import NOW, contents
from tests.servers import own_port


class Shop:
    """A store, events sent to it, and the recommender on it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recommender = Recommender(store)
        self.offset = -1
        self.now_s = NOW * 1.0

    async def send(self, user: str, *items: str, kind: str = "click", session: str = "") -> None:
        """Events of one user, or of a session without one, a minute apart."""
        for item in items:
            self.offset += 1
            self.now_s += 60
            purchase = kind.lower() == "purchase"
            event = StoredEvent(item, int(self.now_s), kind, 0.0, purchase, self.offset + 1)
            session_id = session or user
            message = StoredMessage(
                self.offset, user, session_id, shard_of(session_id), self.now_s, [event]
            )
            await self.store.apply([Part("p/0", self.offset - 1, [message])], now_s=self.now_s)

    async def recommend(self, user: str | None = None, **options: Any) -> Answer:
        """Recommendations now."""
        self.now_s += 1
        return await self.recommender.recommend(user_id=user, now_s=self.now_s, **options)


def ids(answer: Answer) -> list[str]:
    """The item ids of an answer."""
    return [item.item_id for item in answer.items]


@pytest.fixture
async def shop(store: Store) -> Shop:
    """A shop of campers and readers."""
    shop = Shop(store)
    for n in range(4):
        await shop.send(f"camper{n}", "tent", "stove", "lamp")
        await shop.send(f"reader{n}", "novel", "pen", "ink")
    return shop


async def test_a_rare_item_has_second_order_candidates(shop: Shop) -> None:
    """Items of second-order co-visitation are found, with the click as the reason."""
    await shop.send("finder", "odd find", "stove")
    await shop.send("ada", "odd find")

    answer = await shop.recommend("ada", reasons=True)

    assert ids(answer)[0] == "stove"
    hop = next(item for item in answer.items if item.item_id == "lamp")
    assert hop.score > next(item for item in answer.items if item.item_id == "ink").score
    assert ("event", "odd find") in [(reason.source, reason.item_id) for reason in hop.reasons]


async def test_the_last_click_changes_the_answer(shop: Shop) -> None:
    """Items that followed the clicked one move to the top, with the click as the reason."""
    assert (await shop.recommend("ada")).recipe == "trending-now"

    await shop.send("ada", "tent")
    answer = await shop.recommend("ada", reasons=True)

    assert ids(answer)[0] == "stove"
    assert (answer.recipe, answer.level) == ("user-personalization", "retrieved")
    reason = answer.items[0].reasons[0]
    assert (reason.source, reason.item_id, reason.event_type) == ("event", "tent", "click")
    assert reason.occurred_at == int(shop.now_s) - 1
    assert reason.share == 1.0
    await shop.send("ada", "novel")
    assert ids(await shop.recommend("ada"))[0] == "pen"


async def test_unknown_users_get_trending_items(shop: Shop) -> None:
    """Unknown users, sessions and items get trending items, with that reason."""
    trending = ids(await shop.recommender.trending(now_s=shop.now_s))
    assert sorted(trending) == ["ink", "lamp", "novel", "pen", "stove", "tent"]

    for who in ({"user": "nobody"}, {"session_id": "none"}, {}, {"item_id": "unheard-of"}):
        answer = await shop.recommend(**who, reasons=True)
        assert (ids(answer), answer.level) == (trending, "trending")
        assert answer.user_accepted_at == 0.0
        assert answer.items[0].reasons[0].source == "trending"


async def test_a_quiet_shop_has_a_trend(shop: Shop) -> None:
    """While every rate falls, trending items are still ordered by rate, not by id."""
    shop.now_s += 6 * 3600
    await shop.send("late", "zither")
    shop.now_s += 1800
    await shop.send("later", "ink")

    answer = await shop.recommender.trending(now_s=shop.now_s)

    assert ids(answer)[:2] == ["ink", "zither"]
    assert len({item.score for item in answer.items}) == len(answer.items)


async def test_an_empty_shop_has_empty_answers(store: Store) -> None:
    """Before the first event every recipe has an empty answer."""
    shop = Shop(store)
    recommender, now_s = shop.recommender, shop.now_s
    answers = [
        await shop.recommend("ada", item_id="tent", reasons=True, exclude_purchased=True),
        await recommender.similar("tent", now_s=now_s),
        await recommender.trending(now_s=now_s),
        await recommender.popular(now_s=now_s),
        await recommender.rank([], user_id="ada", now_s=now_s),
    ]

    assert [answer.items for answer in answers] == [[]] * 5
    assert {answer.newest_accepted_at for answer in answers} == {0.0}
    ranked = await recommender.rank(["b", "a"], now_s=now_s)
    assert [(item.item_id, item.score) for item in ranked.items] == [("a", 0), ("b", 0)]


@pytest.mark.parametrize("k", [1, 3, 500])
async def test_answers_are_ordered_and_bounded(shop: Shop, k: int) -> None:
    """Scores are in [0, 1] and fall, ties by id; no item twice; never more than asked for."""
    await shop.send("ada", "tent")
    recommender, now_s = shop.recommender, shop.now_s
    answers = [
        await shop.recommend("ada", k=k, item_id="pen"),
        await shop.recommend("stranger", k=k),
        await recommender.similar("pen", k=k, now_s=now_s),
        await recommender.trending(k=k, now_s=now_s),
        await recommender.popular(k=k, now_s=now_s),
        await recommender.rank(["pen", "tent", "pen", "x"], user_id="ada", now_s=now_s),
    ]

    for answer in answers:
        keys = [(-item.score, item.item_id) for item in answer.items]
        assert keys == sorted(keys)
        assert all(0 <= item.score <= 1 for item in answer.items)
        assert len(set(ids(answer))) == len(answer.items)
        assert 1 <= len(answer.items) <= max(k, 3)
    assert all(len(answer.items) <= k for answer in answers[:-1])


async def test_the_item_looked_at_is_the_newest(shop: Shop) -> None:
    """The item looked at counts as the newest event, and is not recommended itself."""
    await shop.send("ada", "tent")

    answer = await shop.recommend("ada", item_id="novel", reasons=True)

    assert ids(answer)[0] == "pen"
    assert "novel" not in ids(answer)
    assert answer.items[0].reasons[0].event_type == "view"
    assert answer.items[0].reasons[0].occurred_at is None
    assert ids(await shop.recommend("ada", item_id="unheard-of"))[0] == "stove"
    assert ids(await shop.recommend(item_id="novel"))[0] == "pen"


async def test_equal_scores_are_in_order_of_ids(store: Store) -> None:
    """Ties are ordered by id, also at the end of the answer."""
    shop = Shop(store)
    for item in ("d", "b", "c", "a"):
        await shop.send("", item, session="one")
        shop.now_s -= 60

    for k in (1, 2, 4, 9):
        answer = await shop.recommender.popular(k=k, now_s=shop.now_s)
        assert ids(answer) == ["a", "b", "c", "d"][:k]


@pytest.mark.parametrize("kind", ["purchase", "Purchase"])
async def test_purchases_can_be_excluded(shop: Shop, kind: str) -> None:
    """Bought items are excluded if so asked, from all items of the answer."""
    await shop.send("ada", "stove", kind=kind)
    await shop.send("ada", "tent")
    assert "stove" in ids(await shop.recommend("ada"))
    assert "stove" not in ids(await shop.recommend("ada", exclude_purchased=True))

    await shop.send("bob", "", kind=kind)
    assert "stove" in ids(await shop.recommend("bob", exclude_purchased=True))


async def test_the_first_purchase_of_all_can_be_excluded(make_store: Callable[..., Store]) -> None:
    """An event type that is newer than the cached state counts at once."""
    shop = Shop(make_store(cache_s=60))
    await shop.send("bob", "tent", "stove", "lamp")
    await shop.recommend("bob")
    read_at = shop.now_s
    await shop.send("ada", "stove", kind="purchase")
    await shop.send("ada", "tent")

    shop.now_s = read_at
    assert "lamp" in ids(await shop.recommend("ada", exclude_purchased=True))
    assert "stove" not in ids(await shop.recommend("ada", exclude_purchased=True))


async def test_similar_and_ranked(shop: Shop) -> None:
    """Similar items are co-visited; a given list is ranked, unknown items last with score 0."""
    await shop.send("ada", "tent")
    recommender, now_s = shop.recommender, shop.now_s

    similar = await recommender.similar("pen", k=2, now_s=now_s)
    ranked = await recommender.rank(["zz", "ink", "stove", "ink", "aa"], user_id="ada", now_s=now_s)

    assert (set(ids(similar)), similar.recipe) == ({"novel", "ink"}, "similar-items")
    assert (await recommender.similar("unheard-of", now_s=now_s)).recipe == "trending-now"
    assert ids(ranked) == ["stove", "ink", "aa", "zz"]
    assert [item.score for item in ranked.items][2:] == [0, 0]
    assert sum(item.score for item in ranked.items) == pytest.approx(1)


async def test_popular_counts_events(shop: Shop) -> None:
    """Popular items are ordered by their number of events, scaled to the greatest."""
    await shop.send("", "ink", "pen", "ink", session="x")

    answer = await shop.recommender.popular(k=3, now_s=shop.now_s + 1)

    assert [(item.item_id, item.score) for item in answer.items] == [
        ("ink", 1.0), ("pen", 5 / 6), ("lamp", 4 / 6),
    ]  # fmt: skip
    assert answer.items[0].reasons[0].source == "popular"


async def test_a_session_is_served_before_and_after_login(shop: Shop) -> None:
    """A session without user has its own history; once linked, it counts once for the user."""
    await shop.send("", "tent", session="s1")
    assert ids(await shop.recommend(session_id="s1"))[0] == "stove"
    assert (await shop.recommend("ada")).level == "trending"
    assert ids(await shop.recommend("ada", session_id="s1"))[0] == "stove"

    await shop.send("ada", "novel", session="s1")
    history = await shop.recommender.snapshots.history("ada", "s1", now_s=shop.now_s)

    assert await shop.store.item_ids(history.items.tolist()) == ["tent", "novel"]
    by_session = await shop.recommender.snapshots.history(None, "s1", now_s=shop.now_s)
    assert by_session.items.tolist() == history.items.tolist()
    answer = await shop.recommend(session_id="s1", reasons=True)
    assert ids(answer) == ids(await shop.recommend("ada"))
    causes = {r.item_id for item in answer.items for r in item.reasons if r.source == "event"}
    assert causes == {"tent", "novel"}


async def test_reasons_without_events_name_a_top_list(shop: Shop) -> None:
    """Items that are not co-visited with the user's are explained by their top list."""
    await shop.send("loner", "kite")

    answer = await shop.recommend("loner", reasons=True)

    assert {reason.source for item in answer.items for reason in item.reasons} == {"trending"}
    await shop.send("loner", "tent")
    for item in (await shop.recommend("loner", reasons=True)).items:
        shares = [reason.share for reason in item.reasons if reason.share is not None]
        assert shares == sorted(shares, reverse=True)
        assert not shares or sum(shares) == pytest.approx(1)


async def test_the_champion_serves(shop: Shop) -> None:
    """The stored champion ranks the answer, within the age of the cache."""
    await shop.send("ada", "tent")
    before = ids(await shop.recommend("ada"))
    contrary = ListwiseRanker()
    layers_of(contrary.parameters).weights[BASE] = -2.0
    layers_of(contrary.parameters).weights[FEATURES.index("in_context")] = -1e-9

    async def learned(serving: str, expected: int) -> Answer:
        fields: dict[str, bytes | str] = {
            "interactions:state": contrary.state(),
            "interactions:serving": serving,
        }
        assert await save_ranker(
            shop.store, fields, field="x/0", expected=expected, offset=expected + 1
        )
        return await shop.recommend("ada")

    unchanged = await learned("blend", -1)
    turned = await learned("ranker", 0)

    assert (ids(unchanged), unchanged.level) == (before, "retrieved")
    assert turned.level == "ranked"
    assert ids(turned)[-1] == before[0]


async def test_requests_change_no_state(shop: Shop) -> None:
    """No recipe writes a key or changes a value, and two processes give equal answers."""
    await shop.send("ada", "tent", "pen")
    before = await contents(shop.store)
    other = Shop(shop.store)
    other.now_s = shop.now_s

    for one in (shop, other):
        await one.recommend("ada", session_id="s", item_id="unheard-of", reasons=True)
        await one.recommender.similar("pen", now_s=one.now_s)
        await one.recommender.rank(["pen", "new"], user_id="ada", now_s=one.now_s)

    assert await contents(shop.store) == before
    assert await shop.recommend("ada", reasons=True) == await other.recommend("ada", reasons=True)


async def test_better_than_popularity(store: Store) -> None:
    """On a structured stream, far more next items are hit than by popularity."""
    shop, chance = Shop(store), random.Random(7)
    hits = popular_hits = asked = 0
    for number in range(300):
        start = chance.randrange(40)
        items = [f"i{(start + step) % 40}" for step in range(3)]
        if number > 150:
            await shop.send("", *items[:2], session=f"s{number}")
            answer = await shop.recommend(session_id=f"s{number}", k=5)
            popular = await shop.recommender.popular(k=5, now_s=shop.now_s)
            hits += items[2] in ids(answer)
            popular_hits += items[2] in ids(popular)
            asked += 1
            await shop.send("", items[2], session=f"s{number}")
        else:
            await shop.send("", *items, session=f"s{number}")

    assert hits > 0.9 * asked
    assert hits > 3 * popular_hits


async def test_concurrent_requests(shop: Shop) -> None:
    """Requests that run at the same time each get their own answer."""
    alone = [await shop.recommend(f"reader{n}") for n in range(4)]
    alone += [await shop.recommend(f"camper{n}") for n in range(4)]
    shop.now_s += 1

    together = await asyncio.gather(
        *(
            shop.recommender.recommend(user_id=f"{kind}{n}", now_s=shop.now_s)
            for kind in ("reader", "camper")
            for n in range(4)
        )
    )

    assert list(map(ids, together)) == list(map(ids, alone))


async def test_shared_state_is_cached_and_histories_are_not(
    make_store: Callable[..., Store],
) -> None:
    """Shared state may be `cache_s` old, also by a clock set back; a history never is."""
    shop = Shop(make_store(cache_s=10))
    await shop.send("a", "tent", "stove")
    start_s = shop.now_s
    recommender = shop.recommender
    assert ids(await recommender.recommend(user_id="a", now_s=start_s)) == ["tent"]

    await shop.send("b", "tent", "lamp")
    await shop.send("a", "tent")

    def at(now_s: float) -> Any:
        return recommender.recommend(user_id="a", now_s=now_s)

    assert ids(await at(start_s + 9)) == ["stove"]
    assert sorted(ids(await at(start_s + 30))) == ["lamp", "stove"]
    await shop.send("c", "tent", "kite")
    assert sorted(ids(await at(start_s - 1000))) == ["kite", "lamp", "stove"]
    await recommender.cache.close()


async def test_trending_items_are_answered_from_cache(shop: Shop) -> None:
    """With the store away, the last read trending items remain; without a read, none."""
    assert Shop(shop.store).recommender.from_cache(k=3, now_s=shop.now_s) is None
    await shop.recommend("ada")
    here, shop.store.redis = shop.store.redis, connect(f"redis://127.0.0.1:{own_port()}")

    with pytest.raises(redis.exceptions.ConnectionError):
        await shop.recommend("ada")
    answer = shop.recommender.from_cache(k=3, now_s=shop.now_s)

    shop.store.redis = here
    assert answer is not None
    assert (answer.level, len(answer.items)) == ("cached", 3)
    assert [item.score for item in answer.items] == [1, 1 / 2, 1 / 3]


async def test_evicted_neighbour_lists_are_still_returned(make_store: Callable[..., Store]) -> None:
    """Lists that are evicted during a read are still in its result."""
    shop = Shop(make_store(cache_s=60))
    await shop.send("a", "tent", "stove", "lamp")
    state = shop.recommender.cache
    await state.refresh(shop.now_s)
    tent, stove, lamp = await shop.store.item_indexes(["tent", "stove", "lamp"])
    state._lists.size = 1
    await state.neighbours([tent], shop.now_s)

    one, two = await asyncio.gather(
        state.neighbours([stove, lamp], shop.now_s), state.neighbours([tent, lamp], shop.now_s)
    )

    counts = [len(unpack_neighbours(raw, shop.now_s).items) for raw in (*one, *two)]
    assert counts == [2, 2, 2, 2]
    assert len(state._lists) == 1
