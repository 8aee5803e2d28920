"""Exploration slots and diversity caps of answers, as set."""

from __future__ import annotations

from collections.abc import Callable

from models.filters.short_form import parse_item_filter
from models.serving.merchandising.placements import NO_CONFIGURATION
from models.serving.merchandising.questions import Question, answer_question
from models.serving.merchandising.rules import Asker, Boost, Rules
from models.serving.recommender import Recommender
from models.state.catalogue.metadata import put_items
from models.state.outcomes.served_lists import log_served, served
from models.state.store import Store
from tests.models.serving.test_recommender import Shop, ids
from tests.models.state.reference import NOW


async def filled(shop: Shop) -> Shop:
    """A shop of 30 co-visited items with many events, and 10 with one event each."""
    for n in range(25):
        await shop.send(f"old{n}", "tent", *(f"thing{(n + step) % 30}" for step in range(6)))
    for n in range(10):
        await shop.send(f"first{n}", f"new{n}")
    return shop


async def test_new_items_stand_in_the_second_half(make_store: Callable[..., Store]) -> None:
    """As many as the share says, marked; the first half is that without exploration."""
    shop = await filled(Shop(make_store(exploration_share=0.2)))
    plain = Recommender(make_store(exploration_share=0))
    plain.store.prefix = shop.store.prefix
    await shop.send("ada", "tent")

    without = await plain.recommend(user_id="ada", k=20, now_s=shop.now_s)
    assert not any(item.is_exploration for item in without.items)
    assert without.exploration is None
    n_tried = 0
    for _ in range(50):
        answer = await shop.recommend("ada", k=20, reasons=True)

        drawn = answer.exploration
        assert drawn is not None
        assert drawn.rate == 0.4
        tried = [place for place, item in enumerate(answer.items) if item.is_exploration]
        n_tried += len(tried)
        assert min(tried, default=10) >= 10
        assert len(answer.items) == len(set(ids(answer))) == 20
        assert ids(answer)[:10] == ids(without)[:10]
        for place, slot in enumerate(drawn.slots, 10):
            assert slot.item_id == ids(answer)[place]
            assert (slot.replaced or slot.item_id) == ids(without)[place]
            assert (place in tried) == (slot.replaced is not None)
            assert place in tried or slot.probability == 0.6
        assert {reason.source for place in tried for reason in answer.items[place].reasons} <= {
            "exploration"
        }
    assert 120 < n_tried < 280


async def test_exploration_comes_after_the_rules(make_store: Callable[..., Store]) -> None:
    """A list by rules explores as many items as one without, and only those that they allow."""
    shop = await filled(Shop(make_store(exploration_share=0.2)))
    records = [(f"new{n}", {"BRAND": "acme" if n % 2 else "zenith"}) for n in range(10)]
    await put_items(shop.store, records, shop.now_s)
    await shop.send("ada", "tent")
    rules = Rules(
        filters=(parse_item_filter("brand!:zenith"),),
        exclude=frozenset(["new1"]),
        boosts=(Boost(parse_item_filter("brand:acme"), 2.0),),
        pins={15: "thing3"},
    )
    shop.now_s += 2
    question = Question(Asker("ada"), shop.now_s)

    async def explored(question: Question) -> list[str]:
        answer = await answer_question(shop.recommender, question, NO_CONFIGURATION, rules, k=20)
        assert answer.items[14].item_id == "thing3"
        return [one.item_id for one in answer.items if one.is_exploration]

    every = [await explored(question) for _ in range(40)]
    # Three of 19 items that are not pinned, on average.
    assert 70 < sum(map(len, every)) < 170
    found = {name for names in every for name in names}
    assert not {"new0", "new1", "new2", "new4", "new6", "new8", "thing3"} & found
    assert await explored(question._replace(explores=False)) == []
    assert await explored(question._replace(profiling=False)) == []


async def test_explored_items_without_success_come_up_less(
    make_store: Callable[..., Store],
) -> None:
    """Trials are counted with the served lists; an item often shown in vain is shown less."""
    shop = await filled(Shop(make_store(exploration_share=0.05)))
    await shop.send("ada", "tent")
    failed = [f"new{n}" for n in range(9)]
    for _ in range(200):
        await log_served(shop.store, {"r": failed}, failed, now_s=shop.now_s)

    shown = []
    for _ in range(40):
        answer = await shop.recommend("ada", k=20)
        shown += [item.item_id for item in answer.items if item.is_exploration]

    assert set(shown) - {"tent"}
    assert sum(name in failed for name in shown) < len(shown) / 4


async def test_caps_on_popular_items_and_categories(make_store: Callable[..., Store]) -> None:
    """While other items are left, no group has more than its share of the answer."""
    store = make_store(exploration_share=0, category_share=0.25, category_property="Kind")
    shop = await filled(Shop(store))
    kinds = {f"thing{n}": "red" if n % 3 else "blue" for n in range(30)}
    await put_items(store, [(name, {"KIND": kind}) for name, kind in kinds.items()], now_s=NOW)
    await shop.send("ada", "tent")

    answer = await shop.recommend("ada", k=12)

    reds = [name for name in ids(answer)[:12] if kinds.get(name) == "red"]
    assert len(answer.items) == 12
    assert len(reds) <= 3
    assert {kinds.get(name) for name in ids(answer)} >= {"red", "blue"}

    few = make_store(exploration_share=0, popular_share=0.1)
    few.prefix = store.prefix
    rest = await Recommender(few).recommend(user_id="ada", k=5, now_s=shop.now_s)
    assert len(rest.items) == 5


async def test_served_lists_and_trials_are_kept(store: Store) -> None:
    """A list can be read by its id; trials of unknown items are not counted."""
    shop = Shop(store)
    await shop.send("ada", "tent")

    lists = {"r1": ["tent", "lamp"]}
    await log_served(store, lists, ["tent", "tent", "unheard-of"], now_s=shop.now_s)

    assert await store.redis.hgetall(store.key("tried")) == {b"1": b"2"}
    assert await served(store, "r1") == ["tent", ""]
