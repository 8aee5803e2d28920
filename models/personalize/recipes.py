"""Recipes of the Amazon Personalize API, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from models.errors import InvalidInput, ResourceNotFound
from models.personalize.resources.resource_types import ResourcePath, path_of

RecipeType = Literal[
    "USER_PERSONALIZATION",
    "RELATED_ITEMS",
    "POPULAR_ITEMS",
    "PERSONALIZED_RANKING",
    "USER_SEGMENTATION",
    "PERSONALIZED_ACTIONS",
]
Domain = Literal["ECOMMERCE", "VIDEO_ON_DEMAND"]

ARN = "arn:aws:personalize:::"
"""Beginning of ARNs of recipes, algorithms and transformations: no region, no account."""


class Recipe(NamedTuple):
    """A recipe.

    Attributes
    ----------
    domain
        None for recipes of solutions; recommenders use recipes of a domain.
    event_type
        Event type that a recommender of this recipe mainly learns from; empty: any.
    """

    name: str
    type: RecipeType
    description: str
    domain: Domain | None = None
    event_type: str = ""

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"{ARN}recipe/{self.name}"


def _shop(name: str, kind: RecipeType, description: str, event_type: str) -> Recipe:
    return Recipe(f"aws-ecomm-{name}", kind, description, "ECOMMERCE", event_type)


def _video(name: str, kind: RecipeType, description: str) -> Recipe:
    return Recipe(f"aws-vod-{name}", kind, description, "VIDEO_ON_DEMAND", "Watch")


_FOR_USER = "What a user is most likely to want next, by all events of all users."
_ACTIONS = "Actions that a user is most likely to take, with the propensity to take each."
_RANKED = "Given items, in the order in which a user is most likely to want them."
_RELATED = "Items that the same users take an interest in as in a given one."

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("aws-user-personalization-v2", "USER_PERSONALIZATION", _FOR_USER),
        Recipe("aws-user-personalization", "USER_PERSONALIZATION", _FOR_USER),
        Recipe("aws-popularity-count", "POPULAR_ITEMS", "Items with the most events of late."),
        Recipe("aws-trending-now", "POPULAR_ITEMS", "Items whose rate of events grows most."),
        Recipe("aws-personalized-ranking-v2", "PERSONALIZED_RANKING", _RANKED),
        Recipe("aws-personalized-ranking", "PERSONALIZED_RANKING", _RANKED),
        Recipe("aws-similar-items", "RELATED_ITEMS", _RELATED),
        Recipe("aws-semantic-similarity", "RELATED_ITEMS", _RELATED),
        Recipe("aws-sims", "RELATED_ITEMS", _RELATED),
        Recipe("aws-item-affinity", "USER_SEGMENTATION", "Users who want a given item most."),
        Recipe(
            "aws-item-attribute-affinity",
            "USER_SEGMENTATION",
            "Users who want items with given attributes most.",
        ),
        Recipe("aws-next-best-action", "PERSONALIZED_ACTIONS", _ACTIONS),
        Recipe("aws-hrnn", "USER_PERSONALIZATION", f"{_FOR_USER} A legacy name."),
        Recipe("aws-hrnn-metadata", "USER_PERSONALIZATION", f"{_FOR_USER} A legacy name."),
        Recipe("aws-hrnn-coldstart", "USER_PERSONALIZATION", f"{_FOR_USER} A legacy name."),
        _shop("recommended-for-you", "USER_PERSONALIZATION", _FOR_USER, "View"),
        _shop("popular-items-by-views", "POPULAR_ITEMS", "Items that are viewed most.", "View"),
        _shop(
            "popular-items-by-purchases", "POPULAR_ITEMS", "Items that are bought most.", "Purchase"
        ),
        _shop(
            "frequently-bought-together",
            "RELATED_ITEMS",
            "Items that are bought with a given one.",
            "Purchase",
        ),
        _shop(
            "customers-who-viewed-x-also-viewed",
            "RELATED_ITEMS",
            "Items that are viewed by who views a given one.",
            "View",
        ),
        _video("top-picks", "USER_PERSONALIZATION", _FOR_USER),
        _video("most-popular", "POPULAR_ITEMS", "Videos that are watched most."),
        _video("trending-now", "POPULAR_ITEMS", "Videos whose rate of events grows most."),
        _video("more-like-x", "RELATED_ITEMS", "Videos like a given one."),
        _video(
            "because-you-watched-x",
            "RELATED_ITEMS",
            "Videos that are watched by who watches a given one.",
        ),
    )
}
"""Every recipe by name, in the order of lists."""


def recipe_of(arn: str) -> Recipe:
    """The recipe of an ARN.

    Raises
    ------
    InvalidInput, ResourceNotFound
        It is not the ARN of a recipe; there is no such recipe.

    Examples
    --------
    >>> recipe_of("arn:aws:personalize:::recipe/aws-sims").type
    'RELATED_ITEMS'
    """
    kind, name = ResourcePath.of(path_of(arn))
    if kind != "recipe":
        raise InvalidInput(f"{arn} is not the ARN of a recipe")
    if name not in RECIPES:
        raise ResourceNotFound(f"{arn} does not exist")
    return RECIPES[name]
