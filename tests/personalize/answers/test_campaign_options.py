"""Members of campaigns, recommenders and solutions that change answers: opposite values differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models.errors import InvalidInput
from models.state.catalogue.metadata import put_items
from tests.personalize.answer_fixtures import HOUR_S, Shop, shop
from tests.personalize.control_fixtures import Control, recipe_arn


@pytest.fixture
async def filled(make_control: Callable[..., Control]) -> Shop:
    """A shop with events and items."""
    return await shop(make_control(personalize_quotas={"campaigns": 20, "solutions": 20}))


async def test_metadata_must_be_enabled(filled: Shop) -> None:
    """A campaign gives metadata if its configuration says so, and refuses to otherwise."""
    columns = {"ITEMS": ["GENRE"]}
    enabled = await filled.campaign("yes", config={"enableMetadataWithRecommendations": True})
    other = await filled.campaign("no", config={"enableMetadataWithRecommendations": False})
    request = {"campaignArn": enabled, "userId": "u0", "metadataColumns": columns}
    answer = await filled.control("GetRecommendations", **request)

    assert {one["metadata"]["GENRE"] for one in answer["itemList"]} <= {"odd", "even"}
    with pytest.raises(InvalidInput, match="enableMetadataWithRecommendations"):
        await filled.items(other, metadataColumns=columns)
    with pytest.raises(InvalidInput, match="ITEMS has no column 'NOPE'; it has ITEM_ID, PRICE"):
        await filled.items(enabled, metadataColumns={"ITEMS": ["GENRE", "NOPE"]})


EVENTS = {"eventParametersList": [{"eventType": "view"}, {"eventType": "buy", "weight": 0.0}]}
OLD = "aws-user-personalization"


def explored(answer: dict[str, Any]) -> set[str]:
    """Items of an answer whose reason is exploration."""
    return {one["itemId"] for one in answer["itemList"] if one.get("reason") == ["Exploration"]}


async def answers(shop: Shop, arn: str, n: int = 4, **request: Any) -> list[dict[str, Any]]:
    """Answers to several users of a campaign, or of a recommender."""
    name = "recommenderArn" if ":recommender/" in arn else "campaignArn"
    return [
        await shop.control("GetRecommendations", **{name: arn, "userId": f"u{user}", **request})
        for user in range(n)
    ]


async def test_the_exploration_weight_says_how_much(filled: Shop) -> None:
    """With 0 nothing is explored, with 1 half of an answer or so; an update counts at once."""
    await put_items(
        filled.control.context.tenants.store("g"),
        [(f"cold{n}", {"GENRE": "odd"}) for n in range(20)],
        filled.control.now_s - 60,
    )
    none, much = [
        await filled.campaign(name, config={"itemExplorationConfig": {"explorationWeight": weight}})
        for name, weight in (("none", "0"), ("much", "1.0"))
    ]
    n_none, n_much = [
        [len(explored(one)) for one in await answers(filled, arn)] for arn in (none, much)
    ]
    await filled.control(
        "UpdateCampaign",
        campaignArn=none,
        campaignConfig={"itemExplorationConfig": {"explorationWeight": "1"}},
    )
    changed = [len(explored(one)) for one in await answers(filled, none)]

    assert set(n_none) == {0}
    # Twelve of the last 13 slots, on average.
    assert min(*n_much, *changed) >= 8
    assert max(*n_much, *changed) <= 13


async def test_the_age_cut_off_says_which_items(filled: Shop) -> None:
    """Items without events, known by metadata alone, are explored up to the age."""
    store, now_s = filled.control.context.tenants.store("g"), filled.control.now_s
    for name, age in (("young", 2), ("old", 20)):
        items = [(f"{name}{n}", {"GENRE": "odd"}) for n in range(10)]
        await put_items(store, items, now_s - 24 * HOUR_S * age)
    found = {}
    for days in ("1", "5", "50"):
        arn = await filled.campaign(
            f"days{days}",
            config={
                "itemExplorationConfig": {
                    "explorationWeight": "1",
                    "explorationItemAgeCutOff": days,
                }
            },
        )
        shown = set[str]().union(*[explored(one) for one in await answers(filled, arn)])
        found[days] = {one.rstrip("0123456789") for one in shown} & {"young", "old"}

    assert found == {"1": set(), "5": {"young"}, "50": {"young", "old"}}


async def test_recommenders_explore_by_their_configuration(control: Control) -> None:
    """As campaigns do, from the next request on."""
    shop_ = await shop(control, domain="ECOMMERCE")
    unexplored = {"itemExplorationConfig": {"explorationWeight": "0"}}
    arn = await control.measured(
        await control.recommender(shop_.group, recommenderConfig=unexplored)
    )
    before = [[one["itemId"] for one in each["itemList"]] for each in await answers(shop_, arn)]
    again = [[one["itemId"] for one in each["itemList"]] for each in await answers(shop_, arn)]
    config = {"explorationWeight": "1", "explorationItemAgeCutOff": "1000"}
    await put_items(control.context.tenants.store("g"), [("cold", {"PRICE": 1.0})], control.now_s)
    await control(
        "UpdateRecommender",
        recommenderArn=arn,
        recommenderConfig={"itemExplorationConfig": config},
    )
    after = [[one["itemId"] for one in each["itemList"]] for each in await answers(shop_, arn)]
    await control(
        "UpdateRecommender",
        recommenderArn=arn,
        recommenderConfig={"itemExplorationConfig": {**config, "explorationItemAgeCutOff": "0"}},
    )
    none = [[one["itemId"] for one in each["itemList"]] for each in await answers(shop_, arn)]

    assert before == again == none
    assert not any("cold" in each for each in before)
    assert any("cold" in each for each in after)


async def test_ranking_influence_mixes_popularity_and_freshness_in(filled: Shop) -> None:
    """With 1 popular items, or those first met last, come first; with 0 nothing changes."""
    # One item that many others met, and one that was met just now.
    await filled.send_many("other", 40, "view:hit", before_s=5 * HOUR_S)
    await filled.send("u2", "view:new")
    plain = {"itemExplorationConfig": {"explorationWeight": "0"}}
    first = {}
    for name, influence in (
        ("no", {}),
        ("zero", {"POPULARITY": 0.0, "FRESHNESS": 0.0}),
        ("popular", {"POPULARITY": 1.0}),
        ("fresh", {"FRESHNESS": 1.0}),
    ):
        config = {**plain, "rankingInfluence": influence} if influence else plain
        first[name] = await filled.items(await filled.campaign(name, config=config), "u1")
    ranked = []
    for weight in (0.0, 1.0):
        arn = await filled.campaign(
            f"ranking{weight:g}",
            "aws-personalized-ranking-v2",
            {"rankingInfluence": {"POPULARITY": weight}},
        )
        answer = await filled.control(
            "GetPersonalizedRanking",
            campaignArn=arn,
            userId="u1",
            inputList=["i4", "i7", "hit", "i1"],
        )
        ranked.append([one["itemId"] for one in answer["personalizedRanking"]])

    assert first["no"] == first["zero"]
    assert first["popular"][0] == "hit"
    assert first["fresh"][0] == "new"
    assert first["no"][0] not in {"hit", "new"}
    assert ranked[1][0] == "hit"
    assert ranked[0] != ranked[1]


async def test_events_count_by_their_weights(filled: Shop) -> None:
    """Events of a weight of 0, or of types that are not listed, do not count for a user."""
    await filled.send("new", "view:i0", "view:i3", "buy:i1", "buy:i4")
    viewed, bought, both = [
        await filled.campaign(
            name,
            config={"itemExplorationConfig": {"explorationWeight": "0"}},
            solutionConfig={"eventsConfig": {"eventParametersList": listed}},
        )
        for name, listed in (
            ("viewed", [{"eventType": "View"}, {"eventType": "buy", "weight": 0.0}]),
            ("bought", [{"eventType": "view", "weight": 0.01}, {"eventType": "buy", "weight": 1}]),
            ("both", [{"eventType": "view"}, {"eventType": "buy"}]),
        )
    ]
    kinds = [
        [int(one[1:]) % 3 for one in await filled.items(arn, "new", numResults=6)]
        for arn in (viewed, bought)
    ]
    unweighted = await filled.campaign(
        "plain", config={"itemExplorationConfig": {"explorationWeight": "0"}}
    )
    solution = filled.control.arn("solution/both")
    await filled.control(
        "UpdateSolution", solutionArn=solution, solutionUpdateConfig={"eventsConfig": EVENTS}
    )
    version = await filled.control.version(solution)
    before = await filled.items(both, "new")
    await filled.control("UpdateCampaign", campaignArn=both, solutionVersionArn=version)

    assert kinds[0].count(0) > kinds[0].count(1)
    assert kinds[1].count(1) > kinds[1].count(0)
    assert before == await filled.items(unweighted, "new")
    assert await filled.items(both, "new") == await filled.items(viewed, "new")


async def test_the_event_type_says_which_events_count(filled: Shop) -> None:
    """For a user's recommendations, as one entry of eventsConfig does."""
    await filled.send("new", "view:i0", "view:i3", "buy:i1", "buy:i4")
    config = {"itemExplorationConfig": {"explorationWeight": "0"}}
    for kind, more, less in (("view", 0, 1), ("buy", 1, 0)):
        arn = await filled.campaign(kind, config=config, eventType=kind)
        found = [int(one[1:]) % 3 for one in await filled.items(arn, "new", numResults=6)]
        assert found.count(more) > found.count(less)


