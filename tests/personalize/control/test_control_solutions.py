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
from models.personalize.training.automatic_training import create_due_versions
from tests.personalize.control_fixtures import Control, recipe_arn

CONFIG = {
    "hpoConfig": {
        "hpoResourceConfig": {"maxNumberOfTrainingJobs": "4", "maxParallelTrainingJobs": "2"},
        "algorithmHyperParameterRanges": {
            "integerHyperParameterRanges": [{"name": "bptt", "minValue": 2, "maxValue": 9}]
        },
    },
    "algorithmHyperParameters": {"bptt": "32"},
    "trainingDataConfig": {"excludedDatasetColumns": {"Items": ["PRICE"]}},
    "autoTrainingConfig": {"schedulingExpression": "rate(7 days)"},
}
OLD = "aws-user-personalization"
"""A recipe with hyperparameters that can be optimized, and of which a version can be updated."""


async def priced(control: Control) -> str:
    """The ARN of a group whose items have prices."""
    group = await control.group()
    await control.dataset(group, "ITEM_ID", "PRICE:null|float", kind="ITEMS")
    return group


async def described(control: Control, solution: str) -> dict[str, Any]:
    """The description of a solution."""
    answer = await control("DescribeSolution", solutionArn=solution)
    return dict(answer["solution"])


async def test_a_solution_is_described_as_requested(control: Control) -> None:
    """The configuration comes back whole, with the documented defaults."""
    group = await priced(control)
    arn = await control.solution(
        group, "s", OLD, eventType="click", solutionConfig=CONFIG, performHPO=True
    )

    assert await described(control, arn) == {
        "name": "s",
        "solutionArn": control.arn("solution/s"),
        "datasetGroupArn": group,
        "recipeArn": recipe_arn(OLD),
        "eventType": "click",
        "solutionConfig": CONFIG,
        "performAutoML": False,
        "performHPO": True,
        "performAutoTraining": True,
        "performIncrementalUpdate": False,
        "status": "ACTIVE",
        "creationDateTime": control.now_s - 1,
        "lastUpdatedDateTime": control.now_s - 1,
    }
    (listed,) = (await control("ListSolutions", datasetGroupArn=group))["solutions"]
    assert listed["recipeArn"] == recipe_arn(OLD)
    with pytest.raises(ResourceAlreadyExists):
        await control.solution(group)


