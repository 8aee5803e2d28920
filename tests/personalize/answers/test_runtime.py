"""GetRecommendations and GetPersonalizedRanking, by boto3."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.personalize.runtime import mix_promoted
from tests.personalize.calls_fixtures import ACCOUNT, Caller, campaign
from tests.stack import Stack

Clients = Callable[[str], Any]
EXPLORED = ["Exploration"]

pytestmark = pytest.mark.any_broker


@pytest.fixture
def known(running: Stack) -> None:
    """A user, `runa`, who looked at a kite, which strings and tails followed in other sessions."""
    for n in range(3):
        for item in ("run-kite", "run-string", "run-tail"):
            running.click(item, session=f"run-{n}", user=f"run-{n}")
    after = running.click("run-kite", session="runa-1", user="runa")
    running.recommend(f"after={after}")


def names(answer: dict[str, Any], member: str = "itemList") -> list[str]:
    """The items of an answer."""
    return [item["itemId"] for item in answer[member]]


@pytest.mark.usefixtures("known")
def test_user_personalization(clients: Clients) -> None:
    """Scores fall and add up to at most one; the answer has the requested length.

    An item that is tried to learn of it has none, wherever it stands.
    """
    runtime = clients("personalize-runtime")

    answer = runtime.get_recommendations(campaignArn=campaign("default"), userId="runa")

    scores = [item["score"] for item in answer["itemList"] if item["score"]]
    assert names(answer)[0] in {"run-string", "run-tail"}
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1.000001
    assert all(item.get("reason", EXPLORED) == EXPLORED for item in answer["itemList"])
    short = runtime.get_recommendations(
        campaignArn=campaign("default"), userId="runa", numResults=1, context={"DEVICE": "phone"}
    )
    assert names(short) == names(answer)[:1]
    assert short["recommendationId"] != answer["recommendationId"]


@pytest.mark.usefixtures("known")
def test_both_ids_are_accepted(clients: Clients) -> None:
    """For a user at an item, the items that follow it come first."""
    answer = clients("personalize-runtime").get_recommendations(
        campaignArn=campaign("default"), userId="somebody new", itemId="run-kite"
    )

    assert names(answer)[0] in {"run-string", "run-tail"}


@pytest.mark.usefixtures("known")
def test_new_users_get_popular_items(clients: Clients) -> None:
    """The reason says so, and scores add up to at most one."""
    answer = clients("personalize-runtime").get_recommendations(
        campaignArn=campaign("default"), userId="nobody has heard of"
    )

    assert answer["itemList"]
    assert all(item["reason"][0] in {"Popular item", "Exploration"} for item in answer["itemList"])
    assert sum(item["score"] for item in answer["itemList"]) <= 1.000001
    unheard = clients("personalize-runtime").get_recommendations(
        campaignArn=campaign("similar-items"), itemId="nobody has heard of"
    )
    assert unheard["itemList"]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("similar-items", {"itemId": "run-kite"}),
        ("similar-items", {"itemId": "run-kite", "userId": "runa"}),
        ("popularity", {}),
        ("popularity", {"userId": "runa", "itemId": "run-kite"}),
        ("trending", {}),
    ],
)
def test_other_recipes_have_no_scores(clients: Clients, name: str, ids: dict[str, str]) -> None:
    """Similar, popular and trending items come without scores; further ids are ignored."""
    answer = clients("personalize-runtime").get_recommendations(campaignArn=campaign(name), **ids)

    assert answer["itemList"]
    assert all(set(item) == {"itemId"} for item in answer["itemList"])
    if name == "similar-items":
        assert {"run-string", "run-tail"} <= set(names(answer)[:3])
        assert "run-kite" not in names(answer)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "campaignArn or a recommenderArn"),
        ({"campaignArn": campaign("default"), "recommenderArn": f"{ACCOUNT}:recommender/r",
          "userId": "u"}, "campaignArn or a recommenderArn"),
        ({"campaignArn": campaign("default")}, "needs a userId"),
        ({"campaignArn": campaign("default"), "userId": ""}, "needs a userId"),
        ({"campaignArn": campaign("default"), "itemId": "i"}, "needs a userId"),
        ({"campaignArn": campaign("similar-items"), "userId": "u"}, "needs an itemId"),
        ({"campaignArn": campaign("ranking"), "userId": "u"}, "PERSONALIZED_RANKING"),
        ({"campaignArn": f"{ACCOUNT}:solution/default", "userId": "u"},
         "not the ARN of a campaign"),
        ({"campaignArn": campaign("trending"), "numResults": 501}, "at most 500"),
        ({"campaignArn": campaign("trending"), "promotions": [{"name": "p"}]}, "filterArn"),
        ({"campaignArn": campaign("trending"),
          "promotions": [{"filterArn": f"{ACCOUNT}:filter/f"}]}, "percentPromotedItems"),
        ({"campaignArn": campaign("trending"), "metadataColumns": {"USERS": ["AGE"]}}, "ITEMS"),
        ({"campaignArn": campaign("trending"), "metadataColumns": {"ITEMS": list("abcdefghijk")}},
         "at most 10"),
        ({"campaignArn": campaign("trending"), "metadataColumns": {"ITEMS": ["A"]},
          "numResults": 51}, "at most 50"),
    ],
)  # fmt: skip
def test_invalid_requests_are_refused(
    clients: Clients, request_: dict[str, Any], words: str
) -> None:
    """Missing ids, numbers out of range, and members that exclude each other."""
    runtime = clients("personalize-runtime")

    with pytest.raises(runtime.exceptions.InvalidInputException, match=words):
        runtime.get_recommendations(**request_)


@pytest.mark.parametrize(
    "members",
    [
        {"campaignArn": campaign("none")},
        {"recommenderArn": f"{ACCOUNT}:recommender/none"},
        {"campaignArn": campaign("default"), "filterArn": f"{ACCOUNT}:filter/none"},
        {"campaignArn": campaign("default"),
         "promotions": [{"filterArn": f"{ACCOUNT}:filter/none", "percentPromotedItems": 10}]},
    ],
)  # fmt: skip
def test_unknown_resources_are_not_found(clients: Clients, members: dict[str, Any]) -> None:
    """Unknown campaigns, recommenders and filters."""
    runtime = clients("personalize-runtime")

    with pytest.raises(runtime.exceptions.ResourceNotFoundException, match="none"):
        runtime.get_recommendations(userId="u", **members)


@pytest.mark.parametrize("place", ["us-east-1:123456789012", "eu-west-1:000000000000", ":"])
def test_builtin_campaigns_are_found_under_any_account(clients: Clients, place: str) -> None:
    """Region and account in the ARN are the caller's."""
    answer = clients("personalize-runtime").get_recommendations(
        campaignArn=f"arn:aws:personalize:{place}:campaign/popularity"
    )

    assert answer["itemList"]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(("asked", "given"), [(0, 25), (500, 500), (2, 2)])
