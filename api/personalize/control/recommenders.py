"""Recommenders: use cases of a domain, served without a solution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.config_checks import check_columns_config, check_config
from api.personalize.control.crud import (
    delete_operation,
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    quota_limit,
)
from api.personalize.protocol import Operation
from models.errors import InvalidInput
from models.personalize.recipes import is_same_model, recipe_of
from models.personalize.resource import Resource
from models.personalize.statuses import (
    ACTIVE,
    INACTIVE,
    START_IN_PROGRESS,
    START_PENDING,
    STOP_IN_PROGRESS,
    STOP_PENDING,
)


async def create_recommender(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a recommender of a domain dataset group, by a recipe of that domain."""
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    recipe, domain = recipe_of(request["recipeArn"]), group.data.get("domain")
    if recipe.domain is None:
        raise InvalidInput(f"{recipe.arn} is for solutions; recommenders use recipes of a domain")
    if recipe.domain != domain:
        raise InvalidInput(
            f"{recipe.arn} is of the domain {recipe.domain}, the group of {domain or 'none'}"
        )
    config = request.get("recommenderConfig", {})
    check_config(config, recipe)
    await check_columns_config(context, group.path, config)
    recommender = new_resource(
        context,
        f"recommender/{request['name']}",
        request,
        group.path,
        recommenderConfig={"minRecommendationRequestsPerSecond": 1, **config},
    )
    await context.registry.create(recommender, quota_limit(context, "recommender", group.path))
    return {"recommenderArn": context.registry.arn(recommender.path)}


async def update_recommender(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Change the configuration, from the next request on."""
    now_s, config = context.services.clock(), request["recommenderConfig"]
    recommender = await get_resource(context, request["recommenderArn"], "recommender")
    check_config(config, recipe_of(recommender.data["recipeArn"]))
    await check_columns_config(context, recommender.links[0], config)

    def updated(old: Resource) -> Resource:
        merged = {**old.data["recommenderConfig"], **config}
        update = {
            "recommenderConfig": merged,
            "status": old.status,
            "creationDateTime": now_s,
            "lastUpdatedDateTime": now_s,
        }
        return old.with_data(now_s=now_s, recommenderConfig=merged, latestRecommenderUpdate=update)

    return await _changed(context, request, updated)


async def start_recommender(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Start a stopped recommender."""
    now_s = context.services.clock()
    ways = (START_PENDING, START_IN_PROGRESS, ACTIVE)
    return await _changed(context, request, lambda old: old.transition(*ways, now_s=now_s))


async def stop_recommender(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Stop a recommender until it is started again."""
    now_s = context.services.clock()
    ways = (STOP_PENDING, STOP_IN_PROGRESS, INACTIVE)
    return await _changed(context, request, lambda old: old.transition(*ways, now_s=now_s))


async def _metrics(context: PersonalizeContext, recommender: Resource) -> dict[str, Any]:
    """The member `modelMetrics`: those of the group's newest version of the same model.

    A recommender is not measured by itself: before such a version there are none.
    """
    recipe = recipe_of(recommender.data["recipeArn"])
    found: dict[str, float] = {}
    after = 0
    while page := await context.registry.page(
        "solution-version", recommender.links[0], after=after
    ):
        after = page[-1].number
        for version in page:
            arn = version.data.get("recipeArn", "")
            if version.status == ACTIVE and arn and is_same_model(recipe_of(arn), recipe):
                found = version.hidden.get("metrics") or found
    return {"modelMetrics": found}


async def _changed(
    context: PersonalizeContext, request: dict[str, Any], edit: Callable[[Resource], Resource]
) -> dict[str, Any]:
    recommender = await get_resource(context, request["recommenderArn"], "recommender")
    await context.registry.change(recommender.path, edit)
    return {"recommenderArn": context.registry.arn(recommender.path)}


OPERATIONS: dict[str, Operation] = {
    "CreateRecommender": create_recommender,
    "DescribeRecommender": describe_operation("recommender", _metrics),
    "ListRecommenders": list_operation("recommender"),
    "UpdateRecommender": update_recommender,
    "StartRecommender": start_recommender,
    "StopRecommender": stop_recommender,
    "DeleteRecommender": delete_operation("recommender"),
}
