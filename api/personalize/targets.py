"""What a campaign or recommender stands for: a group, a recipe and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from api.personalize.context import Context
from api.services import Services
from models.errors import InvalidInput, NotConfigured, ResourceNotFound
from models.kinds import path_of
from models.settings import Settings

Kind = Literal["USER_PERSONALIZATION", "RELATED_ITEMS", "POPULAR_ITEMS", "PERSONALIZED_RANKING"]
Question = Literal["recommend", "similar", "popular", "trending", "rank"]

CONFIG = {"enableMetadataWithRecommendations": True}
"""The configuration of the campaigns in the settings."""


class Recipe(NamedTuple):
    """What a recipe of Amazon Personalize means here.

    Attributes
    ----------
    question
        Which question of the recommender answers for it.
    is_scored, has_reasons
        Whether Personalize gives a score, and reasons, with each item.
    """

    kind: Kind
    question: Question
    is_scored: bool = False
    has_reasons: bool = False


_FOR_USER = Recipe("USER_PERSONALIZATION", "recommend")
_SCORED_FOR_USER = _FOR_USER._replace(is_scored=True)
_RANKING = Recipe("PERSONALIZED_RANKING", "rank", is_scored=True)
_RELATED = Recipe("RELATED_ITEMS", "similar")
_POPULAR = Recipe("POPULAR_ITEMS", "popular")
_TRENDING = Recipe("POPULAR_ITEMS", "trending")

RECIPES: Mapping[str, Recipe] = {
    "aws-user-personalization-v2": _SCORED_FOR_USER._replace(has_reasons=True),
    "aws-user-personalization": _SCORED_FOR_USER,
    "aws-hrnn": _SCORED_FOR_USER,
    "aws-hrnn-metadata": _SCORED_FOR_USER,
    "aws-hrnn-coldstart": _SCORED_FOR_USER,
    "aws-personalized-ranking-v2": _RANKING,
    "aws-personalized-ranking": _RANKING,
    "aws-similar-items": _RELATED,
    "aws-semantic-similarity": _RELATED,
    "aws-sims": _RELATED,
    "aws-popularity-count": _POPULAR,
    "aws-trending-now": _TRENDING,
    "aws-ecomm-recommended-for-you": _FOR_USER,
    "aws-ecomm-popular-items-by-views": _POPULAR,
    "aws-ecomm-popular-items-by-purchases": _POPULAR,
    "aws-ecomm-frequently-bought-together": _RELATED,
    "aws-ecomm-customers-who-viewed-x-also-viewed": _RELATED,
    "aws-vod-top-picks": _FOR_USER,
    "aws-vod-most-popular": _POPULAR,
    "aws-vod-trending-now": _TRENDING,
    "aws-vod-more-like-x": _RELATED,
    "aws-vod-because-you-watched-x": _RELATED,
}
"""Recipes that recommend items, by name."""


@dataclass(frozen=True)
class Target:
    """What answers for a campaign or recommender.

    Attributes
    ----------
    config
        Its `campaignConfig` or `recommenderConfig`.
    """

    group: str
    recipe: Recipe
    config: Mapping[str, Any]


def check_campaigns(settings: Settings) -> None:
    """See that every campaign of the settings names a recipe.

    Raises
    ------
    NotConfigured
        Naming the one that does not.
    """
    for name, recipe in settings.campaigns.items():
        if recipe not in RECIPES:
            raise NotConfigured(
                f"RECOMMENDER_CAMPAIGNS: campaign {name!r} has the unknown recipe {recipe!r}; "
                f"there are {', '.join(RECIPES)}"
            )


async def resolve(context: Context, arn: str) -> Target:
    """What a campaign or recommender stands for: one of the settings, or one that was made.

    Raises
    ------
    InvalidInput
        The ARN is of something else.
    ResourceNotFound
        There is none with this ARN, or it is not active.
    """
    services: Services = context.services
    path = path_of(arn)
    kind, _, name = path.partition("/")
    if kind not in {"campaign", "recommender"}:
        raise InvalidInput(f"not the ARN of a campaign or recommender: {arn}")
    if kind == "campaign" and name in services.settings.campaigns:
        recipe = RECIPES[services.settings.campaigns[name]]
        return Target(services.settings.group, recipe, CONFIG)
    now_s = services.clock()
    resource = await context.resources.recent(path, now_s=now_s)
    if resource.status != "ACTIVE":
        raise ResourceNotFound(f"{arn} is not active: {resource.status}")
    trained = resource
    if kind == "campaign":
        version = path_of(resource.data["solutionVersionArn"])
        trained = await context.resources.recent(version, now_s=now_s)
    found = RECIPES.get(path_of(trained.data["recipeArn"]).partition("/")[2])
    if found is None:
        raise InvalidInput(f"{arn} does not recommend items")
    group = path_of(trained.data["datasetGroupArn"]).partition("/")[2]
    return Target(group, found, resource.data.get(f"{kind}Config") or {})
