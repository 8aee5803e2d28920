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
from api.personalize.protocol import Operation
from models.errors import InvalidInput, LimitExceeded
from models.filters.filter import parse_filter_expression
from models.personalize.resource import Resource

ACTIONS = "ActionID"

MAX_READ = 1000
"""Bound on the filters of a group whose fields are counted."""


async def create_filter(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Create a filter with a valid expression."""
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    parsed = parse_filter_expression(request["filterExpression"])
    if parsed.target == ACTIONS:
        raise InvalidInput("filterExpression: actions are not supported, only ItemID and UserID")
    await _check_fields(context, group, parsed.fields)
    path = f"filter/{request['name']}"
    await context.registry.create(
        new_resource(context, path, request, group.path), quota_limit(context, "filter", group.path)
    )
    return {"filterArn": context.registry.arn(path)}


async def _check_fields(
    context: PersonalizeContext, group: Resource, fields: frozenset[str]
) -> None:
    """Raise `LimitExceeded` if a group's filters would read more fields than the quota."""
    most = context.registry.settings.personalize_quotas["filter-fields"]
    for one in await context.registry.page("filter", group.path, limit=MAX_READ):
        fields |= parse_filter_expression(one.data["filterExpression"]).fields
    if len(fields) > most:
        arn = context.registry.arn(group.path)
        raise LimitExceeded(
            f"the filters of {arn} would read {len(fields)} fields; the quota is {most}"
        )


OPERATIONS: dict[str, Operation] = {
    "CreateFilter": create_filter,
    "DescribeFilter": describe_operation("filter"),
    "ListFilters": list_operation("filter"),
    "DeleteFilter": delete_operation("filter"),
}
