"""Campaigns and recommenders, and the recipes that they serve."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from api.personalize.inference_request import resolve
from models.errors import (
    InvalidInput,
    LimitExceeded,
    ResourceAlreadyExists,
    ResourceInUse,
    ResourceNotFound,
)
from models.personalize.recipes import RECIPES
from tests.personalize.control_fixtures import NOW, Control, recipe_arn

EXPLORATION = {"explorationWeight": "0.3", "explorationItemAgeCutOff": "30"}
SYNCED = {"syncWithLatestSolutionVersion": True}


async def campaign_of(control: Control, version: str, name: str = "c", **more: Any) -> str:
    """The ARN of a new campaign."""
    answer = await control("CreateCampaign", name=name, solutionVersionArn=version, **more)
    return str(answer["campaignArn"])


async def described(control: Control, arn: str) -> dict[str, Any]:
    """The description of a campaign."""
    return dict((await control("DescribeCampaign", campaignArn=arn))["campaign"])


async def test_a_campaign_deploys_a_version(control: Control) -> None:
    """It is ACTIVE at once, described as requested, and answers by the version's recipe."""
    solution = await control.solution(await control.group())
    version = await control.version(solution)
    config = {
        "itemExplorationConfig": EXPLORATION,
        "enableMetadataWithRecommendations": True,
        "rankingInfluence": {"POPULARITY": 0.5},
    }
    arn = await campaign_of(control, version, campaignConfig=config)

    assert await described(control, arn) == {
        "name": "c",
        "campaignArn": control.arn("campaign/c"),
        "solutionVersionArn": version,
        "minProvisionedTPS": 1,
        "campaignConfig": config,
        "status": "ACTIVE",
        "creationDateTime": NOW + 4,
        "lastUpdatedDateTime": NOW + 4,
    }
    (listed,) = (await control("ListCampaigns", solutionArn=solution))["campaigns"]
    assert listed["campaignArn"] == arn
    assert (await control("ListCampaigns", solutionArn=control.arn("solution/x")))[
        "campaigns"
    ] == []
    target = await resolve(control.context, arn)
    assert (target.group, target.config) == ("g", config)
    assert target.recipe == RECIPES["aws-user-personalization-v2"]
    with pytest.raises(ResourceAlreadyExists):
        await campaign_of(control, version)


async def test_a_campaign_waits_for_its_version(control: Control) -> None:
    """Unfinished versions are in use, failed ones invalid, unknown ones not found."""
    solution = await control.solution(await control.group())
    created = await control("CreateSolutionVersion", solutionArn=solution)
    version = created["solutionVersionArn"]
    with pytest.raises(ResourceInUse):
        await campaign_of(control, version)
    with pytest.raises(ResourceInUse, match="has no version that is ACTIVE"):
        await campaign_of(control, f"{solution}/$LATEST")
    await control("StopSolutionVersionCreation", solutionVersionArn=version)
    with pytest.raises(InvalidInput, match="CREATE STOPPED"):
        await campaign_of(control, version)
    with pytest.raises(ResourceNotFound):
        await campaign_of(control, f"{solution}/00000000")
    with pytest.raises(ResourceNotFound):
        await campaign_of(control, control.arn("solution/none/$LATEST"))
    with pytest.raises(InvalidInput, match="not the ARN of a solution-version"):
        await campaign_of(control, solution)


async def test_an_update_takes_effect_at_once(control: Control) -> None:
    """Members left out stay; the description has the update beside the campaign."""
    group = await control.group()
    first = await control.version(await control.solution(group))
    second = await control.version(await control.solution(group, "r", "aws-similar-items"))
    arn = await campaign_of(control, first, campaignConfig={"itemExplorationConfig": EXPLORATION})
    assert "latestCampaignUpdate" not in await described(control, arn)

    answer = await control("UpdateCampaign", campaignArn=arn, solutionVersionArn=second)
    shown = await described(control, arn)

    assert answer == {"campaignArn": arn}
    assert shown["solutionVersionArn"] == second
    assert shown["campaignConfig"] == {"itemExplorationConfig": EXPLORATION}
    assert shown["latestCampaignUpdate"] == {
        "solutionVersionArn": second,
        "minProvisionedTPS": 1,
        "campaignConfig": {"itemExplorationConfig": EXPLORATION},
        "status": "ACTIVE",
        "creationDateTime": control.now_s - 1,
        "lastUpdatedDateTime": control.now_s - 1,
    }
    assert (await resolve(control.context, arn)).recipe.type == "RELATED_ITEMS"
    await control("UpdateCampaign", campaignArn=arn, minProvisionedTPS=5, campaignConfig={})
    shown = await described(control, arn)
    assert (shown["minProvisionedTPS"], shown["campaignConfig"]) == (5, {})
    assert shown["solutionVersionArn"] == second
    with pytest.raises(ResourceInUse, match="has campaigns"):
        await control("DeleteSolution", solutionArn=second.rpartition("/")[0])
    await control("DeleteSolution", solutionArn=first.rpartition("/")[0])
    with pytest.raises(InvalidInput, match="nothing to update"):
        await control("UpdateCampaign", campaignArn=arn)


