"""Rules of a request: what is taken out never appears, pins stand where they were pinned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInput
from models.filters.filter import parse_filter_expression
from models.filters.short_form import parse_item_filter
from models.served_messages import ServedList
from models.serving.answers import Answer, Recommendation
from models.serving.item_filters import ItemFilter
from models.serving.merchandising.rule_effects import boosted, pinned
from models.serving.merchandising.ruled_answers import answer_by_rules
from models.serving.merchandising.rules import Asker, Boost, Hide, Rules
from models.state.catalogue.metadata import put_items
from models.state.histories import History
from models.state.outcomes.served_outcomes import (
    ServedMessage,
    ServedPart,
    apply_served,
    stored_list,
)
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids

NAMES = st.lists(st.sampled_from([f"i{n}" for n in range(12)]), unique=True)
ITEMS = NAMES.map(lambda names: [Recommendation(name, 1 / (2 + n)) for n, name in enumerate(names)])


@given(ITEMS, st.dictionaries(st.integers(1, 9), st.sampled_from("abi"), max_size=3), st.data())
def test_pins_stand_at_their_slots(
    items: list[Recommendation], slots: dict[int, str], data: st.DataObject
) -> None:
    """The others keep their order, none is there twice, and a short list ends with the pins."""
    wanted = data.draw(
        st.lists(
            st.sampled_from([f"i{n}" for n in range(14)]),
            min_size=len(slots),
            max_size=len(slots),
            unique=True,
        )
    )
    pins = dict(zip(slots, wanted, strict=True))

    found = [one.item_id for one in pinned(items, pins, 9)]

    others = [one.item_id for one in items if one.item_id not in pins.values()]
    assert [name for name in found if name not in pins.values()] == others[: 9 - len(pins)]
    assert len(set(found)) == len(found) == min(9, len(others) + len(pins))
    for slot, name in pins.items():
        if slot <= len(others) + 1:
            assert found[slot - 1] == name
        assert name in found


@given(ITEMS, st.sets(st.sampled_from([f"i{n}" for n in range(12)])), st.floats(0.01, 100))
def test_boosts_change_the_order_only(
    items: list[Recommendation], among: set[str], factor: float
) -> None:
    """The same items, by their new scores."""
    found = boosted(items, among, factor)

    scores = {one.item_id: one.score * (factor if one.item_id in among else 1.0) for one in items}
    assert {one.item_id: one.score for one in found} == scores
    assert [one.score for one in found] == sorted(scores.values(), reverse=True)


@pytest.fixture
async def catalogue(store: Store) -> Shop:
    """Campers who took twelve items with properties, and one rare item that nobody took."""
    shop = Shop(store)
    names = [f"i{n:02}" for n in range(12)]
    for n in range(4):
        await shop.send(f"camper{n}", *names)
    records: list[tuple[str, dict[str, Any]]] = [
        (name, {"BRAND": "acme" if n % 3 else "zenith", "PRICE": n, "GENRES": "camp"})
        for n, name in enumerate(names)
    ]
    await put_items(store, [*records, ("rare", {"GENRES": "rare"})], shop.now_s)
    await shop.send("ada", "i00", "i01")
    await shop.send("ada", "i02", kind="purchase")
    return shop


async def answered(shop: Shop, rules: Rules, k: int = 5, user: str | None = "ada") -> list[str]:
    """Ids of the answer for a user by rules."""
    shop.now_s += 2

    async def ask(n: int, history: History | None) -> Answer:
        return await shop.recommender.recommend(
            user_id=user, k=n, now_s=shop.now_s, history=history
        )

    asker = Asker(user)
    answer = await answer_by_rules(shop.recommender, rules, ask, k=k, asker=asker, now_s=shop.now_s)
    return ids(answer)


async def test_without_rules_the_order_is_that_of_the_ranker(catalogue: Shop) -> None:
    """Rules that change nothing give the answer itself."""
    plain = ids(await catalogue.recommend("ada", k=5))

    assert await answered(catalogue, Rules()) == plain
    assert await answered(catalogue, Rules(exclude=frozenset(["unheard-of"]))) == plain


@pytest.mark.parametrize("k", [1, 5, 12])
async def test_what_is_taken_out_never_appears(catalogue: Shop, k: int) -> None:
    """Neither excluded nor hidden nor filtered items, nor by a boost or a pin."""
    rules = Rules(
        filters=(parse_item_filter("brand:acme"),),
        exclude=frozenset(["i04"]),
        hide=(Hide("purchased"),),
        boosts=(Boost(parse_item_filter("price>2"), 100.0),),
        pins={1: "i03", 2: "i02"} if k > 1 else {},
    )

    found = await answered(catalogue, rules, k)

    assert found
    assert {"i04", "i02", "i00", "i03", "i06", "i09"}.isdisjoint(found)
    assert len(found) == min(k, 6)


async def test_what_was_shown_is_hidden(catalogue: Shop) -> None:
    """To the user within a window, and to nobody else."""
    served = [
        ServedList(name, catalogue.now_s - at, [item, f"of-{at}"], "tt", user_id="ada")
        for name, at, item in (("r1", 50.0, "i05"), ("r2", 500.0, "i06"))
    ]
    part = ServedPart("s/0", -1, [ServedMessage(0, "", [stored_list(one) for one in served])])
    await apply_served(catalogue.store, [part], now_s=catalogue.now_s)

    def rules(window_s: float) -> Rules:
        return Rules(hide=(Hide("shown", window_s),))

    every = set(await answered(catalogue, Rules(), 50))
    assert {"i05", "i06"} <= every
    assert set(await answered(catalogue, rules(100.0), 50)) == every - {"i05"}
    assert set(await answered(catalogue, rules(1e9), 50)) == every - {"i05", "i06"}
    others = set(await answered(catalogue, Rules(), 50, user="camper0"))
    assert set(await answered(catalogue, rules(1e9), 50, user="camper0")) == others


async def test_what_was_shown_needs_to_be_kept(make_store: Callable[..., Store]) -> None:
    """Without outcomes nothing is, and the rule would do nothing."""
    shop = Shop(make_store(outcomes=False))
    await shop.send("ada", "i00", "i01")
    with pytest.raises(InvalidInput, match="RECOMMENDER_OUTCOMES"):
        await answered(shop, Rules(hide=(Hide("shown"),)))


@pytest.mark.parametrize(("window_s", "hidden"), [(50.0, {"i02"}), (1e9, {"i00", "i01", "i02"})])
async def test_seen_items_are_hidden_within_a_window(
    catalogue: Shop, window_s: float, hidden: set[str]
) -> None:
    """Those of the last seconds only, if so asked."""
    every = set(await answered(catalogue, Rules(), 50))

    found = set(await answered(catalogue, Rules(hide=(Hide("seen", window_s),)), 50))

    assert found == every - hidden


async def test_excluded_items_make_room_for_others(store: Store) -> None:
    """Though many times as many are excluded as are wanted."""
    shop = Shop(store)
    names = [f"n{n:03}" for n in range(520)]
    for at in range(0, len(names), 20):
        await shop.send(f"u{at}", "first", *names[at : at + 20])
    await shop.send("ada", "first")
    every = await answered(shop, Rules(), 600)
    assert len(every) > 150

    excluded = frozenset(every[:-20])
    found = await answered(shop, Rules(exclude=excluded), 15)

    assert len(found) == 15
    assert excluded.isdisjoint(found)


async def test_a_boost_moves_items_up_and_down(catalogue: Shop) -> None:
    """A factor above one to the front, below one to the end; two multiply."""
    dear, cheap = parse_item_filter("price>=9"), parse_item_filter("price<9")

    assert set((await answered(catalogue, Rules(boosts=(Boost(dear, 1000.0),))))[:3]) == {
        "i09", "i10", "i11",
    }  # fmt: skip
    plain = await answered(catalogue, Rules())
    both = (Boost(dear, 1000.0), Boost(cheap, 1000.0))
    assert await answered(catalogue, Rules(boosts=both)) == plain


async def test_a_rare_match_is_found(catalogue: Shop) -> None:
    """Though no candidate source has it: by the category that the filter names."""
    assert await answered(catalogue, Rules(filters=(parse_item_filter("genres:rare"),))) == ["rare"]


async def test_a_filter_of_interactions_needs_a_user(catalogue: Shop) -> None:
    """It is refused, not skipped."""
    found = parse_item_filter('EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("*")')

    assert not {"i00", "i01", "i02"} & set(await answered(catalogue, Rules(filters=(found,)), 12))
    with pytest.raises(InvalidInput, match="userId"):
        await answered(catalogue, Rules(filters=(found,)), user=None)


async def test_a_changed_record_changes_what_a_filter_allows(catalogue: Shop) -> None:
    """Decisions of filters are kept for as long as the properties they were made from."""
    acme = Rules(filters=(parse_item_filter("brand:acme"),))
    assert "i04" in await answered(catalogue, acme, 12)

    await put_items(catalogue.store, [("i04", {"BRAND": "zenith"})], catalogue.now_s)

    assert "i04" not in await answered(catalogue, acme, 12)


async def test_what_a_filter_needs_is_asked_for(catalogue: Shop) -> None:
    """Properties of a user need one, not a session; values are checked without candidates."""
    of_user = parse_filter_expression(
        'EXCLUDE ItemID WHERE Items.BRAND IN ("acme") IF CurrentUser.AGE < 17'
    )
    with_value = parse_filter_expression("INCLUDE ItemID WHERE Items.BRAND IN ($BRAND)")

    for asked in (ItemFilter(of_user, session_id="s"), ItemFilter(with_value)):
        with pytest.raises(InvalidInput, match=r"userId|BRAND"):
            await asked.allowed(catalogue.recommender, [], now_s=catalogue.now_s)


async def test_the_last_item_does_not_come_back(catalogue: Shop) -> None:
    """Neither among the candidates nor among others that the filter allows."""
    assert "i02" not in await answered(
        catalogue, Rules(filters=(parse_item_filter("price<3"),)), 12
    )
