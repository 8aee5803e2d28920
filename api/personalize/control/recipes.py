"""Recipes, with their algorithms and feature transformations."""

from __future__ import annotations

from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.pagination import get_page, make_token
from api.personalize.protocol import Operation
from models.errors import InvalidInput, ResourceNotFound
from models.personalize.recipes import ARN, RECIPES, Recipe, recipe_of
from models.personalize.resources.resource_types import ResourcePath, path_of
from models.personalize.resources.statuses import ACTIVE
from models.personalize.training.hyperparameters import defaults_of, ranges_of

SINCE_S = 1_560_124_800.0
"""Creation time of every recipe: June 2019, when the first were published."""


async def list_recipes(_: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """List all recipes, or those of a domain; these have an empty page behind the last.

    Amazon's own notebooks ask on with the nextToken of the first page of a domain, unasked whether
    there is one.
    """
    domain = request.get("domain")
    recipes = [recipe for recipe in RECIPES.values() if domain in {None, recipe.domain}]
    listing = f"recipes {domain}"
    page, more = get_page(recipes, listing, request)
    if domain is not None and page and not more:
        more = {"nextToken": make_token(listing, len(recipes))}
    return {"recipes": [_summary(recipe) for recipe in page], **more}


async def describe_recipe(_: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Describe a recipe, with its type."""
    recipe = recipe_of(request["recipeArn"])
    description = recipe.description
    if recipe.event_type:
        description += f" Above all by {recipe.event_type} events."
    members = {
        **_summary(recipe),
        "recipeType": recipe.type,
        "description": description,
        "algorithmArn": f"{ARN}algorithm/{recipe.name}",
        "featureTransformationArn": f"{ARN}feature-transformation/{recipe.name}",
    }
    members.pop("domain", None)
    return {"recipe": members}


async def describe_algorithm(_: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Describe a recipe's algorithm, with the hyperparameters that it has at Amazon."""
    arn = request["algorithmArn"]
    recipe = _of_recipe(arn, "algorithm")
    return {
        "algorithm": {
            "name": recipe.name,
            "algorithmArn": arn,
            "defaultHyperParameters": defaults_of(recipe, featurization=False),
            "defaultHyperParameterRanges": ranges_of(recipe),
            "creationDateTime": SINCE_S,
            "lastUpdatedDateTime": SINCE_S,
        }
    }


async def describe_feature_transformation(
    _: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Describe a recipe's feature transformation, with the parameters that it has at Amazon."""
    arn = request["featureTransformationArn"]
    recipe = _of_recipe(arn, "feature-transformation")
    return {
        "featureTransformation": {
            "name": recipe.name,
            "featureTransformationArn": arn,
            "defaultParameters": defaults_of(recipe, featurization=True),
            "status": ACTIVE,
            "creationDateTime": SINCE_S,
            "lastUpdatedDateTime": SINCE_S,
        }
    }


def _summary(recipe: Recipe) -> dict[str, Any]:
    members = {
        "name": recipe.name,
        "recipeArn": recipe.arn,
        "status": ACTIVE,
        "creationDateTime": SINCE_S,
        "lastUpdatedDateTime": SINCE_S,
    }
    return members if recipe.domain is None else {**members, "domain": recipe.domain}


def _of_recipe(arn: str, kind: str) -> Recipe:
    """The recipe of an algorithm or feature transformation, by its ARN."""
    found, name = ResourcePath.of(path_of(arn))
    if found != kind:
        raise InvalidInput(f"{arn} is not the ARN of a {kind}")
    if name not in RECIPES:
        raise ResourceNotFound(f"{arn} does not exist")
    return RECIPES[name]


OPERATIONS: dict[str, Operation] = {
    "ListRecipes": list_recipes,
    "DescribeRecipe": describe_recipe,
    "DescribeAlgorithm": describe_algorithm,
    "DescribeFeatureTransformation": describe_feature_transformation,
}