async def test_a_synced_campaign_follows_its_solution(control: Control) -> None:
    """It answers by the newest ACTIVE version, and names it."""
    solution = await control.solution(await control.group())
    first = await control.version(solution)
    latest = f"{solution}/$LATEST"
    with pytest.raises(InvalidInput, match=r"needs an ARN that ends in /\$LATEST"):
        await campaign_of(control, first, campaignConfig=SYNCED)
    pinned = await campaign_of(control, latest, "pinned")
    synced = await campaign_of(control, latest, "synced", campaignConfig=SYNCED)
    assert (await described(control, synced))["solutionVersionArn"] == first
    second = await control.version(solution)

    assert (await described(control, pinned))["solutionVersionArn"] == first
    assert (await described(control, synced))["solutionVersionArn"] == second
    assert (await resolve(control.context, synced)).group == "g"
    await control("UpdateCampaign", campaignArn=synced, minProvisionedTPS=2)
    await control(
        "UpdateCampaign", campaignArn=pinned, solutionVersionArn=latest, campaignConfig=SYNCED
    )
    third = await control.version(solution)
    for arn in (pinned, synced):
        assert (await described(control, arn))["solutionVersionArn"] == third


async def test_builtin_campaigns_exist_and_cannot_be_changed(control: Control) -> None:
    """They answer, and can be neither created, changed nor deleted."""
    arn = control.arn("campaign/default")
    shown = await described(control, arn)
    version = await control.version(await control.solution(await control.group()))

    assert (shown["name"], shown["status"]) == ("default", "ACTIVE")
    assert (await resolve(control.context, arn)).group == "shop"
    with pytest.raises(ResourceAlreadyExists, match="RECOMMENDER_CAMPAIGNS"):
        await campaign_of(control, version, "default")
    with pytest.raises(ResourceInUse, match="RECOMMENDER_CAMPAIGNS"):
        await control("UpdateCampaign", campaignArn=arn, minProvisionedTPS=2)
    with pytest.raises(ResourceInUse, match="RECOMMENDER_CAMPAIGNS"):
        await control("DeleteCampaign", campaignArn=arn)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"explorationWeight": "much"}, "explorationWeight must be a number, not 'much'"),
        ({"explorationWeight": "1.1"}, "explorationWeight must be from 0 to 1"),
        ({"explorationItemAgeCutOff": "-1"}, "explorationItemAgeCutOff must be from 0"),
        ({"exploration_weight": "0.3"}, "unknown 'exploration_weight'"),
    ],
)
async def test_invalid_exploration_is_refused(
    control: Control, config: dict[str, str], message: str
) -> None:
    """Campaigns and recommenders refuse it alike."""
    version = await control.version(await control.solution(await control.group()))
    shop = await control.group("shop2", domain="ECOMMERCE")
    wrong = {"itemExplorationConfig": config}
    with pytest.raises(InvalidInput, match=message):
        await campaign_of(control, version, campaignConfig=wrong)
    with pytest.raises(InvalidInput, match=message):
        await control.recommender(shop, recommenderConfig=wrong)


