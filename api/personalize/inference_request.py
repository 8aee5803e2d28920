"""What a request asks of whom: a campaign or recommender stands for a group and a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.dependencies import Services
from api.personalize.context import PersonalizeContext
from models.errors import InvalidInput, NotConfigured, ResourceNotFound
from models.personalize.recipe_answers import is_scored
from models.personalize.recipes import RECIPES, Recipe, RecipeType, recipe_of
from models.personalize.resource_types import path_of
from models.personalize.statuses import ACTIVE
from models.settings import Settings

RECOMMENDING = frozenset(
    {"USER_PERSONALIZATION", "RELATED_ITEMS", "POPULAR_ITEMS", "PERSONALIZED_RANKING"}
)
"""Types of recipes that answer with items."""

CONFIG = {"enableMetadataWithRecommendations": True}
"""The configuration of the campaigns in the settings."""


@dataclass(frozen=True)
class InferenceTarget:
    """What answers for a campaign or recommender.

    Attributes
    ----------
    config
        Its `campaignConfig` or `recommenderConfig`.
    """

    group: str
    recipe: Recipe
    config: Mapping[str, Any]

    @property
    def is_scored(self) -> bool:
        """Whether Personalize gives a score with each item."""
        return is_scored(self.recipe)

    @property
    def has_reasons(self) -> bool:
        """Whether Personalize says why an item is there."""
        return self.recipe.name == "aws-user-personalization-v2"


def check_campaigns(settings: Settings) -> None:
    """See that every campaign of the settings has a recipe that recommends items.

    Raises
    ------
    NotConfigured
        Naming the one that has not.
    """
    known = [name for name, recipe in RECIPES.items() if recipe.type in RECOMMENDING]
    for name, recipe in settings.campaigns.items():
        if recipe not in known:
            raise NotConfigured(
                f"RECOMMENDER_CAMPAIGNS: campaign {name!r} has {recipe!r}, which is none of the "
                f"recipes {', '.join(known)}"
            )


async def resolve(context: PersonalizeContext, arn: str) -> InferenceTarget:
    """What a campaign or recommender stands for: one of the settings, or one that was made.

    Raises
    ------
    InvalidInput
        The ARN is of something else, or of what does not recommend items.
    ResourceNotFound
        There is none with this ARN, or it is not active.
    """
    services: Services = context.services
    path = path_of(arn)
    kind, _, name = path.partition("/")
    if kind not in {"campaign", "recommender"}:
        raise InvalidInput(f"{arn} is not the ARN of a campaign or recommender")
    if kind == "campaign" and name in services.settings.campaigns:
        return InferenceTarget(
            services.settings.group, RECIPES[services.settings.campaigns[name]], CONFIG
        )
    now_s = services.clock()
    found = await context.resources.recent(path, now_s=now_s)
    if found.status != ACTIVE:
        raise ResourceNotFound(f"{arn} is {found.status}, not {ACTIVE}")
    trained = found
    if kind == "campaign":
        version = path_of(found.data["solutionVersionArn"])
        trained = await context.resources.recent(version, now_s=now_s)
    recipe = recipe_of(trained.data["recipeArn"])
    if recipe.type not in RECOMMENDING:
        raise InvalidInput(f"{arn} does not recommend items: its recipe is {recipe.name}")
    group = path_of(trained.data["datasetGroupArn"]).partition("/")[2]
    return InferenceTarget(group, recipe, found.data.get(f"{kind}Config", {}))


@dataclass(frozen=True)
class InferenceQuery:
    """What a request asks for, and of whom; an empty id is none.

    Attributes
    ----------
    circumstances
        What it says in contextual columns; empty where the recipe pays no heed to it.
    """

    target: InferenceTarget
    user_id: str | None
    item_id: str | None
    circumstances: Mapping[str, str]

    @classmethod
    async def of(
        cls, context: PersonalizeContext, request: Mapping[str, Any], *types: RecipeType
    ) -> InferenceQuery:
        """The request understood; raises `InvalidInput` where it does not fit its recipe."""
        arns = [request[name] for name in ("campaignArn", "recommenderArn") if name in request]
        if len(arns) != 1:
            raise InvalidInput("give either a campaignArn or a recommenderArn")
        target = await resolve(context, arns[0])
        kind = target.recipe.type
        if kind not in types:
            raise InvalidInput(f"{arns[0]} has a recipe of type {kind}, not {' or '.join(types)}")
        is_personal = kind in {"USER_PERSONALIZATION", "PERSONALIZED_RANKING"}
        asked = cls(
            target,
            request.get("userId") or None,
            request.get("itemId") or None,
            request.get("context", {}) if is_personal else {},
        )
        if is_personal and asked.user_id is None:
            raise InvalidInput(f"a recipe of type {kind} needs a userId")
        if kind == "RELATED_ITEMS" and asked.item_id is None:
            raise InvalidInput(f"a recipe of type {kind} needs an itemId")
        return asked
