"""Options of batch jobs, and what training makes of a solution's configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import InvalidInput
from models.personalize.recipes import RECIPES
from models.personalize.training.tuning import trials
from models.state.catalogue.metadata import put_items
from tests.personalize.answer_fixtures import HOUR_S, Shop, shop
from tests.personalize.control_fixtures import ROLE, Control
from tests.personalize.jobs.test_runner import run_next, runner_of

SMALL = {"training_min_users": 1, "training_min_interactions": 1}


async def batch(made: Shop, folder: Path, version: str, name: str, **config: Any) -> list[str]:
    """The items of a batch job's line for the user u1."""
    runner = runner_of(made.control, folder)
    (folder / "data" / f"{name}.json").write_text('{"userId": "u1"}')
    await made.control(
        "CreateBatchInferenceJob",
        jobName=name,
        solutionVersionArn=version,
        roleArn=ROLE,
        jobInput={"s3DataSource": {"path": f"s3://data/{name}.json"}},
        jobOutput={"s3DataDestination": {"path": "s3://results/"}},
        **({"batchInferenceJobConfig": config} if config else {}),
    )
    await run_next(made.control, runner)
    answer = json.loads((folder / "results" / f"{name}.json.out").read_text())
    return list(answer["output"]["recommendedItems"])


async def test_batch_jobs_take_their_options(control: Control, tmp_path: Path) -> None:
    """Exploration and influence of a job change its answers as they do those of a campaign."""
    made = await shop(control)
    await made.send_many("other", 40, "view:hit", before_s=5 * HOUR_S)
    await made.send("u2", "view:new")
    store = control.context.tenants.store("g")
    cold = [(f"cold{n}", {"PRICE": 1.0}) for n in range(30)]
    await put_items(store, cold, control.now_s - 48 * HOUR_S)
    version = await control.version(await control.solution(made.group))
    none, much = {"explorationWeight": "0"}, {"explorationWeight": "1"}
    found = {
        name: await batch(made, tmp_path, version, name, **config)
        for name, config in (
            ("none", {"itemExplorationConfig": none}),
            ("much", {"itemExplorationConfig": much}),
            ("young", {"itemExplorationConfig": {**much, "explorationItemAgeCutOff": "1"}}),
            (
                "popular",
                {"itemExplorationConfig": none, "rankingInfluence": {"POPULARITY": 1.0}},
            ),
            ("fresh", {"itemExplorationConfig": none, "rankingInfluence": {"FRESHNESS": 1.0}}),
        )
    }
    n_cold = {name: sum(one.startswith("cold") for one in found[name]) for name in found}

    assert n_cold["none"] == n_cold["young"] == 0
    assert n_cold["much"] > 0
    assert (found["popular"][0], found["fresh"][0]) == ("hit", "new")
    assert found["none"][0] not in {"hit", "new"}


async def trained(made: Shop, folder: Path, name: str, recipe: str, **solution: Any) -> str:
    """The ARN of a version that a runner has trained."""
    arn = await made.control.solution(made.group, name, recipe, **solution)
    created = await made.control("CreateSolutionVersion", solutionArn=arn)
    await run_next(made.control, runner_of(made.control, folder))
    return str(created["solutionVersionArn"])


async def measured(made: Shop, folder: Path, name: str, recipe: str, **solution: Any) -> Any:
    """The version that a runner has trained, as it is stored."""
    arn = await trained(made, folder, name, recipe, **solution)
    return await made.control.context.registry.get(arn.rpartition(":")[2])


async def test_hyperparameters_are_optimized_within_their_ranges(
    make_control: Callable[..., Control], tmp_path: Path
) -> None:
    """As many sets as jobs are allowed are measured; the version has the best by the objective."""
    made = await shop(make_control(**SMALL), n_users=40, each=4)

    async def tuned(name: str, most: str, ranges: dict[str, Any], **objective: str) -> Any:
        config: dict[str, Any] = {
            "hpoResourceConfig": {"maxNumberOfTrainingJobs": most},
            "algorithmHyperParameterRanges": ranges,
        }
        if objective:
            config["hpoObjective"] = objective
        return await measured(
            made, tmp_path, name, "aws-sims", performHPO=True, solutionConfig={"hpoConfig": config}
        )

    def within(least: float, most: float) -> dict[str, Any]:
        factor = {"name": "popularity_discount_factor", "minValue": least, "maxValue": most}
        return {"continuousHyperParameterRanges": [factor]}

    low, high = await tuned("low", "2", within(0.0, 0.1)), await tuned("high", "3", within(0.9, 1))
    worst = await tuned("worst", "3", within(0.0, 1.0), type="Minimize", metricName="coverage")
    best = await tuned("best", "3", within(0.0, 1.0), type="Maximize", metricName="coverage")

    def factor(version: Any) -> float:
        values = version.data["tunedHPOParams"]["algorithmHyperParameters"]
        return float(values["popularity_discount_factor"])

    assert factor(low) <= 0.1
    assert factor(high) >= 0.9
    assert (len(low.hidden["measured"]), len(high.hidden["measured"])) == (2, 3)
    assert worst.hidden["metrics"]["coverage"] < best.hidden["metrics"]["coverage"]


def test_ranges_bound_what_is_tried() -> None:
    """Integers and texts of hpoConfig, by the name of the hyperparameter; others are refused."""
    recipe = RECIPES["aws-user-personalization"]

    def tried(**ranges: Any) -> tuple[set[str], set[str]]:
        config = {
            "hpoResourceConfig": {"maxNumberOfTrainingJobs": "40"},
            "algorithmHyperParameterRanges": ranges,
        }
        sets = trials(recipe, {"hpoConfig": config})
        return {one["bptt"] for one in sets}, {one["recency_mask"] for one in sets}

    bptt = {"name": "bptt", "minValue": 3, "maxValue": 4}
    mask = {"name": "recency_mask", "values": ["False"]}
    assert tried(integerHyperParameterRanges=[bptt]) == ({"3", "4"}, {"true", "false"})
    assert tried(categoricalHyperParameterRanges=[mask])[1] == {"false"}
    for wrong in ({**bptt, "name": "layers"}, {**bptt, "maxValue": 33}, {**bptt, "minValue": 5}):
        with pytest.raises(InvalidInput):
            tried(integerHyperParameterRanges=[wrong])
