"""What a campaign or recommender stands for: a group, a recipe and its configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from api.personalize.context import Context
from models.errors import InvalidInput, NotConfigured, ResourceNotFound
from models.settings import Settings
from models.store import CONNECTION_ERRORS

Kind = Literal["USER_PERSONALIZATION", "RELATED_ITEMS", "POPULAR_ITEMS", "PERSONALIZED_RANKING"]
Question = Literal["recommend", "similar", "popular", "trending", "rank"]

MAX_KNOWN = 10_000
"""Campaigns that are remembered, at most."""

CONFIG = {"enableMetadataWithRecommendations": True}
"""The configuration of the campaigns in the settings."""

_ARN = re.compile(r"arn:[a-z\d-]+:personalize:[^:]*:[^:]*:([a-z-]+)/([A-Za-z0-9_-]+)(/[A-Z_]+)?")


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


@dataclass(frozen=True)
class Targets:
    """Campaigns and recommenders by ARN: those of the settings, and those that were made.

    What was made is looked up again after `cache_s`; while the store is away, what it was holds.

    Parameters
    ----------
    clock
        The present in Unix seconds.
    """

    settings: Settings
    clock: Callable[[], float]
    _known: dict[str, tuple[float, Target]] = field(default_factory=dict)

    async def resolve(self, context: Context, arn: str) -> Target:
        """What a campaign or recommender stands for.

        Raises
        ------
        InvalidInput
            The ARN is of something else.
        ResourceNotFound
            There is none with this ARN, or it is not active.
        """
        kind, name, _ = split_arn(arn)
        if kind not in {"campaign", "recommender"}:
            raise InvalidInput(f"not a campaign or recommender: {arn}")
        if kind == "campaign" and name in self.settings.campaigns:
            recipe = RECIPES[self.settings.campaigns[name]]
            return Target(self.settings.group, recipe, CONFIG)
        now_s = self.clock()
        found = self._known.get(arn)
        if found is not None and 0 <= now_s - found[0] <= self.settings.cache_s:
            return found[1]
        try:
            target = await _looked_up(context, kind, arn)
        except ResourceNotFound:
            self._known.pop(arn, None)
            raise
        except CONNECTION_ERRORS:
            if found is None:
                raise
            return found[1]
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[arn] = (now_s, target)
        return target


def split_arn(arn: str) -> tuple[str, str, str]:
    """Kind, name and what follows, of an ARN of Amazon Personalize; any region and account.

    Raises
    ------
    InvalidInput
        It is no such ARN.

    Examples
    --------
    >>> split_arn("arn:aws:personalize:us-east-1:000000000000:dataset/shop/ITEMS")
    ('dataset', 'shop', 'ITEMS')
    """
    match = _ARN.fullmatch(arn)
    if match is None:
        raise InvalidInput(f"not an ARN of a resource that is meant here: {arn}")
    return match[1], match[2], (match[3] or "")[1:]


async def _looked_up(context: Context, kind: str, arn: str) -> Target:
    resource = await context.resources.get(arn)
    if resource["status"] != "ACTIVE":
        raise ResourceNotFound(f"{arn} is not active: {resource['status']}")
    described = resource
    if kind == "campaign":
        described = await context.resources.get(resource["solutionVersionArn"])
    recipe = RECIPES.get(described["recipeArn"].rpartition("/")[2])
    if recipe is None:
        raise InvalidInput(f"{arn} gives no recommendations of items")
    group = described["datasetGroupArn"].rpartition("/")[2]
    return Target(group, recipe, resource.get(f"{kind}Config") or {})