async def test_an_objective_puts_items_of_its_column_first(filled: Shop) -> None:
    """The more sensitive, the dearer; OFF changes nothing."""
    config = {"itemExplorationConfig": {"explorationWeight": "0"}}
    mean = {}
    for sensitivity in ("OFF", "LOW", "HIGH"):
        objective = {"itemAttribute": "PRICE", "objectiveSensitivity": sensitivity}
        arn = await filled.campaign(
            sensitivity, config=config, solutionConfig={"optimizationObjective": objective}
        )
        found = await filled.items(arn, "u0", numResults=5)
        mean[sensitivity] = sum(int(one[1:]) for one in found) / 5
        if sensitivity == "OFF":
            plain = await filled.campaign("plain", config=config)
            assert found == await filled.items(plain, "u0", numResults=5)

    assert mean["OFF"] <= mean["LOW"] <= mean["HIGH"]
    assert mean["OFF"] < mean["HIGH"]


async def test_recency_can_be_turned_off(filled: Shop) -> None:
    """A new user gets what is popular of all time instead of what is popular of late."""
    await filled.send_many("late", 9, "view:late")
    await filled.send_many("early", 40, "view:early", before_s=300 * HOUR_S)
    config = {"itemExplorationConfig": {"explorationWeight": "0"}}
    for recipe, name in ((OLD, "recency_mask"), ("aws-user-personalization-v2", None)):
        for value, first in (("true", "late"), ("False", "early")):
            values = {name or "apply_recency_bias": value}
            arn = await filled.campaign(
                f"{value}{len(recipe)}",
                recipe,
                config,
                solutionConfig={"algorithmHyperParameters": values},
            )
            assert (await filled.items(arn, "nobody"))[0] == first


