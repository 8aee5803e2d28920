"""Training of solution versions and recommenders: evaluation of a recipe on its group's events.

Nothing is trained beyond that: answers come from a model that has learned every event already.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from models.action_groups import actions_group
from models.errors import InvalidInput, NeedsOneShard, require_one_shard
from models.metadata_records import Properties
from models.personalize.recipes import ARN, Recipe, recipe_of
from models.personalize.training import scratch_groups, tuning
from models.personalize.training.action_training import scored_actions
from models.personalize.training.hyperparameters import hyperparameters
from models.personalize.training.segment_metrics import evaluate_segments
from models.personalize.training.solution_metrics import (
    EXAMPLES_OF,
    Trial,
    WatchEvents,
    evaluate_recipes,
)
from models.personalize.training.solution_options import answer_options, event_weights
from models.personalize.training.training_data import item_weights, within_percentiles
from models.serving.local import LocalRecommender
from models.settings import Settings
from models.state.catalogue.metadata import scan_item_properties
from models.state.store import Store
from models.state.users.interactions import Interaction, InteractionSample, sample
from streams.jobs.job import JobContext, JobResult

MAX_DESCRIBED = 10_000
"""Items whose attributes segments are measured by, at least where there are more."""

AUTOML_RECIPES = ("aws-user-personalization-v2", "aws-popularity-count")
"""Recipes that performAutoML compares by default."""


async def train(context: JobContext) -> JobResult:
    """Evaluate the recipe of a version; of several recipes, the best becomes the version's.

    Raises
    ------
    InvalidInput
        The group has too few interactions or users.
    NeedsOneShard
        It has several shards, beside which there is no group to try a recipe in.
    """
    version = context.job.resource.data
    settings, began_s = context.settings, time.monotonic()
    require_one_shard(settings.shards, "Training")
    await scratch_groups.sweep(context.tenants, context.resources)
    weights = event_weights(version)
    found = await sample(
        context.tenants.store(context.group),
        most=settings.training_max_interactions,
        event_types=[name for name, weight in (weights or {}).items() if weight],
    )
    _check(found, settings)
    trials = _trials(version)
    async with _scratch_group(context) as group:
        (first, *_) = trials
        if first.recipe.type == "USER_SEGMENTATION":
            properties = None
            if "attribute" in first.recipe.name:
                properties = await _item_properties(context.tenants.store(context.group))
            measured = await context.run_in_thread(
                _measure_segments, context, group, found, properties
            )
            metrics = {first.name: measured}
        else:
            metrics = await context.run_in_thread(_measure, context, group, trials, found)
    best = _best(version, trials, metrics)
    hidden: dict[str, Any] = {"metrics": metrics.get(best.name, {})}
    if len(trials) > 1:
        hidden["measured"] = metrics
    if best.recipe.type == "PERSONALIZED_ACTIONS":
        actions = context.tenants.store(actions_group(context.group))
        hidden["actions"] = await scored_actions(actions)
    if weights is not None:
        hidden["items"] = item_weights(found.interactions, weights)
    data = {"recipeArn": best.recipe.arn, "trainingHours": (time.monotonic() - began_s) / 3600}
    if version.get("performHPO") and best.values:
        data["tunedHPOParams"] = {"algorithmHyperParameters": best.values}
    return JobResult(data=data, hidden=hidden)


async def measure_recommender(context: JobContext) -> JobResult:
    """Evaluate the recipe of a recommender, which answers in any case.

    In a group of too few events, or of several shards, it has no metrics.
    """
    recommender, settings = context.job.resource.data, context.settings
    await scratch_groups.sweep(context.tenants, context.resources)
    try:
        require_one_shard(settings.shards, "Training")
        found = await sample(
            context.tenants.store(context.group), most=settings.training_max_interactions
        )
        _check(found, settings)
    except (InvalidInput, NeedsOneShard) as error:
        return JobResult(hidden={"metrics": {}}, remark=f"There are no metrics: {error}")
    recipe = recipe_of(recommender["recipeArn"])
    trial = Trial(recipe.name, recipe, answer_options(recipe, {}, recommender["recommenderConfig"]))
    async with _scratch_group(context) as group:
        metrics = await context.run_in_thread(
            _evaluate, context, group, [trial], found.interactions, found.n_items
        )
    return JobResult(hidden={"metrics": metrics[trial.name]})


@contextlib.asynccontextmanager
async def _scratch_group(context: JobContext) -> AsyncIterator[str]:
    """Name of an empty group for the measurement, which is erased afterwards."""
    try:
        yield await scratch_groups.begin(context.tenants, context.job.path)
    finally:
        await scratch_groups.end(context.tenants, context.job.path)


class _VersionTrial(NamedTuple):
    """A trial to measure: a recipe, and hyperparameters that performHPO tries."""

    name: str
    recipe: Recipe
    values: dict[str, str]


def _trials(version: Mapping[str, Any]) -> list[_VersionTrial]:
    """The version's recipe, with each set of hyperparameters to try; or AutoML's recipes."""
    config = version.get("solutionConfig", {})
    recipes = _recipes(version)
    if not version.get("performHPO") or "recipeArn" not in version:
        return [_VersionTrial(recipe.name, recipe, {}) for recipe in recipes]
    (recipe,) = recipes
    return [
        _VersionTrial(f"{recipe.name} {n}", recipe, values)
        for n, values in enumerate(tuning.trials(recipe, config))
    ]


def _best(
    version: Mapping[str, Any],
    trials: Sequence[_VersionTrial],
    metrics: Mapping[str, Mapping[str, float]],
) -> _VersionTrial:
    """The trial that is best by the metric of the configuration; of equal ones the first."""
    config = version.get("solutionConfig", {})
    name, sign = tuning.objective_of(config)
    if len({trial.recipe.name for trial in trials}) > 1:
        name, sign = config.get("autoMLConfig", {}).get("metricName", name), 1.0
    return max(trials, key=lambda trial: sign * metrics.get(trial.name, {}).get(name, 0.0))


def _check(found: InteractionSample, settings: Settings) -> None:
    if found.n_repeating < settings.training_min_users:
        raise InvalidInput(
            f"Dataset has fewer than {settings.training_min_users} users with at least 2 "
            "interactions each."
        )
    if found.n_interactions < settings.training_min_interactions:
        raise InvalidInput(
            f"Dataset has fewer than {settings.training_min_interactions} interactions."
        )


def _recipes(version: Mapping[str, Any]) -> list[Recipe]:
    """The version's recipe, or those that AutoML compares."""
    if "recipeArn" in version:
        return [recipe_of(version["recipeArn"])]
    listed = version.get("solutionConfig", {}).get("autoMLConfig", {}).get("recipeList")
    return [recipe_of(arn) for arn in listed or (f"{ARN}recipe/{name}" for name in AUTOML_RECIPES)]


