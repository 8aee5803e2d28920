"""Hidden items: in no answer from the moment the record is in effect, and back with a later one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.errors import InvalidRecord
from models.filters.short_form import parse_item_filter
from models.metadata_records import HIDDEN
from models.personalize.recipe_answers import answer as recipe_answer
from models.personalize.recipe_requests import RecipeRequest
from models.personalize.recipes import RECIPES
from models.serving.cached.cache import StateCache
from models.serving.merchandising.ruled_answers import answer_by_rules
from models.serving.merchandising.rules import Asker, Rules
from models.serving.recommender import Recommender
from models.settings import Settings
from models.state.catalogue.metadata import put_items
from models.state.clients.client import connect
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids

ITEMS = ("tent", "stove", "lamp", "novel", "pen", "ink")


async def hide(shop: Shop, item: str, *, hidden: object = True) -> None:
    """Put a record of an item that says whether it is hidden."""
    shop.now_s += 1
    await put_items(shop.store, [(item, {"KIND": "thing", HIDDEN: hidden})], shop.now_s)


async def every_answer(shop: Shop, *, k: int = 25) -> dict[str, list[str]]:
    """Item ids of each kind of answer."""
    shop.now_s += 10
    now_s, served = shop.now_s, shop.recommender
    kinds = {
        "known": served.recommend(user_id="ada", k=k, now_s=now_s, reasons=True),
        "plain": served.recommend(user_id="ada", k=k, now_s=now_s),
        "unknown": served.recommend(user_id="nobody", k=k, now_s=now_s),
        "similar": served.similar("tent", k=k, now_s=now_s),
        "trending": served.trending(k=k, now_s=now_s),
        "popular": served.popular(k=k, now_s=now_s),
        "rank": served.rank(ITEMS, user_id="ada", now_s=now_s),
        "pinned": answer_by_rules(
            served,
            Rules(filters=(parse_item_filter("kind:thing"),), pins={1: "stove"}),
            lambda n, history: served.recommend(user_id="ada", k=n, now_s=now_s, history=history),
            k=k,
            asker=Asker("ada"),
            now_s=now_s,
        ),
    }
    found = {name: ids(await asked) for name, asked in kinds.items()}
    for name in ("aws-user-personalization", "aws-sims", "aws-popularity-count"):
        request = RecipeRequest(RECIPES[name], "ada", "tent", k)
        found[name] = (await recipe_answer(served, request, now_s=now_s)).item_ids
    return found


@pytest.fixture
async def shop(make_store: Callable[..., Store]) -> Shop:
    """A shop whose items share a category and were all seen together."""
    shop = Shop(make_store(cache_s=0.5))
    for n in range(4):
        await shop.send(f"camper{n}", *ITEMS)
    await shop.send("ada", "tent")
    for item in ITEMS:
        await hide(shop, item, hidden=False)
    return shop


async def test_a_hidden_item_is_in_no_answer(shop: Shop) -> None:
    """Whatever is asked for; others take its place, and it comes back once it is shown again."""
    before = await every_answer(shop)
    assert all("stove" in found for found in before.values())
    short = await every_answer(shop, k=3)

    await hide(shop, "stove")

    after = await every_answer(shop)
    assert [name for name, found in after.items() if "stove" in found] == []
    assert {name: len(found) for name, found in (await every_answer(shop, k=3)).items()} == {
        name: len(found) - (name == "rank") for name, found in short.items()
    }
    assert "stove" not in ids(
        shop.recommender.from_cache(k=9, now_s=shop.now_s) or await shop.recommend()
    )
    await hide(shop, "stove", hidden=False)
    assert await every_answer(shop) == before


async def test_an_older_record_shows_nothing(shop: Shop) -> None:
    """The newest record decides, in whatever order they come; a removed one hides nothing."""
    await hide(shop, "stove")
    await put_items(shop.store, [("stove", {"KIND": "old"})], shop.now_s - 100)

    assert "stove" not in ids(await shop.recommender.popular(now_s=shop.now_s + 10))
    bits = await shop.store.redis.get(shop.store.key("hidden"))
    assert sum(map(int.bit_count, bits)) == 1


async def test_others_hear_of_it_at_once(redis_url: str) -> None:
    """A process that read the state a moment ago serves the next answer without the item."""
    settings = Settings(cache_s=60)
    writer, reader = connect(redis_url), connect(redis_url)
    await writer.flushdb()
    shop = Shop(Store(writer, settings))
    served = Store(reader, settings)
    cache = StateCache(served, hears_changes=True)
    other = Recommender(served, cache)
    try:
        await shop.send("camper", *ITEMS)
        assert "stove" in ids(await other.popular(now_s=shop.now_s))

        await hide(shop, "stove")
        # As a request does that waits for the record: reads come after what was heard before them.
        await served.values([served.key("history:u:ada")])

        assert "stove" not in ids(await other.popular(now_s=shop.now_s))
        assert "lamp" in ids(await other.popular(now_s=shop.now_s))
    finally:
        await cache.close()
        await writer.flushdb()
        await writer.aclose()
        await reader.aclose()


async def expire(shop: Shop, item: str, at: object) -> None:
    """Put a record of an item that is to vanish at a moment."""
    shop.now_s += 1
    await put_items(shop.store, [(item, {"KIND": "thing", "expiresAt": at})], shop.now_s)


async def test_an_item_vanishes_when_it_expires(shop: Shop) -> None:
    """From the moment on, in every answer, though nothing is read meanwhile."""
    before = await every_answer(shop)
    moment_s = shop.now_s + 100_000
    await expire(shop, "stove", moment_s)
    assert await every_answer(shop) == before
    shop.now_s = moment_s - 10 - 1.5
    almost = await every_answer(shop)
    assert all("stove" in found for found in almost.values())

    shop.now_s = moment_s - 10
    after = await every_answer(shop)

    assert [name for name, found in after.items() if "stove" in found] == []
    cached = shop.recommender.from_cache(k=9, now_s=shop.now_s)
    assert cached is not None
    assert "stove" not in ids(cached)
    await expire(shop, "stove", shop.now_s + 1e6)
    shown = await every_answer(shop)
    assert all("stove" in found for found in shown.values())


async def test_the_newest_record_says_when_an_item_expires(shop: Shop) -> None:
    """In whatever order they come, and a removed one says nothing."""
    moment_s = shop.now_s + 1000
    await expire(shop, "stove", moment_s)
    await put_items(shop.store, [("stove", {"EXPIRES_AT": 5})], shop.now_s - 100)
    assert "stove" in ids(await shop.recommender.popular(now_s=shop.now_s + 10))
    await expire(shop, "lamp", 5)
    await expire(shop, "lamp", None)

    shown = ids(await shop.recommender.popular(now_s=moment_s + 1))

    assert "stove" not in shown
    assert "lamp" in shown


@pytest.mark.parametrize(
    ("properties", "is_shown"),
    [
        ({"availability": "out of stock"}, False),
        ({"AVAILABILITY": "https://schema.org/OutOfStock"}, False),
        ({"Availability": "in stock"}, True),
        ({"AVAILABILITY": "preorder"}, True),
        ({"AVAILABILITY": False}, False),
    ],
)
async def test_what_is_not_there_is_in_no_answer(
    shop: Shop, properties: dict[str, object], is_shown: bool
) -> None:
    """As Google and schema.org write it; a later record of stock shows it again."""
    shop.now_s += 1
    await put_items(shop.store, [("stove", {"KIND": "thing", **properties})], shop.now_s)

    found = await every_answer(shop)

    assert {"stove" in one for one in found.values()} == {is_shown}
    await hide(shop, "stove", hidden=False)
    assert all("stove" in one for one in (await every_answer(shop)).values())


@pytest.mark.parametrize("at", ["soon", True, 0, -5])
async def test_an_expiry_that_is_no_moment_is_refused(shop: Shop, at: object) -> None:
    """It would never hide anything, and nobody would know."""
    with pytest.raises(InvalidRecord, match="EXPIRES_AT"):
        await expire(shop, "stove", at)


async def test_nothing_is_read_for_an_item_to_expire(shop: Shop) -> None:
    """A state that was read before the moment, and is not due to be read anew, has it no longer."""
    moment_s = shop.now_s + 30
    await expire(shop, "stove", moment_s)
    group = shop.store.settings.group
    served = Recommender(Store(shop.store.redis, Settings(group=group, cache_s=60)))
    assert "stove" in ids(await served.popular(now_s=moment_s - 0.1))
    read_at = served.cache.shared.read_at

    assert "stove" not in ids(await served.popular(now_s=moment_s))
    assert served.cache.shared.read_at == read_at
    for top in served.cache.shared.top_lists.values():
        assert served.cache.shared.shown(top).tolist() == top.tolist()