@pytest.mark.parametrize("name", RECIPES)
async def test_every_recipe_is_for_a_solution_or_says_why_not(control: Control, name: str) -> None:
    """Recipes of domains are for recommenders; that of actions needs a dataset of them."""
    group, recipe = await control.group(), RECIPES[name]
    if recipe.domain is None and recipe.type != "PERSONALIZED_ACTIONS":
        await control.solution(group, recipe=name)
        return
    message = "needs a dataset of actions" if recipe.domain is None else "is for recommenders"
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
            {
                "performAutoML": True,
                "solutionConfig": {
                    "hpoConfig": {"hpoResourceConfig": {"maxNumberOfTrainingJobs": "many"}}
                },
            },
            "maxNumberOfTrainingJobs must be a number, not 'many'",
        ),
        (
            {
                "performAutoML": True,
                "solutionConfig": {
                    "hpoConfig": {"hpoResourceConfig": {"maxNumberOfTrainingJobs": "nan"}}
                },
            },
            "maxNumberOfTrainingJobs must be a number",
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
            "no column of actions is trained on",
        ),
        (
            {
                "recipeArn": recipe_arn("aws-trending-now"),
                "solutionConfig": {
                    "featureTransformationParameters": {"trend_discovery_frequency": "1 hour"}
                },
            },
            "only 3 hours and 1 day is supported: trends are",
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
    group = await priced(control)
    solution = await control.solution(
        group, "s", OLD, eventType="click", solutionConfig=CONFIG, performHPO=True
    )
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
        "recipeArn": recipe_arn(OLD),
        "eventType": "click",
        "solutionConfig": CONFIG,
        "performAutoML": False,
        "performHPO": True,
        "performIncrementalUpdate": False,
        "trainingMode": "FULL",
        "trainingType": "MANUAL",
        "status": "CREATE PENDING",
        "creationDateTime": control.now_s - 2,
        "lastUpdatedDateTime": control.now_s - 2,
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
    solution = await control.solution(group, "s", OLD)
    second = await control.solution(group, "second", "aws-user-personalization-v2")
    related = await control.solution(group, "related", "aws-sims")
    with pytest.raises(ResourceInUse, match="has no version that is ACTIVE"):
        await control("CreateSolutionVersion", solutionArn=solution, trainingMode="UPDATE")
    with pytest.raises(InvalidInput, match="UPDATE is for recipes of aws-user-personalization"):
        await control("CreateSolutionVersion", solutionArn=related, trainingMode="UPDATE")
    with pytest.raises(InvalidInput, match="UPDATE is for recipes of aws-user-personalization"):
        await control("CreateSolutionVersion", solutionArn=second, trainingMode="UPDATE")
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


async def test_versions_are_created_on_schedule(control: Control) -> None:
    """The first an hour after its solution, the next after so many days; none if it is off."""
    group, registry = await control.group(), control.context.registry
    every = {"autoTrainingConfig": {"schedulingExpression": "rate(2 days)"}}
    solution = await control.solution(group, solutionConfig=every)
    weekly = await control.solution(group, "weekly")
    await control.solution(group, "off", performAutoTraining=False)
    began_s = control.now_s

    async def due(after_s: float) -> list[str]:
        made = await create_due_versions(registry, now_s=began_s + after_s)
        again = await create_due_versions(registry, now_s=began_s + after_s)
        assert again == []
        for _ in made:
            await control.jobs.succeed(await control.claim_next(), now_s=control.now_s)
        return sorted(one.data["solutionArn"] for one in made)

    day_s, hour_s = 24 * 3600, 3600
    assert await due(0.9 * hour_s) == []
    control.now_s = began_s + 4 * hour_s
    assert await due(1.1 * hour_s) == [solution, weekly]
    listed = (await control("ListSolutionVersions", solutionArn=solution))["solutionVersions"]
    assert [one["trainingType"] for one in listed] == ["AUTOMATIC"]
    control.now_s = began_s + 10 * day_s
    assert await due(1.5 * day_s) == []
    assert await due(2.5 * day_s) == [solution]
    await control("UpdateSolution", solutionArn=solution, performAutoTraining=False)
    assert await due(7.5 * day_s) == [weekly]
    longer = {"autoTrainingConfig": {"schedulingExpression": "rate(30 days)"}}
    await control("UpdateSolution", solutionArn=weekly, solutionUpdateConfig=longer)
    assert await due(20 * day_s) == []


@pytest.mark.parametrize(
    ("recipe", "request_", "message"),
    [
        (OLD, {"solutionConfig": {"algorithmHyperParameters": {"no": "1"}}}, "has no 'no'"),
        (OLD, {"solutionConfig": {"algorithmHyperParameters": {"bptt": "banana"}}}, "whole number"),
        (OLD, {"solutionConfig": {"algorithmHyperParameters": {"bptt": "33"}}}, "from 2 to 32"),
        (OLD, {"solutionConfig": {"algorithmHyperParameters": {"hidden_dimension": "64"}}},
         "only 149 is supported"),
        (OLD, {"solutionConfig": {"autoTrainingConfig": {"schedulingExpression": "rate(99 days)"}}},
         "1 to 30 days"),
        (OLD, {"solutionConfig": {"optimizationObjective": {"itemAttribute": "NOPE"}}},
         "has no column 'NOPE'"),
        (OLD, {"solutionConfig": {"trainingDataConfig":
                                  {"excludedDatasetColumns": {"ITEMS": ["NOPE"]}}}}, "'NOPE'"),
        (OLD, {"performIncrementalUpdate": True}, "is for aws-semantic-similarity"),
        ("aws-similar-items", {"performHPO": True}, "no hyperparameter to optimize"),
    ],
)  # fmt: skip
async def test_what_a_recipe_cannot_do_is_refused(
    control: Control, recipe: str, request_: dict[str, Any], message: str
) -> None:
    """Unknown columns, hyperparameters and values, schedules, and options of other recipes."""
    group = await priced(control)
    with pytest.raises(InvalidInput, match=message):
        await control.solution(group, "s", recipe, **request_)


async def test_incremental_updates_are_for_semantic_similarity(control: Control) -> None:
    """Off by default; on for one recipe, and refused for others at creation and update."""
    group = await control.group()
    on = await control.solution(
        group, "on", "aws-semantic-similarity", performIncrementalUpdate=True
    )
    other = await control.solution(group, "other", OLD)

    assert (await described(control, on))["performIncrementalUpdate"] is True
    assert (await described(control, other))["performIncrementalUpdate"] is False
    with pytest.raises(InvalidInput, match="performIncrementalUpdate is for"):
        await control("UpdateSolution", solutionArn=other, performIncrementalUpdate=True)
    await control("UpdateSolution", solutionArn=on, performIncrementalUpdate=False)
    assert (await described(control, on))["performIncrementalUpdate"] is False
