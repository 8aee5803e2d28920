"""Solutions, their versions, and the versions' metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models.errors import (
    InvalidInput,
    LimitExceeded,
    ResourceAlreadyExists,
    ResourceInUse,
    ResourceNotFound,
)
from models.personalize.recipes import RECIPES
from tests.personalize.control_fixtures import NOW, Control, recipe_arn

CONFIG = {
    "eventValueThreshold": "3.5",
    "hpoConfig": {
        "hpoResourceConfig": {"maxNumberOfTrainingJobs": "4", "maxParallelTrainingJobs": "2"},
        "algorithmHyperParameterRanges": {
            "integerHyperParameterRanges": [{"name": "hidden", "minValue": 1, "maxValue": 9}]
        },
    },
    "algorithmHyperParameters": {"bptt": "32"},
    "trainingDataConfig": {"excludedDatasetColumns": {"Items": ["PRICE"]}},
    "autoTrainingConfig": {"schedulingExpression": "rate(7 days)"},
}


async def described(control: Control, solution: str) -> dict[str, Any]:
    """The description of a solution."""
    answer = await control("DescribeSolution", solutionArn=solution)
    return dict(answer["solution"])


async def test_a_solution_is_described_as_requested(control: Control) -> None:
    """The configuration comes back whole, with the documented defaults."""
    group = await control.group()
    arn = await control.solution(group, eventType="click", solutionConfig=CONFIG)

    assert await described(control, arn) == {
        "name": "s",
        "solutionArn": control.arn("solution/s"),
        "datasetGroupArn": group,
        "recipeArn": recipe_arn("aws-user-personalization-v2"),
        "eventType": "click",
        "solutionConfig": CONFIG,
        "performAutoML": False,
        "performHPO": False,
        "performAutoTraining": True,
        "performIncrementalUpdate": False,
        "status": "ACTIVE",
        "creationDateTime": NOW + 2,
        "lastUpdatedDateTime": NOW + 2,
    }
    (listed,) = (await control("ListSolutions", datasetGroupArn=group))["solutions"]
    assert listed["recipeArn"] == recipe_arn("aws-user-personalization-v2")
    with pytest.raises(ResourceAlreadyExists):
        await control.solution(group)


@pytest.mark.parametrize("name", RECIPES)
async def test_every_recipe_is_for_a_solution_or_says_why_not(control: Control, name: str) -> None:
    """Recipes of domains are for recommenders; recipes of actions are not supported."""
    group, recipe = await control.group(), RECIPES[name]
    if recipe.domain is None and recipe.type != "PERSONALIZED_ACTIONS":
        await control.solution(group, recipe=name)
        return
    message = "not supported" if recipe.domain is None else "is for recommenders"
    with pytest.raises(InvalidInput, match=message):
        await control.solution(group, recipe=name)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "either a recipeArn or performAutoML"),
        (
            {"recipeArn": recipe_arn("aws-sims"), "performAutoML": True},
            "either a recipeArn or performAutoML",
        ),
        ({"recipeArn": "arn:aws:personalize:us-east-1:0:solution/x"}, "ARN of a recipe"),
        (
            {"performAutoML": True, "solutionConfig": {"eventValueThreshold": "high"}},
            "eventValueThreshold must be a number, not 'high'",
        ),
        (
            {"performAutoML": True, "solutionConfig": {"eventValueThreshold": "nan"}},
            "eventValueThreshold must be a number",
        ),
        (
            {
                "performAutoML": True,
                "solutionConfig": {"autoMLConfig": {"recipeList": [recipe_arn("aws-sims")]}},
            },
            "not of type USER_PERSONALIZATION",
        ),
        (
            {
                "performAutoML": True,
                "solutionConfig": {
                    "hpoConfig": {"hpoResourceConfig": {"maxNumberOfTrainingJobs": "0"}}
                },
            },
            "maxNumberOfTrainingJobs must be 1 or more",
        ),
        (
            {
                "performAutoML": True,
                "solutionConfig": {
                    "trainingDataConfig": {"includedDatasetColumns": {"Actions": []}}
                },
            },
            "datasetType 'Actions' is not supported",
        ),
    ],
)
async def test_invalid_solutions_are_refused(
    control: Control, request_: dict[str, Any], message: str
) -> None:
    """Each error names the reason."""
    group = await control.group()
    with pytest.raises(InvalidInput, match=message):
        await control("CreateSolution", name="s", datasetGroupArn=group, **request_)


async def test_an_unknown_recipe_does_not_exist(control: Control) -> None:
    """It is not found; an ARN of another type is invalid."""
    with pytest.raises(ResourceNotFound, match="recipe/aws-magic does not exist"):
        await control.solution(await control.group(), recipe="aws-magic")


async def test_a_version_copies_its_solution(control: Control) -> None:
    """Its ARN is the solution's with eight hexadecimal digits; later updates change nothing."""
    group = await control.group()
    solution = await control.solution(group, eventType="click", solutionConfig=CONFIG)
    created = await control("CreateSolutionVersion", solutionArn=solution, name="first")
    arn = created["solutionVersionArn"]
    before, _, digits = arn.rpartition("/")

    assert before == solution
    assert len(digits) == 8
    assert int(digits, 16) >= 0
    await control(
        "UpdateSolution",
        solutionArn=solution,
        performAutoTraining=False,
        solutionUpdateConfig={"autoTrainingConfig": {"schedulingExpression": "rate(1 day)"}},
    )
    shown = (await control("DescribeSolutionVersion", solutionVersionArn=arn))["solutionVersion"]
    assert shown == {
        "name": "first",
        "solutionVersionArn": arn,
        "solutionArn": solution,
        "datasetGroupArn": group,
        "recipeArn": recipe_arn("aws-user-personalization-v2"),
        "eventType": "click",
        "solutionConfig": CONFIG,
        "performAutoML": False,
        "performHPO": False,
        "performIncrementalUpdate": False,
        "trainingMode": "FULL",
        "trainingType": "MANUAL",
        "status": "CREATE PENDING",
        "creationDateTime": NOW + 3,
        "lastUpdatedDateTime": NOW + 3,
    }
    updated = await described(control, solution)
    assert updated["performAutoTraining"] is False
    assert updated["solutionConfig"] == CONFIG | {
        "autoTrainingConfig": {"schedulingExpression": "rate(1 day)"}
    }
    assert updated["latestSolutionUpdate"]["status"] == "ACTIVE"
    assert updated["latestSolutionUpdate"]["performAutoTraining"] is False
    with pytest.raises(ResourceAlreadyExists):
        await control("CreateSolutionVersion", solutionArn=solution, name="first")
    with pytest.raises(InvalidInput, match="nothing to update"):
        await control("UpdateSolution", solutionArn=solution)


