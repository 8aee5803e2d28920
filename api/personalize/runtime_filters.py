"""Filters of requests: which items may stand in an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.dependencies import Services
from api.personalize.context import PersonalizeContext
from api.personalize.inference_request import InferenceQuery
from models.errors import InvalidInput, ResourceNotFound
from models.filters.filter import Filter, parse_filter_expression
from models.personalize import recipe_answers
from models.personalize.resource_types import path_of
from models.personalize.statuses import ACTIVE
from models.serving.recommender import Recommender


async def filter_answer(
    context: PersonalizeContext, asked: InferenceQuery, by: Mapping[str, Any], items: Sequence[str]
) -> list[str]:
    """The items that the filter of a request or a promotion lets through; all, without a filter.

    Reads what has taken effect until now: a purchase counts in the next answer.

    Raises
    ------
    ResourceNotFound
        There is no such filter, or it is not active.
    InvalidInput
        The filter is not for items of this group, or lacks an id or a value that it needs.
    """
    if "filterArn" not in by:
        return list(items)
    recommender: Recommender = context.tenants.recommender(asked.target.group)
    found = await _filter(context, asked, by["filterArn"])
    return await recipe_answers.apply_filter(
        recommender, found, items, **_known(context, asked, by)
    )


async def filled_up(
    context: PersonalizeContext,
    asked: InferenceQuery,
    by: Mapping[str, Any],
    items: Sequence[str],
    k: int,
) -> list[str]:
    """As `filter_answer`, at most k; where too few are left, with others that are let through."""
    if "filterArn" not in by:
        return list(items)[:k]
    recommender: Recommender = context.tenants.recommender(asked.target.group)
    found = await _filter(context, asked, by["filterArn"])
    return await recipe_answers.filter_and_refill(
        recommender,
        asked.target.recipe,
        found,
        items,
        k,
        **_known(context, asked, by),
        circumstances=asked.circumstances,
    )


def _known(
    context: PersonalizeContext, asked: InferenceQuery, by: Mapping[str, Any]
) -> dict[str, Any]:
    """What filters are told beside the items."""
    return {
        "user_id": asked.user_id,
        "item_id": asked.item_id,
        "values": by.get("filterValues", {}),
        "now_s": context.services.clock(),
    }


async def _filter(context: PersonalizeContext, asked: InferenceQuery, arn: str) -> Filter:
    services: Services = context.services
    path = path_of(arn)
    if not path.startswith("filter/"):
        raise InvalidInput(f"{arn} is not the ARN of a filter")
    stored = await context.resources.recent(path, now_s=services.clock())
    if stored.status != ACTIVE:
        raise ResourceNotFound(f"{arn} is {stored.status}, not {ACTIVE}")
    if path_of(stored.data["datasetGroupArn"]) != f"dataset-group/{asked.target.group}":
        raise InvalidInput(f"{arn} is of another dataset group")
    found = parse_filter_expression(stored.data["filterExpression"])
    if found.target != "ItemID":
        raise InvalidInput(f"{arn} chooses by {found.target}, not among items")
    return found
