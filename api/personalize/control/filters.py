"""Filters: expressions that decide which items an answer may hold."""

from __future__ import annotations

from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.crud import (
    delete_operation,
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    quota_limit,
)
from api.personalize.dataset_columns import check_named_columns, schema_of
from api.personalize.protocol import Operation
from models.errors import InvalidRequest, LimitExceeded, ResourceInUse
from models.filters.filter import parse_filter_expression
from models.personalize.resources.resource_types import path_of
from models.serving.merchandising.named_things import check_unnamed

ALWAYS = frozenset({"Interactions.eventtype", "Action_Interactions.eventtype"})
"""Fields that every group has: every event has a type."""

MAX_READ = 1000
"""Bound on the filters of a group whose fields are counted."""


async def create_filter(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Create a filter with a valid expression."""
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    parsed = parse_filter_expression(request["filterExpression"])
    await check_columns(context, group.path, parsed.fields)
    await check_fields(context, group.path, parsed.fields)
    path = f"filter/{request['name']}"
    await context.registry.create(
        new_resource(context, path, request, group.path), quota_limit(context, "filter", group.path)
    )
    return {"filterArn": context.registry.arn(path)}


async def check_columns(
    context: PersonalizeContext, group_path: str, fields: frozenset[str]
) -> None:
    """Raise `InvalidInput` for a column that is not in its dataset, where there is the dataset."""
    for field in sorted(fields - ALWAYS):
        dataset, _, column = field.partition(".")
        if await schema_of(context, group_path, dataset.upper()) is not None:
            where = "filterExpression"
            await check_named_columns(context, group_path, dataset.upper(), [column], where)


async def check_fields(
    context: PersonalizeContext, group_path: str, fields: frozenset[str], *, but: str = ""
) -> None:
    """Raise `LimitExceeded` if a group's filters would read more fields than the quota.

    `but` is the name of one that is replaced.
    """
    most = context.registry.settings.personalize_quotas["filter-fields"]
    for one in await context.registry.page("filter", group_path, limit=MAX_READ):
        if one.data["name"] == but:
            continue
        fields |= parse_filter_expression(one.data["filterExpression"]).fields
    if len(fields) > most:
        arn = context.registry.arn(group_path)
        raise LimitExceeded(
            f"the filters of {arn} would read {len(fields)} fields; the quota is {most}"
        )


async def delete_filter(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Delete a filter that no rule of a placement or a running experiment names."""
    stored = await get_resource(context, request["filterArn"], "filter")
    services = context.services
    if path_of(stored.data["datasetGroupArn"]) == f"dataset-group/{services.settings.group}":
        try:
            await check_unnamed(services.store, "filter", stored.data["name"], services.clock())
        except InvalidRequest as error:
            raise ResourceInUse(str(error)) from error
    return await _delete(context, request)


_delete = delete_operation("filter")

OPERATIONS: dict[str, Operation] = {
    "CreateFilter": create_filter,
    "DescribeFilter": describe_operation("filter"),
    "ListFilters": list_operation("filter"),
    "DeleteFilter": delete_filter,
}