async def test_metrics_are_there_once_training_has_ended(control: Control) -> None:
    """Before it they are in use; of a failed version, invalid; then the runner's."""
    solution = await control.solution(await control.group())
    created = await control("CreateSolutionVersion", solutionArn=solution)
    arn = created["solutionVersionArn"]
    with pytest.raises(ResourceInUse, match="CREATE PENDING"):
        await control("GetSolutionMetrics", solutionVersionArn=arn)
    job = await control.claim_next()
    with pytest.raises(ResourceInUse, match="CREATE IN_PROGRESS"):
        await control("GetSolutionMetrics", solutionVersionArn=arn)
    metrics = {"coverage": 0.5, "mean_reciprocal_rank_at_25": 0.25}
    await control.jobs.succeed(
        job, now_s=control.now_s, data={"trainingHours": 0.01}, hidden={"metrics": metrics}
    )

    assert await control("GetSolutionMetrics", solutionVersionArn=arn) == {
        "solutionVersionArn": arn,
        "metrics": metrics,
    }
    shown = (await control("DescribeSolutionVersion", solutionVersionArn=arn))["solutionVersion"]
    assert (shown["status"], shown["trainingHours"]) == ("ACTIVE", 0.01)
    assert "metrics" not in shown
    await control("CreateSolutionVersion", solutionArn=solution)
    reason = "Dataset has fewer than 25 users with at least 2 interactions each."
    failed = await control.jobs.fail(await control.claim_next(), reason, now_s=control.now_s)
    with pytest.raises(InvalidInput, match="CREATE FAILED: Dataset has fewer than 25 users"):
        await control("GetSolutionMetrics", solutionVersionArn=control.arn(failed.path))


async def test_a_solution_shows_latest_version_and_best_recipe(control: Control) -> None:
    """Of several recipes, it shows the one that training chose."""
    group = await control.group()
    created = await control(
        "CreateSolution", name="auto", datasetGroupArn=group, performAutoML=True
    )
    solution = created["solutionArn"]
    assert (await described(control, solution))["performHPO"] is True
    assert "latestSolutionVersion" not in await described(control, solution)
    best = recipe_arn("aws-user-personalization")
    first = await control.version(solution, data={"recipeArn": best})
    second = await control("CreateSolutionVersion", solutionArn=solution)

    shown = await described(control, solution)
    assert shown["autoMLResult"] == {"bestRecipeArn": best}
    assert shown["latestSolutionVersion"] == {
        "solutionVersionArn": second["solutionVersionArn"],
        "status": "CREATE PENDING",
        "trainingMode": "FULL",
        "trainingType": "MANUAL",
        "creationDateTime": control.now_s - 1,
        "lastUpdatedDateTime": control.now_s - 1,
    }
    listed = await control("ListSolutionVersions", solutionArn=solution)
    assert [one["solutionVersionArn"] for one in listed["solutionVersions"]] == [
        first,
        second["solutionVersionArn"],
    ]
    with pytest.raises(ResourceNotFound):
        await control("ListSolutionVersions", solutionArn=control.arn("solution/none"))


