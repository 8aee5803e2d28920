"""Filters: expressions that say which items an answer may have."""

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
from api.personalize.protocol import Operation
from models.errors import InvalidInput, LimitExceeded
from models.filters.filter import parse_filter_expression
from models.personalize.resource import Resource

ACTIONS = "ActionID"

MAX_READ = 1000
"""Filters of a group whose fields are counted."""


async def create_filter(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """An expression of a dataset group, if it is one."""
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    parsed = parse_filter_expression(request["filterExpression"])
    if parsed.target == ACTIONS:
        raise InvalidInput("filterExpression: there are no actions here, only ItemID and UserID")
    await _check_fields(context, group, parsed.fields)
    path = f"filter/{request['name']}"
    await context.registry.create(
        new_resource(context, path, request, group.path), quota_limit(context, "filter", group.path)
    )
    return {"filterArn": context.registry.arn(path)}


async def _check_fields(
    context: PersonalizeContext, group: Resource, fields: frozenset[str]
) -> None:
    """Raise `LimitExceeded` where a group's filters would ask for more fields than they may."""
    most = context.registry.settings.personalize_quotas["filter-fields"]
    for one in await context.registry.page("filter", group.path, limit=MAX_READ):
        fields |= parse_filter_expression(one.data["filterExpression"]).fields
    if len(fields) > most:
        arn = context.registry.arn(group.path)
        raise LimitExceeded(f"the filters of {arn} would ask for {len(fields)} fields, not {most}")


OPERATIONS: dict[str, Operation] = {
    "CreateFilter": create_filter,
    "DescribeFilter": describe_operation("filter"),
    "ListFilters": list_operation("filter"),
    "DeleteFilter": delete_operation("filter"),
}
