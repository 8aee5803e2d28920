"""Placements: rules in force, what is refused before it is saved, and what is put together."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from models.filters.short_form import parse_item_filter
from models.ranking.features import BASE
from models.ranking.ranker import ListwiseRanker, layers_of
from models.serving.answers import Answer
from models.serving.merchandising.placements import (
    NO_CONFIGURATION,
    Configuration,
    PlacementCache,
    check_configuration,
    rules_in_force,
)
from models.serving.merchandising.questions import Question, answer_question, combined_rules
from models.serving.merchandising.rule_effects import capped
from models.serving.merchandising.rule_members import make_rules
from models.serving.merchandising.rules import Asker, Boost, Cap, Rules, joined_rules
from models.state.named_versions import save_version
from tests.models.serving.merchandising.test_rules import catalogue
from tests.models.serving.test_recommender import Shop, ids

__all__ = ["catalogue"]


def configured(**members: Any) -> Configuration:
    """A configuration of these members."""
    return msgspec.convert(members, Configuration)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            {"filter": "price<cheap"},
            r"condition 1: price < takes one number, or one date as .* - at `\$.rules\[0\]`",
        ),
        ({"boost": [{"filter": "brand=", "factor": 2}]}, r"boost 1: .* - at `\$.rules\[0\]`"),
        ({"pin": [{"item_id": "a", "slot": 11}]}, "slot 11, but the answer has 10 items"),
        ({"hide": ["shown?"]}, r"hide takes .* - at `\$.rules\[0\]`"),
        ({"name": "nothing"}, "the rule does nothing"),
        (
            {"from": "2030-01-02T00:00:00Z", "until": "2030-01-01T00:00:00Z", "exclude": ["a"]},
            "until is not after from",
        ),
    ],
)
def test_what_breaks_a_rule_is_named_with_its_place(rule: dict[str, Any], text: str) -> None:
    """Before it is saved: no answer meets it."""
    with pytest.raises(InvalidRequest, match=text):
        check_configuration(configured(num_results=10, rules=[rule]))


def test_a_configuration_is_bounded() -> None:
    """As JSON: each of its members is bounded too."""
    rule = {"exclude": ["x" * 250] * 400}
    with pytest.raises(InvalidRequest, match="at most 65536 bytes"):
        check_configuration(configured(rules=[rule]))


def test_scheduled_rules_hold_between_their_moments() -> None:
    """From the first on, and no longer from the last on; others always."""
    rules = [
        {"from": "1970-01-01T00:01:40Z", "exclude": ["late"]},
        {"until": "1970-01-01T00:01:40Z", "exclude": ["early"]},
        {"exclude": ["always"]},
    ]
    placed = configured(rules=rules)
    check_configuration(placed)

    def excluded(at_s: float) -> set[str]:
        return {item for one in rules_in_force(placed, at_s) for item in one.exclude}

    assert excluded(99.9) == {"early", "always"}
    assert excluded(100.0) == {"late", "always"}


@given(
    st.lists(
        st.dictionaries(st.integers(1, 6), st.sampled_from("abcdef"), max_size=3).filter(
            lambda pins: len(set(pins.values())) == len(pins)
        ),
        max_size=4,
    ),
    st.integers(1, 6),
)
def test_the_first_pin_of_a_slot_stands(every: list[dict[int, str]], k: int) -> None:
    """No slot and no item has two, and none is beyond the answer."""
    pins = joined_rules([Rules(pins=pins) for pins in every] or [Rules()], k).pins

    assert len(set(pins.values())) == len(pins)
    wanted = [pair for one in every for pair in one.items() if pair[0] <= k]
    for pair in wanted[:1]:
        assert pair in pins.items()
    for slot, item in wanted:
        assert slot in pins or item in pins.values()


VALUES = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.lists(st.sampled_from([("brand", "x"), ("brand", "y"), ("kind", "x")]), unique=True),
)


@given(
    st.permutations("abcdefgh"),
    VALUES,
    st.integers(1, 3),
    st.integers(1, 3),
    st.sets(st.sampled_from("abcdz")),
)
def test_caps_hold(
    items: list[str],
    groups: dict[str, list[tuple[str, str]]],
    most: int,
    kinds: int,
    pins: set[str],
) -> None:
    """Of each value no more than its cap, unless pins alone are more; the order is kept."""
    caps = [Cap("brand", most), Cap("brand", 3), Cap("kind", kinds)]

    left = capped(items, groups, caps, first=sorted(pins))

    assert left == [item for item in items if item in left]
    assert pins & set(items) <= set(left)
    shown = {*left, *pins}
    for name, bound in (("brand", min(most, 3)), ("kind", kinds)):
        for value in "xy":
            pinned = sum((name, value) in groups.get(item, []) for item in pins)
            n = sum((name, value) in groups.get(item, []) for item in shown)
            assert n <= max(bound, pinned)
    for item in set(items) - set(left):
        assert groups[item], "an item without a value is never capped"


def test_rules_of_a_user_need_one() -> None:
    """Of a placement they are left out where nobody is known, or may be."""
    seen = 'EXCLUDE ItemID WHERE Interactions.event_type IN ("view")'
    rules = [{"hide": ["seen"], "exclude": ["a"]}, {"filter": seen}]
    placed = configured(rules=rules)
    known = Question(Asker("ada"), 0.0)

    def combined(question: Question) -> Rules:
        found = combined_rules(placed, None, question, k=5)
        assert found is not None
        return found

    assert combined(known).reads_user
    for question in (Question(Asker(), 0.0), known._replace(profiling=False)):
        assert not combined(question).reads_user
        assert combined(question).exclude == {"a"}


async def test_rules_of_a_placement_and_of_a_question_hold_together(catalogue: Shop) -> None:
    """What either takes out is gone, a pin of the question stands, and caps bound the brands."""
    placed = configured(
        rules=[
            {"filter": "price>2", "exclude": ["i04"]},
            {"cap": [{"property": "brand", "most": 2}]},
            {"pin": [{"item_id": "i10", "slot": 1}]},
        ]
    )
    asked = make_rules(exclude=("i05",), k=6)
    question = Question(Asker("ada"), catalogue.now_s)

    answer = await answer_question(catalogue.recommender, question, placed, asked, k=6)

    found = ids(answer)
    assert found[0] == "i10"
    assert {"i00", "i01", "i02", "i04", "i05"}.isdisjoint(found)
    acme = [name for name in found if int(name[1:]) % 3]
    assert (len(acme), len(found)) == (2, 4)


async def test_any_rules_hold_together(catalogue: Shop) -> None:
    """What is taken out never appears, pins stand at their slots, and caps hold, by any dials."""
    rng = random.Random(7)
    names = [f"i{n:02}" for n in range(12)]
    for _ in range(40):
        cap, k = rng.randint(1, 4), rng.randint(3, 10)
        excluded = set(rng.sample(names, 2))
        pins = dict(zip(rng.sample(range(1, 4), 2), rng.sample(names, 2), strict=True))
        rules = Rules(
            filters=(parse_item_filter(rng.choice(["price>1", "brand:acme", "price<9"])),),
            exclude=frozenset(excluded),
            boosts=(Boost(parse_item_filter("price>5"), rng.choice([0.1, 1.0, 50.0])),),
            pins=pins,
            caps=(Cap("brand", cap),),
            diversity=rng.choice([0.0, 0.3, 1.0]),
        )
        question = Question(Asker("ada"), catalogue.now_s)

        answer = await answer_question(
            catalogue.recommender, question, NO_CONFIGURATION, rules, k=k
        )

        found = ids(answer)
        assert len(set(found)) == len(found) <= k
        assert not excluded & set(found)
        test = rules.filters[0].allowed(
            found, properties=[{"BRAND": brand_of(name), "PRICE": int(name[1:])} for name in found]
        )
        assert test.all(), (rules, found)
        for slot, name in pins.items():
            if name in found and slot <= len(found):
                assert found[slot - 1] == name or len(found) < max(pins)
        for brand in ("acme", "zenith"):
            shown = [name for name in found if brand_of(name) == brand]
            assert len(shown) <= max(cap, len(set(shown) & set(pins.values())))


def brand_of(name: str) -> str:
    """Brand of an item of the catalogue."""
    return "acme" if int(name[1:]) % 3 else "zenith"


async def test_diversity_changes_the_order_when_asked(catalogue: Shop) -> None:
    """The first item stays, and without the dial nothing changes."""
    question = Question(Asker("ada"), catalogue.now_s)

    async def answered(diversity: float) -> list[str]:
        rules = make_rules(diversity=diversity, k=9)
        return ids(
            await answer_question(catalogue.recommender, question, NO_CONFIGURATION, rules, k=9)
        )

    plain = await answered(0.0)
    diverse = await answered(0.9)
    assert plain == ids(await catalogue.recommend("ada", k=9))
    assert diverse != plain
    assert diverse[0] == plain[0]


async def test_a_configuration_may_say_what_ranks(catalogue: Shop) -> None:
    """A built-in ranker, whatever serves: with a learned one the order is that of its weights."""
    learned = ListwiseRanker()
    layers_of(learned.parameters).weights[BASE] = -2.0
    await catalogue.store.redis.hset(
        catalogue.store.key("ranker"), "interactions:state", learned.state()
    )
    catalogue.now_s += 5

    async def asked(**members: Any) -> Answer:
        question = Question(Asker("ada"), catalogue.now_s, explores=False)
        return await answer_question(
            catalogue.recommender, question, Configuration(**members), None, k=8
        )

    plain, blend, ranker = await asked(), await asked(ranker="blend"), await asked(ranker="ranker")
    assert (plain.level, blend.level, ranker.level) == ("retrieved", "retrieved", "ranked")
    assert ids(plain) == ids(blend)
    assert ids(ranker) != ids(blend)
    assert (await asked(ranker="built-in")).level == "retrieved"


async def test_the_history_is_read_once(catalogue: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """By rules that read it, the candidates, and the items that only the filter finds."""
    snapshots, reads = catalogue.recommender.snapshots, list[str | None]()
    read = snapshots.history

    async def counted(user_id: str | None, *args: Any, **named: Any) -> Any:
        reads.append(user_id)
        return await read(user_id, *args, **named)

    monkeypatch.setattr(snapshots, "history", counted)
    rules = make_rules("genres:rare", hide=("seen",), k=5)
    question = Question(Asker("ada"), catalogue.now_s)

    answer = await answer_question(catalogue.recommender, question, NO_CONFIGURATION, rules, k=5)

    assert ids(answer) == ["rare"]
    assert reads == ["ada"]


async def test_fallbacks_fill_up_an_answer(catalogue: Shop) -> None:
    """By the same rules, after what was found first."""
    placed = configured(
        recipe="similar-items", fallbacks=["popularity-count"], rules=[{"exclude": ["i03"]}]
    )
    await catalogue.send("lone", "x", "y")
    question = Question(Asker(item_id="x"), catalogue.now_s)

    answer = await answer_question(catalogue.recommender, question, placed, None, k=8)

    assert ids(answer)[0] == "y"
    assert len(answer.items) == 8
    assert "i03" not in ids(answer)
    scores = [one.score for one in answer.items]
    assert scores == sorted(scores, reverse=True)
    with pytest.raises(InvalidRequest, match="this route answers trending-now"):
        await answer_question(
            catalogue.recommender, question, placed, None, k=8, route="trending-now"
        )
    with pytest.raises(InvalidRequest, match="needs an item_id"):
        await answer_question(
            catalogue.recommender,
            question._replace(asker=Asker()),
            configured(recipe="similar-items"),
            None,
            k=8,
        )


async def test_a_change_is_in_effect_within_a_second(catalogue: Shop) -> None:
    """Other processes ask again when what they know is older."""
    cache, store = PlacementCache(catalogue.store), catalogue.store
    with pytest.raises(InvalidRequest, match="no placement 'home'"):
        await cache.get("home", 100.0)
    for n, caption in enumerate(("a", "b")):
        value = msgspec.json.encode(configured(caption=caption))
        await save_version(store, "placements", "home", value, saved_by="", now_s=100.0)
        found = await cache.get("home", 100.0 + 1.1 * n)
        assert (found.version, found.configuration.caption) == (n + 1, caption)
    await save_version(store, "placements", "home", None, saved_by="", now_s=102.0)
    assert (await cache.get("home", 101.5)).version == 2
    with pytest.raises(InvalidRequest, match="no placement"):
        await cache.get("home", 103.0)


def test_an_empty_configuration_is_that_of_no_placement() -> None:
    """A placement of nothing changes nothing."""
    assert configured() == NO_CONFIGURATION
    assert msgspec.json.encode(NO_CONFIGURATION) == b"{}"
