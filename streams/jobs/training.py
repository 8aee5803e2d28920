"""Training of solution versions: evaluation of a recipe on the events of its dataset group.

Nothing is trained beyond that: answers come from a model that has learned every event already.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from models.errors import InvalidInput
from models.personalize import scratch_groups
from models.personalize.recipes import ARN, Recipe, recipe_of
from models.personalize.solution_metrics import EXAMPLES_OF, evaluate_recipes
from models.serving.local import LocalRecommender
from models.settings import Settings
from models.state.interactions import Interaction, InteractionSample, sample
from streams.jobs.job import JobContext, JobResult

AUTOML_RECIPES = ("aws-user-personalization-v2", "aws-popularity-count")
"""Recipes that performAutoML compares by default."""

METRIC = "mean_reciprocal_rank_at_25"


async def train(context: JobContext) -> JobResult:
    """Evaluate the recipe of a version; of several recipes, the best becomes the version's.

    Raises
    ------
    InvalidInput
        The group has too few interactions or users.
    """
    version = context.job.resource.data
    settings = context.settings
    await scratch_groups.sweep(context.tenants, context.resources)
    found = await sample(
        context.tenants.store(context.group),
        most=settings.training_max_interactions,
        event_type=version.get("eventType", ""),
    )
    _check(found, settings)
    recipes = _recipes(version)
    group = await scratch_groups.begin(context.tenants, context.job.path)
    try:
        metrics = await context.run_in_thread(_measure, context, group, recipes, found)
    finally:
        await scratch_groups.end(context.tenants, context.job.path)
    best = max(recipes, key=lambda recipe: metrics.get(recipe.name, {}).get(METRIC, 0.0))
    measured_ones = {"measured": metrics} if len(recipes) > 1 else {}
    return JobResult(
        data={"recipeArn": best.arn},
        hidden={"metrics": metrics.get(best.name, {}), **measured_ones},
    )


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
    context: JobContext, group: str, recipes: Sequence[Recipe], found: InteractionSample
) -> dict[str, dict[str, float]]:
    """Metrics of each recipe that recommends items, by recipe name; blocking."""
    evaluated = [recipe for recipe in recipes if recipe.type != "USER_SEGMENTATION"]
    if not evaluated:
        return {}
    settings = context.settings.model_copy(update={"group": group})
    done = itertools.count(1)

    def watched(events: Iterable[Interaction]) -> Iterator[Interaction]:
        for event in context.until_stopped(events):
            context.report_progress("interactions measured", next(done), len(found.interactions))
            yield event

    with LocalRecommender(settings, examples_of=EXAMPLES_OF) as local:
        return evaluate_recipes(
            local,
            evaluated,
            found.interactions,
            n_items=found.n_items,
            watched=watched,
        )