def _measure(
    context: JobContext, group: str, trials: Sequence[_VersionTrial], found: InteractionSample
) -> dict[str, dict[str, float]]:
    """Metrics of each trial that recommends items, by its name; blocking."""
    version = context.job.resource.data
    config = version.get("solutionConfig", {})
    measured = [
        Trial(trial.name, trial.recipe, answer_options(trial.recipe, _tuned(version, trial), {}))
        for trial in trials
        if trial.recipe.type not in {"USER_SEGMENTATION", "PERSONALIZED_ACTIONS"}
    ]
    if not measured:
        return {}
    interactions = found.interactions
    if config.get("featureTransformationParameters"):
        values = hyperparameters(measured[0].recipe, config)
        interactions = within_percentiles(interactions, values)
    return _evaluate(context, group, measured, interactions, found.n_items)


def _evaluate(
    context: JobContext,
    group: str,
    trials: Sequence[Trial],
    interactions: Sequence[Interaction],
    n_items: int,
) -> dict[str, dict[str, float]]:
    """Metrics of each trial, by its name, measured in a scratch group; blocking."""
    settings = _settings_of_trial(context, group)
    watched = _watching(context, len(interactions))
    with LocalRecommender(settings, examples_of=EXAMPLES_OF) as local:
        return evaluate_recipes(local, trials, interactions, n_items=n_items, watched=watched)


def _measure_segments(
    context: JobContext,
    group: str,
    found: InteractionSample,
    properties: Mapping[str, Properties] | None,
) -> dict[str, float]:
    """Metrics of a recipe that segments users; blocking."""
    settings = _settings_of_trial(context, group)
    watched = _watching(context, len(found.interactions))
    with LocalRecommender(settings, examples_of=0) as local:
        return evaluate_segments(local, found.interactions, properties=properties, watched=watched)


def _settings_of_trial(context: JobContext, group: str) -> Settings:
    """Settings of a scratch group, in which events weigh what they do in the dataset group."""
    return context.tenants.store(context.group).settings.model_copy(update={"group": group})


def _watching(context: JobContext, total: int) -> WatchEvents:
    """Passes events on until the job is stopped, and reports how many there were."""
    done = itertools.count(1)

    def watched(events: Iterable[Interaction]) -> Iterator[Interaction]:
        for event in context.until_stopped(events):
            context.report_progress("interactions measured", next(done), total)
            yield event

    return watched


async def _item_properties(store: Store) -> dict[str, Properties]:
    """Properties of the first items with metadata, by id."""
    found: dict[str, Properties] = {}
    async for rows in scan_item_properties(store):
        names = await store.item_ids([index for index, _ in rows])
        found |= {name: row for name, (_, row) in zip(names, rows, strict=True) if name is not None}
        if len(found) >= MAX_DESCRIBED:
            break
    return found


def _tuned(version: Mapping[str, Any], trial: _VersionTrial) -> dict[str, Any]:
    """The version's members with the hyperparameters of a trial."""
    return {**version, "tunedHPOParams": {"algorithmHyperParameters": trial.values}}
