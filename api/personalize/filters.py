"""Filters: expressions that say which items an answer may have."""

from __future__ import annotations

from typing import Any

from api.personalize.context import Context
from api.personalize.documents import deleting, describing, found, listing, new, quota
from api.personalize.wire import Operation


async def create_filter(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """An expression of a dataset group, if it is one."""
    from models.filters import parse  # noqa: PLC0415

    group = await found(context, request["datasetGroupArn"], "dataset-group")
    parse(request["filterExpression"])
    path = f"filter/{request['name']}"
    await context.resources.create(
        new(context, path, request, group.path), quota(context, "filter", group.path)
    )
    return {"filterArn": context.resources.arn(path)}


OPERATIONS: dict[str, Operation] = {
    "CreateFilter": create_filter,
    "DescribeFilter": describing("filter"),
    "ListFilters": listing("filter"),
    "DeleteFilter": deleting("filter"),
}