async def test_bptt_says_how_far_back_a_user_is_looked_at(filled: Shop) -> None:
    """With 2 the last two events count, with 32 all of them."""
    await filled.send("new", *(f"view:i{3 * n}" for n in range(6)), "view:i1", "view:i4")
    kinds = {}
    for bptt in ("2", "32"):
        arn = await filled.campaign(
            f"bptt{bptt}",
            OLD,
            {"itemExplorationConfig": {"explorationWeight": "0"}},
            solutionConfig={"algorithmHyperParameters": {"bptt": bptt}},
        )
        found = await filled.items(arn, "new", numResults=8)
        kinds[bptt] = [int(one[1:]) % 3 for one in found]

    assert set(kinds["2"]) == {1}
    assert 0 in kinds["32"]


async def test_popularity_is_discounted_in_similar_items(filled: Shop) -> None:
    """With a factor of 0 popular items come first, whatever they have in common with the item."""
    await filled.send_many("more", 60, "view:i1", "view:i0")
    first = {}
    for factor in ("0", "0.5", "1"):
        arn = await filled.campaign(
            f"factor{factor.replace('.', '-')}",
            "aws-sims",
            solutionConfig={"algorithmHyperParameters": {"popularity_discount_factor": factor}},
        )
        first[factor] = await filled.items(arn, "u0", itemId="i0")

    assert first["0"][0] == "i1"
    assert first["1"].index("i1") > first["0"].index("i1")
    assert first["0.5"] != first["0"]