def test_number_of_results(clients: Clients, asked: int, given: int) -> None:
    """The default, and 0, mean 25; 500 is the maximum."""
    answer = clients("personalize-runtime").get_recommendations(
        campaignArn=campaign("popularity"), numResults=asked
    )

    assert 1 <= len(answer["itemList"]) <= given


@pytest.mark.usefixtures("known")
def test_personalized_ranking(clients: Clients) -> None:
    """The given items, each once, the likeliest first; unknown items last with score 0."""
    answer = clients("personalize-runtime").get_personalized_ranking(
        campaignArn=campaign("ranking"),
        userId="runa",
        inputList=["run-zzz", "run-tail", "run-aaa", "run-string", "run-tail"],
        context={"DEVICE": "phone"},
    )

    ranked = answer["personalizedRanking"]
    assert set(names(answer, "personalizedRanking")[:2]) == {"run-tail", "run-string"}
    assert names(answer, "personalizedRanking")[2:] == ["run-aaa", "run-zzz"]
    assert [item["score"] for item in ranked[2:]] == [0, 0]
    assert math.isclose(sum(item["score"] for item in ranked), 1, abs_tol=1e-5)
    assert answer["recommendationId"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"inputList": []}, "1 to 500 items, not 0"),
        ({"inputList": [str(n) for n in range(501)]}, "1 to 500 items, not 501"),
        ({"campaignArn": campaign("default")}, "not PERSONALIZED_RANKING"),
        ({"userId": ""}, "needs a userId"),
        ({"inputList": [str(n) for n in range(51)], "metadataColumns": {"ITEMS": ["A"]}},
         "at most 50"),
    ],
)  # fmt: skip
def test_invalid_rankings_are_refused(
    clients: Clients, members: dict[str, Any], words: str
) -> None:
    """The list has bounds, and the campaign must have a ranking recipe."""
    runtime = clients("personalize-runtime")
    request = {"campaignArn": campaign("ranking"), "userId": "u", "inputList": ["a"]}

    with pytest.raises(runtime.exceptions.InvalidInputException, match=words):
        runtime.get_personalized_ranking(**(request | members))


def test_unknown_items_are_ranked_by_id(url: str) -> None:
    """All of them have score 0."""
    document = {"campaignArn": campaign("ranking"), "userId": "u", "inputList": ["b", "", "a"]}
    with Caller(url) as caller:
        answer = caller.call("GetPersonalizedRanking", document)

    assert answer.status == 200
    assert b'"personalizedRanking":[{"itemId":"","score":0.0},{"itemId":"a"' in answer.body


@given(
    st.lists(st.integers(0, 50), unique=True, max_size=20),
    st.lists(st.integers(100, 120), unique=True, max_size=20),
    st.integers(1, 30),
    st.randoms(use_true_random=False),
)
def test_promoted_items_are_mixed_in(
    plain: list[int], promoted: list[int], k: int, rng: Any
) -> None:
    """All promoted items that fit are in, both kinds keep their order, the list is full."""
    found = mix_promoted([str(n) for n in plain], [str(n) for n in promoted], k, rng)

    mine = [int(name) for name in found]
    assert len(mine) == min(k, len(plain) + len(promoted))
    assert [n for n in mine if n >= 100] == promoted[: min(len(promoted), len(mine))]
    assert [n for n in mine if n < 100] == plain[: len(mine) - min(len(promoted), len(mine))]
