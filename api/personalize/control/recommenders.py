"""Recommenders: use cases of a domain, served without a solution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.config_checks import check_columns_config, check_config
from api.personalize.control.crud import (
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    quota_limit,
)
from api.personalize.protocol import Operation
from models.errors import InvalidInput, ResourceInUse
from models.personalize.recipes import recipe_of
from models.personalize.resources.resource import Resource
from models.personalize.resources.statuses import (
    CREATE_PENDING,
    INACTIVE,
    START_PENDING,
    STOP_IN_PROGRESS,
    STOP_PENDING,
    UNFINISHED,
)


async def create_recommender(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a recommender of a domain dataset group, by a recipe of that domain.

    It answers once a job has measured it.
    """
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
        status=CREATE_PENDING,
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
        _check_finished(old)
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
    """Start a stopped recommender: a job measures it again, and it answers then."""
    now_s = context.services.clock()
    return await _changed(
        context,
        request,
        lambda old: old.transition(START_PENDING, now_s=now_s),
        claimable_s=now_s,
    )


async def stop_recommender(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Stop a recommender until it is started again."""
    now_s = context.services.clock()
    ways = (STOP_PENDING, STOP_IN_PROGRESS, INACTIVE)
    return await _changed(context, request, lambda old: old.transition(*ways, now_s=now_s))


async def delete_recommender(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Delete a recommender that no job works on."""
    recommender = await get_resource(context, request["recommenderArn"], "recommender")
    _check_finished(recommender)
    await context.registry.remove(recommender.path)
    return {}


async def _metrics(_: PersonalizeContext, recommender: Resource) -> dict[str, Any]:
    """The member `modelMetrics`: empty before a job has measured the recommender."""
    return {"modelMetrics": recommender.hidden.get("metrics", {})}


def _check_finished(recommender: Resource) -> None:
    if recommender.status in UNFINISHED:
        raise ResourceInUse(f"{recommender.path} is {recommender.status}")


async def _changed(
    context: PersonalizeContext,
    request: dict[str, Any],
    edit: Callable[[Resource], Resource],
    *,
    claimable_s: float | None = None,
) -> dict[str, Any]:
    recommender = await get_resource(context, request["recommenderArn"], "recommender")
    await context.registry.change(recommender.path, edit, claimable_s=claimable_s)
    return {"recommenderArn": context.registry.arn(recommender.path)}


OPERATIONS: dict[str, Operation] = {
    "CreateRecommender": create_recommender,
    "DescribeRecommender": describe_operation("recommender", _metrics),
    "ListRecommenders": list_operation("recommender"),
    "UpdateRecommender": update_recommender,
    "StartRecommender": start_recommender,
    "StopRecommender": stop_recommender,
    "DeleteRecommender": delete_recommender,
}
