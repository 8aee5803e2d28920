"""Requests for recommendations: the campaign or recommender, ids and filter that they name."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.dataset_columns import check_context_columns
from models.errors import InvalidInput, NotConfigured, ResourceNotFound
from models.filters.filter import Filter, parse_filter_expression
from models.filters.grammar import IdTarget
from models.metadata_records import normalized
from models.personalize.recipe_answers import is_scored
from models.personalize.recipe_requests import RecipeRequest
from models.personalize.recipes import RECIPES, Recipe, RecipeType, recipe_of
from models.personalize.resources.resource_types import (
    BUILTIN_CAMPAIGN_CONFIG,
    ResourcePath,
    path_of,
)
from models.personalize.resources.statuses import ACTIVE
from models.personalize.training.solution_options import answer_options, columns_of
from models.serving.answers import MAX_RESULTS
from models.settings import Settings
from models.state.clients.redis_errors import AWAY_ERRORS

ANSWERED_TYPES: frozenset[RecipeType] = frozenset(
    {"USER_PERSONALIZATION", "RELATED_ITEMS", "POPULAR_ITEMS", "PERSONALIZED_RANKING"}
)
"""Types of recipes that answer with items."""

DEFAULT_RESULTS = 25
MAX_RANKED = 500


@dataclass(frozen=True)
class ServedRecipe:
    """A campaign or recommender: a recipe that answers for a dataset group.

    Attributes
    ----------
    config
        Its `campaignConfig` or `recommenderConfig`.
    version
        Members of the solution version that it deploys, with the configuration of its solution.
    trained
        Weights of the items that the version was trained on, where not all events count.
    scored_actions
        Actions that had interactions enough when the version was trained.
    """

    group: str
    recipe: Recipe
    config: Mapping[str, Any]
    version: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, float] | None = None
    scored_actions: Sequence[str] = ()

    @property
    def is_scored(self) -> bool:
        """True if Personalize gives a score with each item."""
        return is_scored(self.recipe)

    @property
    def has_reasons(self) -> bool:
        """True if Personalize gives a reason with items."""
        return self.recipe.name == "aws-user-personalization-v2"


def check_campaigns(settings: Settings) -> None:
    """Check that every campaign in the settings has a recipe that recommends items.

    Raises
    ------
    NotConfigured
        Names a campaign that has another recipe.
    """
    known = [name for name, recipe in RECIPES.items() if recipe.type in ANSWERED_TYPES]
    for name, recipe in settings.campaigns.items():
        if recipe not in known:
            raise NotConfigured(
                f"RECOMMENDER_CAMPAIGNS: campaign {name!r} has {recipe!r}, which is none of the "
                f"recipes {', '.join(known)}"
            )


async def resolve(context: PersonalizeContext, arn: str, *types: RecipeType) -> ServedRecipe:
    """The recipe that a campaign or recommender serves, from the settings or the registry.

    Parameters
    ----------
    types
        Those that the recipe may be of; none for all that answer with items.

    Raises
    ------
    InvalidInput
        The ARN is of another resource type, or its recipe is of another type.
    ResourceNotFound
        No campaign or recommender has this ARN, or it is not active.
    """
    services = context.services
    path = ResourcePath.of(path_of(arn))
    if path.kind not in {"campaign", "recommender"}:
        raise InvalidInput(f"{arn} is not the ARN of a campaign or recommender")
    if path.kind == "campaign" and path.name in services.settings.campaigns:
        recipe = RECIPES[services.settings.campaigns[path.name]]
        _check_type(arn, recipe, types)
        return ServedRecipe(services.settings.group, recipe, BUILTIN_CAMPAIGN_CONFIG)
    now_s = services.clock()
    found = await context.registry.recent(str(path), now_s=now_s)
    if found.status != ACTIVE:
        raise ResourceNotFound(f"{arn} is {found.status}, not {ACTIVE}")
    trained = found
    if path.kind == "campaign":
        version = path_of(found.data["solutionVersionArn"])
        trained = await context.registry.recent(version, now_s=now_s)
    recipe = recipe_of(trained.data["recipeArn"])
    _check_type(arn, recipe, types)
    group = ResourcePath.of(path_of(trained.data["datasetGroupArn"])).name
    config = found.data.get(f"{path.kind}Config", {})
    configured = trained.data if path.kind == "campaign" else {}
    return ServedRecipe(
        group,
        recipe,
        config,
        configured,
        trained.hidden.get("items"),
        trained.hidden.get("actions", ()),
    )


def _check_type(arn: str, recipe: Recipe, types: Sequence[RecipeType]) -> None:
    wanted = sorted(types or ANSWERED_TYPES)
    if recipe.type not in wanted:
        raise InvalidInput(f"{arn} has a recipe of type {recipe.type}, not {' or '.join(wanted)}")


async def read_request(
    context: PersonalizeContext, request: Mapping[str, Any], *types: RecipeType
) -> tuple[ServedRecipe, RecipeRequest]:
    """The recipe that a request names, and the request as `recipe_answers.answer` takes it.

    An empty id counts as none. Context is left out where the recipe ignores it.

    Raises
    ------
    InvalidInput
        The recipe is of none of the `types`, or needs what the request lacks.
    ResourceNotFound
        The campaign, recommender or filter does not exist, or is not active.
    """
    arns = [request[name] for name in ("campaignArn", "recommenderArn") if name in request]
    if len(arns) != 1:
        raise InvalidInput("give either a campaignArn or a recommenderArn")
    served = await resolve(context, arns[0], *types)
    kind = served.recipe.type
    is_personal = kind in {"USER_PERSONALIZATION", "PERSONALIZED_RANKING"}
    user_id, item_id = request.get("userId") or None, request.get("itemId") or None
    if is_personal and user_id is None:
        raise InvalidInput(f"a recipe of type {kind} needs a userId")
    if kind == "RELATED_ITEMS" and item_id is None:
        raise InvalidInput(f"a recipe of type {kind} needs an itemId")
    item_ids = list(dict.fromkeys(request.get("inputList", ())))
    asked = RecipeRequest(
        served.recipe,
        user_id,
        item_id,
        _length(request, kind, item_ids),
        item_ids=item_ids,
        context=await _context(context, served, request) if is_personal else {},
        filter=await get_filter(context, served, request),
        filter_values=request.get("filterValues", {}),
        options=answer_options(served.recipe, served.version, served.config),
        trained=served.trained,
    )
    return served, asked


async def _context(
    context: PersonalizeContext, served: ServedRecipe, request: Mapping[str, Any]
) -> dict[str, str]:
    """The context of a request, without columns that its version was not trained on.

    Raises
    ------
    InvalidInput
        It names what is no contextual column of the dataset group.
    """
    given: Mapping[str, str] = request.get("context", {})
    if given:
        cache = context.recommenders.of(served.group).cache
        # With Redis away answers go on, without context.
        with contextlib.suppress(*AWAY_ERRORS):
            columns = await cache.context.columns(context.services.clock())
            unknown = [name for name in given if normalized(name) not in columns]
            if unknown:
                await check_context_columns(context, f"dataset-group/{served.group}", unknown)
    uses = columns_of("INTERACTIONS", served.version, served.config).uses
    return {name: value for name, value in given.items() if uses(name)}


def _length(request: Mapping[str, Any], kind: RecipeType, item_ids: Sequence[str]) -> int:
    """Items wanted: `numResults`, or all items to rank."""
    if kind == "PERSONALIZED_RANKING":
        if not 1 <= len(item_ids) <= MAX_RANKED:
            raise InvalidInput(f"inputList takes 1 to {MAX_RANKED} items, not {len(item_ids)}")
        return len(item_ids)
    k: int = request.get("numResults") or DEFAULT_RESULTS
    if k > MAX_RESULTS:
        raise InvalidInput(f"numResults is at most {MAX_RESULTS}, not {k}")
    return k


async def get_filter(
    context: PersonalizeContext,
    served: ServedRecipe,
    request: Mapping[str, Any],
    *,
    target: IdTarget = "ItemID",
) -> Filter | None:
    """The filter that a request or promotion names; None without `filterArn`.

    Raises
    ------
    ResourceNotFound
        No filter has this ARN, or it is not active.
    InvalidInput
        It is of another dataset group, or does not choose by `target`.
    """
    arn = request.get("filterArn")
    if arn is None:
        return None
    path = path_of(arn)
    if ResourcePath.of(path).kind != "filter":
        raise InvalidInput(f"{arn} is not the ARN of a filter")
    stored = await context.registry.recent(path, now_s=context.services.clock())
    if stored.status != ACTIVE:
        raise ResourceNotFound(f"{arn} is {stored.status}, not {ACTIVE}")
    if path_of(stored.data["datasetGroupArn"]) != f"dataset-group/{served.group}":
        raise InvalidInput(f"{arn} is of another dataset group")
    found = parse_filter_expression(stored.data["filterExpression"])
    if found.target != target:
        raise InvalidInput(f"{arn} chooses by {found.target}, not by {target}")
    return found
