"""Any rules together: what they say of an answer holds, whatever else is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.filters.short_form import parse_item_filter
from models.serving.merchandising.placements import NO_CONFIGURATION
from models.serving.merchandising.questions import Question, answer_question
from models.serving.merchandising.rules import Asker, Boost, Cap, Hide, Rules
from models.settings import Settings
from models.state.catalogue.metadata import put_items
from models.state.clients.client import connect
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids

NAMES = [f"i{n:02}" for n in range(40)]
BRANDS = {name: ["acme", "zenith", "oak", "elm|oak"][n % 4] for n, name in enumerate(NAMES)}
PRICES = {name: n % 10 for n, name in enumerate(NAMES)}
FILTERS: dict[str, Callable[[str, Mapping[str, str]], bool]] = {
    "brand:acme,oak": lambda name, brands: bool({"acme", "oak"} & {*brands[name].split("|")}),
    "brand!:zenith": lambda name, brands: brands[name] != "zenith",
    "brand:none": lambda *_: False,
    "price<5": lambda name, _: PRICES[name] < 5,
    "price>=3;brand!=acme": lambda name, brands: PRICES[name] >= 3 and brands[name] != "acme",
}
SEEN, BOUGHT = ["i00", "i01", "i02"], ["i02"]


class Opened(NamedTuple):
    """A shop, and what runs its coroutines."""

    shop: Shop
    runner: asyncio.Runner


@pytest.fixture(scope="module")
def opened(redis_url: str) -> Iterator[Opened]:
    """Campers who took half of 40 items, and a user who saw some."""

    async def fill(shop: Shop) -> None:
        for n in range(4):
            await shop.send(f"camper{n}", *NAMES[:20])
        records: list[tuple[str, dict[str, Any]]] = [
            (name, {"BRAND": BRANDS[name], "PRICE": PRICES[name]}) for name in NAMES
        ]
        await put_items(shop.store, records, shop.now_s)
        await shop.send("ada", *SEEN[:2])
        await shop.send("ada", *BOUGHT, kind="purchase")

    with asyncio.Runner() as runner:
        store = Store(connect(redis_url), Settings(group="any-rules", cache_s=1))
        shop = Shop(store)
        runner.run(fill(shop))
        yield Opened(shop, runner)
        runner.run(shop.recommender.cache.close())
        runner.run(store.redis.flushdb())
        runner.run(store.redis.aclose())


DRAWN = st.fixed_dictionaries(
    {
        "filters": st.lists(st.sampled_from(sorted(FILTERS)), max_size=2, unique=True),
        "exclude": st.frozensets(st.sampled_from(NAMES), max_size=12),
        "hide": st.lists(st.sampled_from(["seen", "purchased"]), max_size=2, unique=True),
        "boosts": st.lists(
            st.tuples(st.sampled_from(sorted(FILTERS)), st.sampled_from([0.01, 3.0, 1000.0])),
            max_size=2,
        ),
        "pins": st.dictionaries(
            st.integers(1, 12), st.sampled_from([*NAMES, "unheard-of"]), max_size=3
        ).filter(lambda pins: len(set(pins.values())) == len(pins)),
        "cap": st.none() | st.integers(1, 3),
        "diversity": st.sampled_from([0.0, 0.0, 0.4, 1.0]),
        "k": st.integers(1, 12),
        "changed": st.dictionaries(
            st.sampled_from(NAMES), st.sampled_from(["acme", "zenith", "oak"]), max_size=2
        ),
    }
)


@settings(max_examples=100)
@given(DRAWN)
def test_what_rules_say_holds_whatever_else_is_asked(opened: Opened, drawn: dict[str, Any]) -> None:
    """Pins stand where they were pinned, nothing comes back, caps hold, and what there is comes.

    It is asked before and after records change, for what is known of them then is another matter.
    """
    hold(opened, drawn, BRANDS)
    if drawn["changed"]:
        new = drawn["changed"]
        change(opened, new)
        hold(opened, drawn, BRANDS | new)
        change(opened, {name: BRANDS[name] for name in new})


def change(opened: Opened, brands: Mapping[str, str]) -> None:
    """Put items of other brands, which is in effect when `cache_s` are over."""
    records: list[tuple[str, dict[str, Any]]] = [
        (name, {"BRAND": brand, "PRICE": PRICES[name]}) for name, brand in brands.items()
    ]
    opened.runner.run(put_items(opened.shop.store, records, opened.shop.now_s))
    opened.shop.now_s += 2.1


def hold(opened: Opened, drawn: dict[str, Any], brands: Mapping[str, str]) -> None:
    """Ask by the rules that are drawn, and check all that they say."""
    k, cap = drawn["k"], drawn["cap"]
    pins = {slot: name for slot, name in drawn["pins"].items() if slot <= k}
    rules = Rules(
        filters=tuple(map(parse_item_filter, drawn["filters"])),
        exclude=drawn["exclude"],
        hide=tuple(map(Hide, drawn["hide"])),
        boosts=tuple(Boost(parse_item_filter(text), factor) for text, factor in drawn["boosts"]),
        pins=pins,
        caps=() if cap is None else (Cap("brand", cap),),
        diversity=drawn["diversity"],
    )
    opened.shop.now_s += 0.1
    question = Question(Asker("ada"), opened.shop.now_s)
    found = ids(
        opened.runner.run(
            answer_question(opened.shop.recommender, question, NO_CONFIGURATION, rules, k=k)
        )
    )

    gone = {*drawn["exclude"]}
    gone.update(*({"seen": SEEN, "purchased": BOUGHT}[kind] for kind in drawn["hide"]))
    allowed = {
        name
        for name in NAMES
        if name not in gone and all(FILTERS[text](name, brands) for text in drawn["filters"])
    }
    assert set(found) <= allowed
    assert len(set(found)) == len(found) <= k
    shown = {slot: name for slot, name in pins.items() if name in allowed}
    for slot, name in shown.items():
        place = found.index(name) + 1
        # A short list ends with its pins.
        assert place == slot or (place < slot and len(found) < k)
    if cap is not None:
        for brand in ("acme", "zenith", "oak", "elm"):
            of_brand = {name for name in found if brand in brands[name].split("|")}
            assert len(of_brand) <= max(cap, len(of_brand & set(shown.values())))
    elif drawn["filters"]:
        # The user's last item is no recommendation of its own.
        assert len(found) >= min(k, len(allowed - {"i02"}))