async def test_a_recommender_starts_and_stops(control: Control) -> None:
    """It answers while ACTIVE, once measured, and takes only the documented transitions."""
    shop = await control.group("shop2", domain="ECOMMERCE")
    arn = await control.recommender(shop)

    async def shown() -> dict[str, Any]:
        answer = await control("DescribeRecommender", recommenderArn=arn)
        return dict(answer["recommender"])

    async def refused() -> list[str]:
        """What each operation that needs it to rest says of its status."""
        said = []
        for operation in ("UpdateRecommender", "StartRecommender", "StopRecommender",
                          "DeleteRecommender"):  # fmt: skip
            asked: dict[str, Any] = {"recommenderArn": arn}
            asked |= {"recommenderConfig": {}} if operation.startswith("Update") else {}
            with pytest.raises(ResourceInUse) as caught:
                await control(operation, **asked)
            said.append(re.findall("[A-Z]+ PENDING", str(caught.value))[0])
        with pytest.raises(ResourceNotFound, match="PENDING, not ACTIVE"):
            await resolve(control.context, arn)
        return said

    assert await refused() == ["CREATE PENDING"] * 4
    await control.measured(arn, coverage=0.5)
    assert await shown() == {
        "name": "r",
        "recommenderArn": control.arn("recommender/r"),
        "datasetGroupArn": shop,
        "recipeArn": recipe_arn("aws-ecomm-recommended-for-you"),
        "recommenderConfig": {"minRecommendationRequestsPerSecond": 1},
        "modelMetrics": {"coverage": 0.5},
        "status": "ACTIVE",
        "creationDateTime": NOW + 2,
        "lastUpdatedDateTime": control.now_s - 1,
    }
    assert (await resolve(control.context, arn)).recipe == RECIPES["aws-ecomm-recommended-for-you"]
    with pytest.raises(ResourceInUse, match="is ACTIVE: it cannot become START PENDING"):
        await control("StartRecommender", recommenderArn=arn)
    assert await control("StopRecommender", recommenderArn=arn) == {"recommenderArn": arn}
    assert (await shown())["status"] == "INACTIVE"
    with pytest.raises(ResourceNotFound, match="is INACTIVE, not ACTIVE"):
        await resolve(control.context, arn)
    with pytest.raises(ResourceInUse, match="is INACTIVE"):
        await control("StopRecommender", recommenderArn=arn)
    assert await control("StartRecommender", recommenderArn=arn) == {"recommenderArn": arn}
    assert await refused() == ["START PENDING"] * 4
    await control.measured(arn, coverage=0.25)
    assert ((await shown())["status"], (await shown())["modelMetrics"]) == (
        "ACTIVE",
        {"coverage": 0.25},
    )
    await control(
        "UpdateRecommender",
        recommenderArn=arn,
        recommenderConfig={"enableMetadataWithRecommendations": True},
    )
    updated = await shown()
    config = {"minRecommendationRequestsPerSecond": 1, "enableMetadataWithRecommendations": True}
    assert updated["recommenderConfig"] == config
    assert updated["latestRecommenderUpdate"]["recommenderConfig"] == config
    assert updated["latestRecommenderUpdate"]["status"] == "ACTIVE"
    assert (await resolve(control.context, arn)).config == config
    (listed,) = (await control("ListRecommenders", datasetGroupArn=shop))["recommenders"]
    assert (listed["recipeArn"], listed["recommenderConfig"]) == (updated["recipeArn"], config)
    with pytest.raises(ResourceInUse, match="has recommenders"):
        await control("DeleteDatasetGroup", datasetGroupArn=shop)
    await control("DeleteRecommender", recommenderArn=arn)
    with pytest.raises(ResourceNotFound):
        await shown()


async def test_a_start_that_fails_leaves_a_recommender_stopped(control: Control) -> None:
    """A creation that fails is CREATE FAILED; both say why."""
    shop = await control.group("shop2", domain="ECOMMERCE")
    for name, status in (("r", "INACTIVE"), ("s", "CREATE FAILED")):
        arn = await control.recommender(shop, name)
        if status == "INACTIVE":
            await control.measured(arn)
            await control("StopRecommender", recommenderArn=arn)
            await control("StartRecommender", recommenderArn=arn)
        await control.jobs.fail(await control.claim_next(), "it broke", now_s=control.now_s)
        found = (await control("DescribeRecommender", recommenderArn=arn))["recommender"]

        assert (found["status"], found["failureReason"]) == (status, "it broke")


async def test_recommenders_are_for_groups_of_their_domain(control: Control) -> None:
    """Recipes of another domain, or of none, are refused."""
    plain = await control.group()
    video = await control.group("video", domain="VIDEO_ON_DEMAND")
    for group, domain in ((plain, "none"), (video, "VIDEO_ON_DEMAND")):
        with pytest.raises(InvalidInput, match=f"of the domain ECOMMERCE, the group of {domain}"):
            await control.recommender(group)
    with pytest.raises(InvalidInput, match="recommenders use recipes of a domain"):
        await control(
            "CreateRecommender",
            name="r",
            datasetGroupArn=video,
            recipeArn=recipe_arn("aws-user-personalization"),
        )
    await control(
        "CreateRecommender",
        name="r",
        datasetGroupArn=video,
        recipeArn=recipe_arn("aws-vod-top-picks"),
    )


async def test_quotas_of_campaigns_and_recommenders(make_control: Callable[..., Control]) -> None:
    """A group has at most as many of each as the settings allow."""
    control = make_control(personalize_quotas={"campaigns": 1, "recommenders": 1})
    group = await control.group("shop2", domain="ECOMMERCE")
    version = await control.version(await control.solution(group))
    await campaign_of(control, version)
    with pytest.raises(LimitExceeded, match="there may be 1 campaigns"):
        await campaign_of(control, version, "d")
    await control.recommender(group)
    with pytest.raises(LimitExceeded, match="there may be 1 recommenders"):
        await control.recommender(group, "second")
