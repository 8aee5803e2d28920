"""Solutions: a recipe with its configuration; `solution_versions` has their versions."""

from __future__ import annotations

from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.config_checks import check_solution
from api.personalize.control.crud import (
    delete_operation,
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    output_members,
    quota_limit,
    select_members,
)
from api.personalize.dataset_columns import schema_of
from api.personalize.protocol import Operation
from models.errors import InvalidInput
from models.personalize.recipes import recipe_of
from models.personalize.resources.resource import Resource, index_name
from models.personalize.resources.statuses import ACTIVE

COMPARABLE_TYPES = ("USER_PERSONALIZATION", "POPULAR_ITEMS")
"""Types of recipes that performAutoML can compare: those that answer for a user alone."""


async def create_solution(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Create a solution of one recipe, or of several that are compared by their metrics."""
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    is_chosen = request.get("performAutoML", False)
    if is_chosen == ("recipeArn" in request):
        raise InvalidInput("give either a recipeArn or performAutoML")
    if not is_chosen:
        await _check_recipe(context, group.path, request["recipeArn"])
    config = request.get("solutionConfig", {})
    for arn in config.get("autoMLConfig", {}).get("recipeList", ()):
        await _check_recipe(context, group.path, arn)
        if recipe_of(arn).type not in COMPARABLE_TYPES:
            raise InvalidInput(f"{arn} is not of type {' or '.join(COMPARABLE_TYPES)}")
    await check_solution(context, group.path, request, config)
    solution = new_resource(
        context,
        f"solution/{request['name']}",
        request,
        group.path,
        performAutoML=is_chosen,
        performHPO=request.get("performHPO", is_chosen),
        performAutoTraining=request.get("performAutoTraining", True),
        performIncrementalUpdate=request.get("performIncrementalUpdate", False),
    )
    await context.registry.create(solution, quota_limit(context, "solution", group.path))
    return {"solutionArn": context.registry.arn(solution.path)}


async def update_solution(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Change the training schedule, or the events to train on."""
    solution = await get_resource(context, request["solutionArn"], "solution")
    now_s = context.services.clock()
    switches: dict[str, Any] = {
        name: request[name]
        for name in ("performAutoTraining", "performIncrementalUpdate")
        if name in request
    }
    config = request.get("solutionUpdateConfig", {})
    if not switches and not config:
        raise InvalidInput("there is nothing to update")
    merged = {**solution.data.get("solutionConfig", {}), **config}
    await check_solution(context, solution.links[0], {**solution.data, **switches}, merged)
    update: dict[str, Any] = {
        **switches,
        "solutionUpdateConfig": config,
        "status": ACTIVE,
        "creationDateTime": now_s,
        "lastUpdatedDateTime": now_s,
    }

    def updated(old: Resource) -> Resource:
        merged = {**old.data.get("solutionConfig", {}), **config}
        return old.with_data(
            now_s=now_s, solutionConfig=merged, latestSolutionUpdate=update, **switches
        )

    await context.registry.change(solution.path, updated)
    return {"solutionArn": context.registry.arn(solution.path)}


async def _of_versions(context: PersonalizeContext, solution: Resource) -> dict[str, Any]:
    """Members that follow from a solution's versions: the latest, and the chosen recipe."""
    resources = context.registry
    members: dict[str, Any] = {}
    latest = await resources.newest(index_name("solution-version", solution.path))
    if latest is not None:
        shape = output_members("DescribeSolution")["solution"].members["latestSolutionVersion"]
        members["latestSolutionVersion"] = select_members(shape, resources.to_api(latest))
    if solution.data["performAutoML"]:
        trained = await resources.newest(
            index_name("solution-version", solution.path, only="active")
        )
        if trained is not None and "recipeArn" in trained.data:
            members["autoMLResult"] = {"bestRecipeArn": trained.data["recipeArn"]}
    return members


async def _check_recipe(context: PersonalizeContext, group: str, arn: str) -> None:
    recipe = recipe_of(arn)
    if recipe.domain is not None:
        raise InvalidInput(f"{arn} is for recommenders of the domain {recipe.domain}")
    if recipe.type == "PERSONALIZED_ACTIONS" and await schema_of(context, group, "ACTIONS") is None:
        raise InvalidInput(f"{arn} needs a dataset of actions in the dataset group")


OPERATIONS: dict[str, Operation] = {
    "CreateSolution": create_solution,
    "DescribeSolution": describe_operation("solution", _of_versions),
    "ListSolutions": list_operation("solution"),
    "UpdateSolution": update_solution,
    "DeleteSolution": delete_operation("solution"),
}
