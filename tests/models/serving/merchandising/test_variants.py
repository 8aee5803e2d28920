"""Variants of a product: one of them in an answer, the best ranked; free where there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models.metadata_records import VARIANT
from models.personalize.recipe_answers import answer as recipe_answer
from models.personalize.recipe_requests import RecipeRequest
from models.personalize.recipes import RECIPES
from models.serving.answers import Answer
from models.serving.merchandising.placements import Configuration
from models.serving.merchandising.questions import Question, answer_question
from models.serving.merchandising.rules import Asker, Rules
from models.state.catalogue.metadata import put_items
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids

ITEMS = tuple(f"i{n:02}" for n in range(12))
PRODUCTS = {item: f"p{n % 4}" for n, item in enumerate(ITEMS)}
"""Three variants each of four products."""

RECIPE_NAMES = ("user-personalization", "similar-items", "trending-now", "popularity-count")


@pytest.fixture
async def shop(make_store: Callable[..., Store]) -> Shop:
    """Twelve items that went together, the first ones more often."""
    shop = Shop(make_store(exploration_share=0))
    for n in range(len(ITEMS)):
        await shop.send(f"camper{n}", *ITEMS[: len(ITEMS) - n])
    await shop.send("ada", "i00")
    return shop


async def name_products(shop: Shop, products: dict[str, Any]) -> None:
    """Put records of items with their products."""
    shop.now_s += 10
    records = [(item, {} if name is None else {VARIANT: name}) for item, name in products.items()]
    await put_items(shop.store, records, shop.now_s)
    shop.now_s += 10


async def answered(shop: Shop, recipe: Any, k: int, rules: Rules | None = None) -> Answer:
    """The answer of a recipe, as the API gives it."""
    question = Question(Asker("ada", item_id="i00"), shop.now_s)
    return await answer_question(
        shop.recommender, question, Configuration(recipe=recipe), rules, k=k
    )


@pytest.mark.parametrize("recipe", RECIPE_NAMES)
async def test_one_of_a_product_is_shown(shop: Shop, recipe: str) -> None:
    """The best ranked; others make the answer as long as it was asked for."""
    plain = ids(await answered(shop, recipe, 12))

    await name_products(shop, PRODUCTS)

    shown = ids(await answered(shop, recipe, 12))
    best = list(dict.fromkeys(PRODUCTS[item] for item in plain))
    assert [PRODUCTS[item] for item in shown] == best
    assert shown == [next(i for i in plain if PRODUCTS[i] == name) for name in best]
    assert ids(await answered(shop, recipe, 3)) == shown[:3]


@pytest.mark.parametrize("recipe", ["user-personalization", "sims", "popularity-count"])
async def test_one_of_a_product_in_personalize_too(shop: Shop, recipe: str) -> None:
    """Of GetRecommendations and batch jobs."""
    await name_products(shop, PRODUCTS)

    for length in (3, 12):
        request = RecipeRequest(RECIPES[f"aws-{recipe}"], "ada", "i00", length)
        found = (await recipe_answer(shop.recommender, request, now_s=shop.now_s)).item_ids
        products = [PRODUCTS[item] for item in found]
        assert len(products) == len(set(products)) >= 3


async def test_a_pinned_variant_is_the_one(shop: Shop) -> None:
    """The others of its product give way, however well ranked."""
    await name_products(shop, PRODUCTS)

    shown = ids(await answered(shop, "popularity-count", 12, Rules(pins={2: "i08"})))

    assert shown[1] == "i08"
    assert [item for item in shown if PRODUCTS[item] == "p0"] == ["i08"]
    assert len(shown) == 4


async def test_given_items_are_all_ranked(shop: Shop) -> None:
    """Who asks for an order of items gets all of them."""
    await name_products(shop, PRODUCTS)

    answer = await shop.recommender.rank(ITEMS, user_id="ada", now_s=shop.now_s)

    assert sorted(ids(answer)) == list(ITEMS)


async def test_variants_are_counted_exactly(shop: Shop) -> None:
    """Whatever is put, in any order and again; without one, answers are as before."""
    plain = ids(await answered(shop, "popularity-count", 12))
    counts = shop.store.key("counts")
    await name_products(shop, PRODUCTS)
    await name_products(shop, PRODUCTS)
    assert await shop.store.redis.hget(counts, "variants") == b"12"
    # An older record changes nothing.
    await put_items(shop.store, [("i00", {})], shop.now_s - 1000)
    assert await shop.store.redis.hget(counts, "variants") == b"12"

    await name_products(shop, dict.fromkeys(PRODUCTS))

    assert await shop.store.redis.hget(counts, "variants") == b"0"
    assert ids(await answered(shop, "popularity-count", 12)) == plain
