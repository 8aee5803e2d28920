"""Recipes, tags, metric attributions, and paged lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api.personalize.operations import OPERATIONS
from models.errors import (
    InvalidInput,
    InvalidNextToken,
    LimitExceeded,
    ResourceAlreadyExists,
    ResourceNotFound,
    TooManyTagKeys,
    TooManyTags,
)
from models.personalize.recipes import RECIPES
from tests.personalize.control_fixtures import INTERACTIONS, NOW, ROLE, Control, recipe_arn

OF_ONE = {
    "ListTagsForResource": "resourceArn",
    "ListMetricAttributionMetrics": "metricAttributionArn",
}
"""Lists of members of one resource."""


async def pages(control: Control, operation: str, member: str, **request: Any) -> list[list[Any]]:
    """All pages of a list."""
    found = []
    while True:
        answer = await control(operation, **request)
        found.append(answer[member])
        if "nextToken" not in answer:
            return found
        request["nextToken"] = answer["nextToken"]


async def test_lists_come_in_pages(control: Control) -> None:
    """Pages of any size hold every element once, oldest first; the last has no token."""
    group = await control.group()
    for n in range(5):
        await control.solution(group, f"s{n}")
    for size in (1, 2, 5, 100):
        found = await pages(control, "ListSolutions", "solutions", maxResults=size)
        assert [one["name"] for page in found for one in page] == [f"s{n}" for n in range(5)]
        assert [len(page) for page in found[:-1]] == [size] * (len(found) - 1)
        assert found[-1]
    of_group = await pages(
        control, "ListSolutions", "solutions", datasetGroupArn=group, maxResults=2
    )
    assert [len(page) for page in of_group] == [2, 2, 1]


async def test_a_token_is_valid_for_its_list_only(control: Control) -> None:
    """Invented, changed or of another list, it is InvalidNextToken."""
    group = await control.group()
    for n in range(3):
        await control.schema(f"s{n}", *INTERACTIONS)
        await control.solution(group, f"s{n}")
    token = (await control("ListSchemas", maxResults=1))["nextToken"]
    of_group = await control("ListSolutions", datasetGroupArn=group, maxResults=1)

    assert len(token) <= 40
    await control("ListSchemas", nextToken=token)
    for wrong in ("x", token[:-1], f"{token}0", f"1{token}", "-", "é", "0" * 1500):
        with pytest.raises(InvalidNextToken):
            await control("ListSchemas", nextToken=wrong)
    for operation in ("ListSolutions", "ListDatasetGroups", "ListRecipes"):
        with pytest.raises(InvalidNextToken):
            await control(operation, nextToken=token)
    with pytest.raises(InvalidNextToken):
        await control("ListSolutions", nextToken=of_group["nextToken"])


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name.startswith("List")])
async def test_empty_lists_hold_builtin_resources_only(control: Control, operation: str) -> None:
    """Without created resources, lists hold those of the settings and of the service."""
    if operation in OF_ONE:
        with pytest.raises((ResourceNotFound, InvalidInput)):
            await control(operation, **{OF_ONE[operation]: control.arn("metric-attribution/none")})
        return
    answer = await control(operation)
    given = {
        "ListDatasetGroups": 1,
        "ListEventTrackers": 1,
        "ListRecipes": len(RECIPES),
        "ListCampaigns": len(control.settings.campaigns),
    }
    ((_, listed),) = answer.items()
    assert len(listed) == given.get(operation, 0)


async def test_the_parent_of_a_list_must_have_the_right_type(control: Control) -> None:
    """An ARN of another type is invalid; an unknown parent has an empty list."""
    none = control.arn("dataset-group/none")
    assert await control("ListDatasets", datasetGroupArn=none) == {"datasets": []}
    assert await control("ListFilters", datasetGroupArn=none) == {"Filters": []}
    with pytest.raises(InvalidInput, match="is not the ARN of a dataset-group"):
        await control("ListDatasets", datasetGroupArn=control.arn("solution/s"))


async def test_recipes_are_listed_and_described(control: Control) -> None:
    """All recipes, or those of a domain, each with its type."""
    found = await pages(control, "ListRecipes", "recipes", recipeProvider="SERVICE", maxResults=10)
    listed = [one for page in found for one in page]
    video = await control("ListRecipes", domain="VIDEO_ON_DEMAND")

    assert [one["name"] for one in listed] == [*RECIPES]
    # Amazon's notebooks ask on, unasked whether there is more.
    last = await control("ListRecipes", domain="VIDEO_ON_DEMAND", nextToken=video["nextToken"])
    assert last == {"recipes": []}
    assert {one["status"] for one in listed} == {"ACTIVE"}
    assert len(video["recipes"]) == 5
    assert {one["domain"] for one in video["recipes"]} == {"VIDEO_ON_DEMAND"}
    for name, recipe in RECIPES.items():
        arn = recipe_arn(name)
        shown = (await control("DescribeRecipe", recipeArn=arn))["recipe"]
        assert (shown["name"], shown["recipeArn"]) == (name, arn)
        assert shown["recipeType"] == recipe.type
        algorithm = await control("DescribeAlgorithm", algorithmArn=shown["algorithmArn"])
        assert algorithm["algorithm"]["name"] == name
        transformation = await control(
            "DescribeFeatureTransformation",
            featureTransformationArn=shown["featureTransformationArn"],
        )
        assert transformation["featureTransformation"]["status"] == "ACTIVE"
    with pytest.raises(ResourceNotFound):
        await control("DescribeRecipe", recipeArn=recipe_arn("aws-magic"))
    with pytest.raises(InvalidInput):
        await control("DescribeRecipe", recipeArn=control.arn("solution/s"))
    with pytest.raises(InvalidInput):
        await control("DescribeAlgorithm", algorithmArn=recipe_arn("aws-sims"))
    with pytest.raises(ResourceNotFound):
        await control("DescribeAlgorithm", algorithmArn="arn:aws:personalize:::algorithm/magic")


def tags(**pairs: str) -> list[dict[str, str]]:
    """Tags in the form of the API."""
    return [{"tagKey": key, "tagValue": value} for key, value in pairs.items()]


async def test_tags_are_added_replaced_and_removed(control: Control) -> None:
    """Tags of the creation included; they are listed by key, and described nowhere else."""
    group = await control.group(tags=tags(team="shop", stage="test"))

    async def listed() -> dict[str, str]:
        answer = await control("ListTagsForResource", resourceArn=group)
        return {tag["tagKey"]: tag["tagValue"] for tag in answer["tags"]}

    assert await listed() == {"stage": "test", "team": "shop"}
    await control("TagResource", resourceArn=group, tags=tags(stage="live", cost=""))
    assert [*(await listed()).items()] == [("cost", ""), ("stage", "live"), ("team", "shop")]
    await control("UntagResource", resourceArn=group, tagKeys=["stage", "none"])
    assert await listed() == {"cost": "", "team": "shop"}
    shown = (await control("DescribeDatasetGroup", datasetGroupArn=group))["datasetGroup"]
    assert shown["lastUpdatedDateTime"] == NOW + 1


async def test_tags_have_limits(make_control: Callable[..., Control]) -> None:
    """The quota, repeated and reserved keys, and resource types without tags are checked."""
    control = make_control(personalize_quotas={"tags": 2})
    group = await control.group(tags=tags(a="1", b="2"))
    with pytest.raises(TooManyTags, match="may have 2 tags, not 3"):
        await control("TagResource", resourceArn=group, tags=tags(c="3"))
    await control("TagResource", resourceArn=group, tags=tags(b="3"))
    with pytest.raises(TooManyTags):
        await control.group("h", tags=tags(a="1", b="2", c="3"))
    with pytest.raises(InvalidInput, match="repeated"):
        await control("TagResource", resourceArn=group, tags=[*tags(a="1"), *tags(a="2")])
    with pytest.raises(InvalidInput, match="reserved for Amazon"):
        await control("TagResource", resourceArn=group, tags=tags(**{"AWS:x": "1"}))
    with pytest.raises(TooManyTagKeys):
        await control("UntagResource", resourceArn=group, tagKeys=["a", "b", "c"])
    schema = await control.schema("s", *INTERACTIONS)
    for arn in (schema, recipe_arn("aws-sims"), control.arn("nothing/x")):
        with pytest.raises(InvalidInput, match="a resource that can have tags"):
            await control("ListTagsForResource", resourceArn=arn)
    with pytest.raises(ResourceNotFound):
        await control("TagResource", resourceArn=control.arn("solution/s"), tags=tags(a="1"))


CONFIG = {"roleArn": ROLE, "s3DataDestination": {"path": "s3://bucket/metrics/"}}


def metric(name: str, expression: str = "SAMPLECOUNT()") -> dict[str, str]:
    """A metric in the form of the API."""
    return {"metricName": name, "eventType": "click", "expression": expression}


async def test_sums_are_of_numeric_columns(control: Control) -> None:
    """Of the group's datasets, where it has them; every event may have a value."""
    group = await control.group()
    await control.dataset(group, "ITEM_ID", "PRICE:null|float", "GENRE:categorical", kind="ITEMS")
    await control.dataset(group, *INTERACTIONS, "DEVICE:categorical")
    fine = ("SUM(Items.PRICE)", "SUM(Interactions.EVENT_VALUE)", "SAMPLECOUNT()")
    created = await control(
        "CreateMetricAttribution",
        name="m",
        datasetGroupArn=group,
        metrics=[metric(f"m{n}", one) for n, one in enumerate(fine)],
        metricsOutputConfig=CONFIG,
    )
    for wrong, message in (
        ("SUM(Items.GENRE)", "the column GENRE of ITEMS is not numeric"),
        ("SUM(Items.COST)", "ITEMS has no column 'COST'"),
        ("SUM(Interactions.DEVICE)", "the column DEVICE of INTERACTIONS is not numeric"),
    ):
        with pytest.raises(InvalidInput, match=f"the expression of x: {message}"):
            await control("UpdateMetricAttribution", **created, addMetrics=[metric("x", wrong)])


