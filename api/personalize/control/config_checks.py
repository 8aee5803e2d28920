"""Checks of configurations beyond those of their shapes in the service model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.dataset_columns import check_named_columns
from models.errors import InvalidInput
from models.personalize.datasets.dataset_schemas import ACTION_TYPES, dataset_type_of
from models.personalize.recipes import Recipe, recipe_of
from models.personalize.training import tuning
from models.personalize.training.hyperparameters import hyperparameters
from models.personalize.training.solution_metrics import METRICS

EXPLORATION: Mapping[str, float] = {"explorationWeight": 1.0, "explorationItemAgeCutOff": 1e6}
"""Members of itemExplorationConfig: numbers as text, from 0 to this maximum."""

PERSONAL = frozenset({"USER_PERSONALIZATION", "PERSONALIZED_RANKING"})
"""Types of recipes whose order rankingInfluence and optimizationObjective change."""

INCREMENTAL = "aws-semantic-similarity"
MAX_DAYS = 30
REQUIRED = frozenset({"USER_ID", "ITEM_ID", "TIMESTAMP"})

OF_RECIPES = (
    "algorithmHyperParameters",
    "featureTransformationParameters",
    "hpoConfig",
    "optimizationObjective",
)
"""Members of a solutionConfig that are for one recipe."""

_RATE = re.compile(r"rate\((\d+) (day|days)\)")


def check_config(config: Mapping[str, Any], recipe: Recipe) -> None:
    """Check a campaignConfig, recommenderConfig or batchInferenceJobConfig of a recipe.

    Raises
    ------
    InvalidInput
        A member is unknown, out of range, or has no effect with the recipe.
    """
    exploration = config.get("itemExplorationConfig", {})
    for name, text in exploration.items():
        if name not in EXPLORATION:
            known = " and ".join(EXPLORATION)
            raise InvalidInput(f"itemExplorationConfig: unknown {name[:60]!r}, only {known}")
        if not 0 <= parse_number(text, f"itemExplorationConfig.{name}") <= EXPLORATION[name]:
            raise InvalidInput(
                f"itemExplorationConfig.{name} must be from 0 to {EXPLORATION[name]:g}"
            )
    if exploration and recipe.type != "USER_PERSONALIZATION":
        raise InvalidInput(f"itemExplorationConfig: {recipe.name} explores no items")
    influence = config.get("rankingInfluence", {})
    for name, weight in influence.items():
        if not 0 <= weight <= 1:
            raise InvalidInput(f"rankingInfluence.{name} must be from 0 to 1, not {weight:g}")
    if influence and recipe.type not in PERSONAL:
        raise InvalidInput(f"rankingInfluence: {recipe.name} does not rank for a user")


async def check_solution(
    context: PersonalizeContext, group: str, request: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Check the configuration of a solution, with its whole solutionConfig, in a group's path.

    Raises
    ------
    InvalidInput
        Something is unknown, out of range, or has no effect with the recipe.
    """
    hpo = config.get("hpoConfig", {})
    for name, text in hpo.get("hpoResourceConfig", {}).items():
        if parse_number(text, f"hpoResourceConfig.{name}") < 1:
            raise InvalidInput(f"hpoResourceConfig.{name} must be 1 or more")
    metrics = (
        ("hpoObjective", hpo.get("hpoObjective", {})),
        ("autoMLConfig", config.get("autoMLConfig", {})),
    )
    for where, given in metrics:
        if given.get("metricName", METRICS[0]) not in METRICS:
            raise InvalidInput(f"{where}.metricName must be one of {', '.join(METRICS)}")
    tuning.objective_of(config)
    check_schedule(config)
    if "recipeArn" not in request:
        given = next((name for name in OF_RECIPES if config.get(name)), None)
        if given is not None:
            raise InvalidInput(f"{given} needs a recipeArn, not performAutoML")
    else:
        _check_recipe_options(request, config, recipe_of(request["recipeArn"]))
    _check_events(request, config)
    objective = config.get("optimizationObjective", {})
    if objective:
        if "itemAttribute" not in objective:
            raise InvalidInput("optimizationObjective needs an itemAttribute")
        await check_named_columns(
            context, group, "ITEMS", [objective["itemAttribute"]], "optimizationObjective",
            is_numeric=True,
        )  # fmt: skip
    await check_columns_config(context, group, config)


def _check_recipe_options(
    request: Mapping[str, Any], config: Mapping[str, Any], recipe: Recipe
) -> None:
    hyperparameters(recipe, config)
    if request.get("performHPO"):
        tuning.trials(recipe, config)
    elif config.get("hpoConfig"):
        raise InvalidInput("hpoConfig needs performHPO")
    if request.get("performIncrementalUpdate") and recipe.name != INCREMENTAL:
        raise InvalidInput(f"performIncrementalUpdate is for {INCREMENTAL}, not {recipe.name}")
    if config.get("optimizationObjective") and recipe.type not in PERSONAL:
        raise InvalidInput(f"optimizationObjective: {recipe.name} does not rank for a user")
    if config.get("autoMLConfig"):
        raise InvalidInput("autoMLConfig needs performAutoML")


def _check_events(request: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    listed = config.get("eventsConfig", {}).get("eventParametersList", [])
    types = [one.get("eventType", "").lower() for one in listed]
    if "" in types or len({*types}) < len(types):
        raise InvalidInput("eventsConfig: each of its events has an eventType of its own")
    if listed and request.get("eventType"):
        raise InvalidInput("give either an eventType or an eventsConfig")
    if listed and not any(one.get("weight", 1.0) for one in listed):
        raise InvalidInput("eventsConfig: one weight at least must be above 0")


def check_schedule(config: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for a schedule of automatic training that is not of 1 to 30 days."""
    text = config.get("autoTrainingConfig", {}).get("schedulingExpression", "rate(7 days)")
    match = _RATE.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= MAX_DAYS:
        raise InvalidInput(f"schedulingExpression must be of 1 to {MAX_DAYS} days, not {text}")


async def check_columns_config(
    context: PersonalizeContext, group: str, config: Mapping[str, Any]
) -> None:
    """Check the columns to train on and to leave out, in the data sets of a group.

    Raises
    ------
    InvalidInput
        The group lacks a column, it cannot be left out, or it is both excluded and included.
    """
    training = config.get("trainingDataConfig", {})
    for name, columns in training.get("excludedDatasetColumns", {}).items():
        for other, included in training.get("includedDatasetColumns", {}).items():
            both = {column.upper() for column in columns} & {one.upper() for one in included}
            if dataset_type_of(name) == dataset_type_of(other) and both:
                raise InvalidInput(f"{min(both)} of {name} is both excluded and included")
    for member, named in training.items():
        for name, columns in named.items():
            kind = dataset_type_of(name)
            if kind in ACTION_TYPES:
                raise InvalidInput(f"{member}.{name}: no column of actions is trained on")
            await check_named_columns(context, group, kind, columns, f"{member}.{name}")
            needed = REQUIRED & {column.upper() for column in columns}
            if needed and member.startswith("excluded"):
                raise InvalidInput(f"{member}.{name}: {min(needed)} cannot be left out")


def parse_number(text: str, where: str) -> float:
    """The finite number that a text holds.

    Raises
    ------
    InvalidInput
        It holds none.

    Examples
    --------
    >>> parse_number("3.5", "explorationWeight")
    3.5
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{where} must be a number, not {text[:60]!r}")
    return number
