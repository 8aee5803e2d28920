"""A rare filter finds what there is: all items are indexed by their properties."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.filters.filter import parse_filter_expression
from models.filters.short_form import parse_item_filter
from models.personalize.recipe_answers import answer
from models.personalize.recipe_requests import RecipeRequest
from models.personalize.recipes import RECIPES
from models.serving.cached import property_columns, property_index
from models.serving.cached.property_columns import PropertyColumns
from models.serving.cached.property_index import IndexedFilter
from models.serving.merchandising.placements import NO_CONFIGURATION
from models.serving.merchandising.questions import Question, answer_question
from models.serving.merchandising.rules import Asker, Boost, Cap, Hide, Rules
from models.serving.recommender import Recommender
from models.state import layout
from models.state.catalogue.metadata import put_items, put_users, scan_item_properties
from models.state.store import Store
from tests.models.filters.naive_filters import (
    IDS,
    SCENES,
    allowed_by_rules,
    expressions,
    sent,
    written,
)
from tests.models.serving.test_recommender import Shop, ids


@settings(max_examples=200)
@given(expressions("ItemID"), SCENES, st.integers(0, 2**32), st.sampled_from([1, 3, 64]))
def test_columns_lose_nothing_that_a_filter_allows(
    parts: list[dict[str, Any]], scene: dict[str, Any], seed: int, most_columns: int
) -> None:
    """And where it looks at properties alone, all of which have a column, they add nothing."""
    chance = random.Random(seed)
    found = parse_filter_expression(written(parts, chance))
    rows = [
        row and {name: value for name, value in row.items() if str(value) != "nan"}
        for row in scene["properties"]
    ]
    expected = allowed_by_rules(parts, scene | {"properties": rows})
    columns = PropertyColumns()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(property_columns, "MAX_COLUMNS", most_columns)
        for index, row in enumerate(rows, 1):
            columns.put(index, {"genres": "of before"})
            columns.put(index, row)
    if expected is None:
        return
    try:
        may = columns.may_allow(
            found,
            sent(scene["values"], chance),
            len(IDS) + 1,
            user=scene["user"],
            current_item=scene["current_item"],
        )
    except InvalidInput:
        pytest.fail("a value that the filter itself takes")

    allowed = {index for index, is_allowed in enumerate(expected, 1) if is_allowed}
    assert allowed <= set(may.tolist())
    is_whole = most_columns == 64 and not any(
        isinstance(value, int) and abs(value) > 2**53
        for row in rows
        for value in (row or {}).values()
    )
    names_items = "Items.itemid" in found.fields
    if is_whole and "interactions" not in found.reads and not names_items:
        assert set(may.tolist()) == allowed


async def filled(store: Store) -> Shop:
    """Campers who took the same popular items, and 400 others with properties."""
    shop = Shop(store)
    for n in range(8):
        await shop.send(f"camper{n}", *(f"hot{m}" for m in range(6)))
    records: list[tuple[str, dict[str, Any]]] = [
        (
            f"i{n:03}",
            {
                "KIND": "rare" if n % 13 == 0 else "plain",
                "PRICE": n / 2,
                "SIZE": f"s{n}",
                "TAGS": "sale|new" if n % 13 == 1 else "new",
                "IS_GIFT": n % 13 == 2,
                "RELEASED": f"2026-03-{1 + n % 13:02}",
                "BRAND": f"brand{n // 39}",
            },
        )
        for n in range(400)
    ]
    for at in range(0, len(records), 100):
        await put_items(store, records[at : at + 100], shop.now_s)
    await shop.send("ada", "hot1")
    return shop


async def found_by(
    shop: Shop, *texts: str, k: int = 25, item: str | None = None, **others: Any
) -> list[str]:
    """The answer of filters, and other rules, for a user who may be looking at an item."""
    shop.now_s += 1.5
    rules = Rules(filters=tuple(map(parse_item_filter, texts)), **others)
    question = Question(Asker("ada", None, item), shop.now_s)
    return ids(await answer_question(shop.recommender, question, NO_CONFIGURATION, rules, k=k))


@pytest.mark.parametrize(
    "text",
    [
        "kind:rare",
        "kind:rare;price<195",
        "price>=20;price<35",
        "size!:s1;kind!=plain",
        "tags:sale",
        "is_gift=true",
        "released>=2026-03-13",
        'EXCLUDE ItemID WHERE Items.KIND = "plain" OR Items.PRICE < 1',
    ],
)
async def test_a_rare_filter_finds_what_there_is(store: Store, text: str) -> None:
    """Natively and through Personalize, whatever the property, and the likeliest come first."""
    shop = await filled(store)

    found = await found_by(shop, text)

    assert len(set(found)) == 25
    request = RecipeRequest(
        RECIPES["aws-user-personalization"], "ada", None, 25, filter=parse_item_filter(text)
    )
    personalized = await answer(shop.recommender, request, now_s=shop.now_s)
    assert len(set(personalized.item_ids)) == 25


async def test_rare_items_are_found_through_combinations(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several filters, of the current item and the user, of interactions, with other rules."""
    monkeypatch.setattr("models.serving.enough_items.MAX_OTHERS", 60)
    shop = await filled(store)
    rare = {f"i{n:03}" for n in range(0, 400, 13)}

    assert set(await found_by(shop, "price>=0", "kind:rare", k=50)) == rare
    assert len(set(await found_by(shop, "price>=0", "kind:rare"))) == 25
    by_item = "INCLUDE ItemID WHERE Items.SIZE = CurrentItem.SIZE OR Items.PRICE < 1"
    assert set(await found_by(shop, by_item, item="i399", k=50)) == {"i000", "i001"}
    await put_users(store, [("ada", {"AGE": 9})], shop.now_s)
    of_user = (
        "EXCLUDE ItemID WHERE Items.PRICE > 2 IF CurrentUser.AGE < 17"
        " | INCLUDE ItemID WHERE Items.KIND = 'rare'"
    )
    assert await found_by(shop, of_user, k=50) == ["i000"]
    await shop.send("ada", "i007", "hot1")
    own = 'INCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("*")'
    assert set(await found_by(shop, own, "kind:plain", k=50)) == {"i007"}

    left_out: dict[str, Any] = {
        "exclude": frozenset(["i000", "i013"]),
        "hide": (Hide("seen"),),
        "boosts": (Boost(parse_item_filter("price>50"), 3.0),),
    }
    assert set(await found_by(shop, "kind:rare", k=29, **left_out)) == rare - {"i000", "i013"}
    # Three of each brand are rare, but for the last one.
    for boosts in ((), left_out["boosts"]):
        capped = await found_by(shop, "kind:rare", caps=(Cap("brand", 2),), boosts=boosts)
        assert len(capped) == 21
    two = await found_by(shop, "kind:rare;price>=0", "tags:new", caps=(Cap("brand", 1),), k=11)
    assert len(two) == 11