async def test_training_can_be_stopped(control: Control) -> None:
    """At once before it begins; afterwards it is stopping until the runner notices."""
    solution = await control.solution(await control.group())

    async def status(arn: str) -> str:
        answer = await control("DescribeSolutionVersion", solutionVersionArn=arn)
        return str(answer["solutionVersion"]["status"])

    async def stop(arn: str) -> None:
        await control("StopSolutionVersionCreation", solutionVersionArn=arn)

    created = await control("CreateSolutionVersion", solutionArn=solution)
    waiting = created["solutionVersionArn"]
    await stop(waiting)
    assert await status(waiting) == "CREATE STOPPED"
    with pytest.raises(ResourceInUse, match="is CREATE STOPPED"):
        await stop(waiting)
    created = await control("CreateSolutionVersion", solutionArn=solution)
    begun = created["solutionVersionArn"]
    job = await control.claim_next()
    await stop(begun)
    assert await status(begun) == "CREATE STOPPING"
    with pytest.raises(ResourceInUse, match="has unfinished solution-versions"):
        await control("DeleteSolution", solutionArn=solution)
    renewed = await control.jobs.renew(job, now_s=control.now_s, lease_s=60)
    assert renewed.resource.status == "CREATE STOPPING"
    await control.jobs.succeed(job, now_s=control.now_s, hidden={"metrics": {"coverage": 1.0}})
    assert await status(begun) == "CREATE STOPPED"
    with pytest.raises(InvalidInput):
        await control("GetSolutionMetrics", solutionVersionArn=begun)


async def test_an_update_needs_an_earlier_version(control: Control) -> None:
    """It also needs a recipe that supports it; AUTOTRAIN is not for callers."""
    group = await control.group()
    solution = await control.solution(group)
    related = await control.solution(group, "related", "aws-sims")
    with pytest.raises(ResourceInUse, match="has no version that is ACTIVE"):
        await control("CreateSolutionVersion", solutionArn=solution, trainingMode="UPDATE")
    with pytest.raises(InvalidInput, match="UPDATE is for recipes of user-personalization"):
        await control("CreateSolutionVersion", solutionArn=related, trainingMode="UPDATE")
    with pytest.raises(InvalidInput, match="AUTOTRAIN"):
        await control("CreateSolutionVersion", solutionArn=solution, trainingMode="AUTOTRAIN")
    await control.version(solution)
    await control("CreateSolutionVersion", solutionArn=solution, trainingMode="UPDATE")


async def test_a_solution_is_deleted_with_its_versions(control: Control) -> None:
    """Only once no campaign uses one."""
    group = await control.group()
    solution = await control.solution(group)
    version = await control.version(solution)
    campaign = (await control("CreateCampaign", name="c", solutionVersionArn=version))[
        "campaignArn"
    ]
    with pytest.raises(ResourceInUse, match="has campaigns"):
        await control("DeleteSolution", solutionArn=solution)
    await control("DeleteCampaign", campaignArn=campaign)
    await control("DeleteSolution", solutionArn=solution)
    with pytest.raises(ResourceNotFound):
        await control("DescribeSolutionVersion", solutionVersionArn=version)
    assert (await control("ListSolutionVersions"))["solutionVersions"] == []


async def test_quotas_of_solutions(make_control: Callable[..., Control]) -> None:
    """Quotas of solutions of a group, versions of a solution, and unfinished versions."""
    control = make_control(
        personalize_quotas={"solutions": 1, "solution-versions": 2, "pending-solution-versions": 1}
    )
    group = await control.group()
    solution = await control.solution(group)
    with pytest.raises(LimitExceeded, match=r"there may be 1 solutions of .*dataset-group/g"):
        await control.solution(group, "second")
    await control.solution(await control.group("other"), "second")
    await control("CreateSolutionVersion", solutionArn=solution)
    with pytest.raises(LimitExceeded, match="More than 1 resources with PENDING"):
        await control("CreateSolutionVersion", solutionArn=solution)
    await control.jobs.succeed(await control.claim_next(), now_s=control.now_s)
    await control.version(solution)
    with pytest.raises(LimitExceeded, match="there may be 2 solution-versions"):
        await control("CreateSolutionVersion", solutionArn=solution)
