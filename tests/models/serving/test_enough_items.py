"""Searches for enough items: what one has found out is not searched for again."""

from __future__ import annotations

from typing import Any

import pytest

from models.filters.short_form import parse_item_filter
from models.personalize.recipe_answers import answer as recipe_answer
from models.personalize.recipe_requests import RecipeRequest
from models.personalize.recipes import RECIPES
from models.serving.merchandising import ruled_answers
from models.serving.merchandising.placements import NO_CONFIGURATION
from models.serving.merchandising.questions import Question, answer_question
from models.serving.merchandising.rules import Asker, Cap, Rules
from models.serving.recommender import Recommender
from models.state.catalogue.metadata import put_items
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids

RULES = {
    "a rare filter": Rules(filters=(parse_item_filter("kind:rare"),)),
    "a filter that matches nothing": Rules(filters=(parse_item_filter("kind:none"),)),
    "a cap that never fills": Rules(
        filters=(parse_item_filter("price<90"),), caps=(Cap("brand", 1),)
    ),
}


@pytest.fixture
async def shop(store: Store) -> Shop:
    """A user of a catalogue of 120 items of four brands, most of which nobody took."""
    shop = Shop(store)
    records: list[tuple[str, dict[str, Any]]] = [
        (
            f"i{n:03}",
            {"PRICE": n % 100, "BRAND": f"b{n % 4}", "KIND": "usual" if n % 40 else "rare"},
        )
        for n in range(120)
    ]
    await put_items(store, records, shop.now_s)
    for n in range(4):
        await shop.send(f"camper{n}", *(f"i{one:03}" for one in range(1, 60)))
    await shop.send("ada", "i001", "i002")
    return shop


class Calls:
    """Counts calls of a function that stays as it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.n, original = 0, getattr(owner, name)

        async def counted(*args: Any, **options: Any) -> Any:
            self.n += 1
            return await original(*args, **options)

        monkeypatch.setattr(owner, name, counted)


async def answered(shop: Shop, rules: Rules, k: int = 25) -> list[str]:
    """Ids of an answer to ada by rules, in the next second."""
    shop.now_s += 2
    question = Question(Asker("ada"), shop.now_s)
    return ids(await answer_question(shop.recommender, question, NO_CONFIGURATION, rules, k=k))


@pytest.mark.parametrize("name", sorted(RULES))
async def test_what_can_not_fill_a_list_is_searched_for_once(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Until a record changes: then what is new is found."""
    searches = Calls(monkeypatch, ruled_answers, "others_allowed")
    wanted = {"a rare filter": 3, "a filter that matches nothing": 0, "a cap that never fills": 4}
    rules = RULES[name]

    first = await answered(shop, rules)
    assert len(first) == wanted[name]
    n = searches.n
    # A rare item is no candidate of its own: it is looked for wherever it is asked for.
    again = await answered(shop, rules)
    assert set(again) == set(first)
    assert searches.n == n + (name == "a rare filter")

    new = {"KIND": "none" if "nothing" in name else "rare", "PRICE": 1, "BRAND": "new"}
    await put_items(shop.store, [("new", new)], shop.now_s)
    assert set(await answered(shop, rules)) == {*first, "new"}


async def test_no_item_is_missed_though_another_has_expired_or_is_new(shop: Shop) -> None:
    """What is known is the most there may be, and known of these items alone."""
    rules = Rules(filters=(parse_item_filter("kind!:rare;price!:5,6"),), caps=(Cap("brand", 1),))
    assert len(await answered(shop, rules)) == 4

    # An item of no record, which the filter allows and no cap takes out.
    await shop.send("bob", "unheard-of")

    assert "unheard-of" in await answered(shop, rules)


async def test_a_length_that_is_too_short_is_not_asked_for_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the rules of a question, and by a filter of Amazon Personalize's."""
    asked = Calls(monkeypatch, Recommender, "recommend")
    rules = Rules(filters=(parse_item_filter("brand:b1"),))
    await answered(shop, rules, 9)
    assert asked.n == 2
    await answered(shop, rules, 9)
    assert asked.n == 3

    request = RecipeRequest(
        RECIPES["aws-user-personalization"], "ada", None, 9, filter=rules.filters[0]
    )
    # What a native question has found out holds here too.
    for n in (4, 5):
        shop.now_s += 2
        await recipe_answer(shop.recommender, request, now_s=shop.now_s)
        assert asked.n == n