async def test_what_changes_is_found_by_the_next_question(store: Store) -> None:
    """A record is replaced, one is new, one is removed; all others are not read again."""
    shop = await filled(store)
    assert len(await found_by(shop, "kind:rare", k=50)) == 31
    await put_items(store, [("i001", {"KIND": "rare"}), ("new", {"KIND": "rare"})], shop.now_s)
    await put_items(store, [("i000", {"KIND": "plain"}), ("i001", {"KIND": "rare"})], shop.now_s)

    found = await found_by(shop, "kind:rare", k=50)

    assert len(found) == 32
    assert {"i001", "new"} <= set(found)
    assert "i000" not in found
    assert await found_by(shop, 'INCLUDE ItemID WHERE Items.ITEM_ID IN ("i007", "gone")') == [
        "i007"
    ]


async def test_what_is_not_known_is_read_again(
    make_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After many changes, or changes by an earlier release: all records, but not at once again."""
    monkeypatch.setattr(layout, "UPDATED", 5)
    store = make_store()
    shop = await filled(store)
    assert len(await found_by(shop, "kind:rare", k=50)) == 31
    records = [(f"x{n}", {"KIND": "rare"}) for n in range(9)]
    await put_items(store, records, shop.now_s)

    shop.now_s += property_index.PAUSE_S
    assert len(await found_by(shop, "kind:rare", k=50)) == 40
    # An earlier release counts its changes, and lists none.
    await store.redis.hincrby(store.key("counts"), "item_updates", 2)
    shop.now_s += property_index.PAUSE_S
    assert len(await found_by(shop, "kind:rare", k=50)) == 40
    await put_items(store, [("x0", {"KIND": "plain"})], shop.now_s)
    assert "x0" not in await found_by(shop, "kind:rare", k=50)


async def test_a_larger_catalogue_has_no_index(make_store: Callable[..., Store]) -> None:
    """Then categories and top lists are looked through, which have the last changed items."""
    store = make_store(filter_index_items=100)
    shop = await filled(store)

    items = await shop.recommender.cache.property_index.may_allow(
        [IndexedFilter(parse_item_filter("kind:rare"), {})], shop.now_s
    )

    assert items is None
    assert await found_by(shop, "kind:rare")


async def test_a_scan_holds_no_request_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on behind a request that has waited long enough."""
    shop = await filled(store)
    go_on = asyncio.Event()

    async def slow(of: Store) -> Any:
        await go_on.wait()
        async for rows in scan_item_properties(of):
            yield rows

    monkeypatch.setattr("models.serving.cached.property_index.scan_item_properties", slow)
    monkeypatch.setattr(property_index, "WAIT_S", 0.01)
    index = Recommender(store).cache.property_index
    rare = [IndexedFilter(parse_item_filter("kind:rare"), {})]

    assert await index.may_allow(rare, shop.now_s) is None
    go_on.set()
    assert index.task is not None
    await index.task
    found = await index.may_allow(rare, shop.now_s)
    assert found is not None
    assert len(found) == math.ceil(400 / 13)