async def test_trends_may_be_of_the_day(filled: Shop) -> None:
    """An item of the last minutes trends by the hour; one of yesterday by the day."""
    await filled.send_many("day", 30, "view:yesterday", before_s=14 * HOUR_S)
    await filled.send_many("now", 3, "view:now")
    for frequency, first in (("3 hours", "now"), ("1 day", "yesterday")):
        arn = await filled.campaign(
            frequency.replace(" ", "-"),
            "aws-trending-now",
            solutionConfig={
                "featureTransformationParameters": {"trend_discovery_frequency": frequency}
            },
        )
        assert (await filled.items(arn))[0] == first


async def test_contextual_columns_may_be_left_out(filled: Shop) -> None:
    """A context counts unless its column is excluded, or others are included."""
    await filled.send_many("phone", 9, "view:call", "view:i0", before_s=HOUR_S, device="phone")
    first = {}
    for name, training in (
        ("all", {}),
        ("without", {"excludedDatasetColumns": {"INTERACTIONS": ["DEVICE"]}}),
        ("others", {"includedDatasetColumns": {"INTERACTIONS": ["EVENT_TYPE"]}}),
    ):
        arn = await filled.campaign(
            name, solutionConfig={"trainingDataConfig": training} if training else {}
        )
        first[name] = await filled.items(arn, "nobody", context={"DEVICE": "phone"})

    assert first["all"][0] in {"call", "i0"}
    assert first["without"] == first["others"] == await filled.items(arn, "nobody")
    assert first["all"] != first["without"]


async def test_columns_that_are_not_trained_on_do_not_count(control: Control) -> None:
    """Items of the same category are candidates, unless the column is left out or not included."""
    shop_ = await shop(control, n_users=3, each=2)
    # A user whose only item nobody else took: candidates are of its category.
    await shop_.send("new", "view:i58")
    first = {}
    for name, training in (
        ("all", {}),
        ("without", {"excludedDatasetColumns": {"ITEMS": ["GENRE"]}}),
        ("others", {"includedDatasetColumns": {"ITEMS": ["PRICE"]}}),
        ("included", {"includedDatasetColumns": {"ITEMS": ["GENRE"]}}),
    ):
        arn = await shop_.campaign(
            name,
            config={"itemExplorationConfig": {"explorationWeight": "0"}},
            solutionConfig={"trainingDataConfig": training} if training else {},
        )
        first[name] = (await shop_.items(arn, "new"))[:3]

    # Where no column is left out, similar texts give candidates, too: of the same category here.
    for name in ("all", "included"):
        assert {int(item_id[1:]) % 2 for item_id in first[name]} == {0}
    assert first["without"] == first["others"]
    assert first["included"] != first["without"]


async def test_long_answers_hold_what_the_catalogue_has(filled: Shop) -> None:
    """As many as are asked for, each once, without the user's last item, or the one looked at."""
    store = filled.control.context.tenants.store("g")
    more = [(f"more{n}", {"PRICE": 1.0}) for n in range(600)]
    await put_items(store, more, filled.control.now_s - 100 * 24 * HOUR_S)
    await filled.send("u0", "view:i0")
    for recipe, request, left_out in (
        ("aws-user-personalization-v2", {}, "i0"),
        ("aws-similar-items", {"itemId": "i3"}, "i3"),
        ("aws-popularity-count", {}, ""),
    ):
        arn = await filled.campaign(recipe, recipe)
        found = await filled.items(arn, "u0", numResults=500, **request)
        assert len(found) == len({*found}) == 500
        assert left_out not in found


async def test_a_column_is_not_both_left_out_and_included(filled: Shop) -> None:
    """Neither would say what it does."""
    columns = {"ITEMS": ["GENRE"]}
    config = {"excludedDatasetColumns": columns, "includedDatasetColumns": columns}
    with pytest.raises(InvalidInput, match="GENRE of ITEMS is both excluded and included"):
        await filled.control(
            "CreateSolution",
            name="both",
            datasetGroupArn=filled.group,
            recipeArn=recipe_arn("aws-user-personalization-v2"),
            solutionConfig={"trainingDataConfig": config},
        )