async def test_a_metric_attribution_keeps_its_metrics(control: Control) -> None:
    """They are listed in pages, added, removed by name, and deleted with the group."""
    group = await control.group()
    created = await control(
        "CreateMetricAttribution",
        name="m",
        datasetGroupArn=group,
        metrics=[metric("clicks"), metric("revenue", "SUM(Items.PRICE)")],
        metricsOutputConfig=CONFIG,
    )
    arn = created["metricAttributionArn"]

    async def names() -> list[str]:
        found = await pages(
            control,
            "ListMetricAttributionMetrics",
            "metrics",
            metricAttributionArn=arn,
            maxResults=1,
        )
        return [one["metricName"] for page in found for one in page]

    assert await names() == ["clicks", "revenue"]
    await control(
        "UpdateMetricAttribution",
        metricAttributionArn=arn,
        addMetrics=[metric("clicks", "sum( items.PRICE )")],
        removeMetrics=["clicks"],
    )
    assert await names() == ["revenue", "clicks"]
    shown = await control("DescribeMetricAttribution", metricAttributionArn=arn)
    assert shown["metricAttribution"] == {
        "name": "m",
        "metricAttributionArn": arn,
        "datasetGroupArn": group,
        "metricsOutputConfig": CONFIG,
        "status": "ACTIVE",
        "creationDateTime": NOW + 2,
        "lastUpdatedDateTime": NOW + 5,
    }
    with pytest.raises(ResourceAlreadyExists, match="revenue"):
        await control(
            "UpdateMetricAttribution", metricAttributionArn=arn, addMetrics=[metric("revenue")]
        )
    with pytest.raises(InvalidInput, match="at most 10 metrics"):
        await control(
            "UpdateMetricAttribution",
            metricAttributionArn=arn,
            addMetrics=[metric(f"m{n}") for n in range(9)],
        )
    for wrong in ("COUNT()", "SUM(Users.AGE)", "SUM(Items.PRICE) + 1"):
        with pytest.raises(InvalidInput, match="must be SUM"):
            await control(
                "UpdateMetricAttribution",
                metricAttributionArn=arn,
                addMetrics=[metric("x", wrong)],
            )
    with pytest.raises(InvalidInput, match="removeMetrics: there is no metric nothing"):
        await control(
            "UpdateMetricAttribution", metricAttributionArn=arn, removeMetrics=["clicks", "nothing"]
        )
    assert await names() == ["revenue", "clicks"]
    with pytest.raises(LimitExceeded):
        await control(
            "CreateMetricAttribution",
            name="second",
            datasetGroupArn=group,
            metrics=[],
            metricsOutputConfig=CONFIG,
        )
    with pytest.raises(InvalidInput, match="is missing"):
        await control("UpdateMetricAttribution")
    await control("DeleteMetricAttribution", metricAttributionArn=arn)
    assert (await control("ListMetricAttributions"))["metricAttributions"] == []
