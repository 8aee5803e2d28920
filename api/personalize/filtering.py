"""Filters of requests: which items may stand in an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.personalize.context import Context
from api.personalize.targets import Asked
from api.services import Services
from models.errors import InvalidInput, ResourceNotFound
from models.filters import Filter, Part, parse, seen_types
from models.kinds import path_of
from models.metadata import user_properties
from models.recommender import Recommender
from models.records import Properties
from models.statuses import ACTIVE

NEEDS: Mapping[Part, str] = {
    "interactions": "userId",
    "user": "userId",
    "current_item": "itemId",
}
"""The id in a request without which a filter cannot be what it says."""


async def let_through(
    context: Context, asked: Asked, by: Mapping[str, Any], items: Sequence[str]
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
    found = await _filter(context, asked, by["filterArn"])
    ids = {"userId": asked.user_id, "itemId": asked.item_id}
    for part, name in NEEDS.items():
        if part in found.reads and ids[name] is None:
            raise InvalidInput(f"the filter {by['filterArn']} needs a {name}")
    recommender: Recommender = context.tenants.recommender(asked.target.group)
    now_s: float = context.services.clock()
    reads: dict[str, Any] = {}
    if "properties" in found.reads:
        reads["properties"] = await _properties(recommender, items, now_s)
    if "interactions" in found.reads:
        reads["interactions"] = await _interactions(recommender, asked.user_id, now_s)
    if "user" in found.reads and asked.user_id is not None:
        reads["user"] = await user_properties(recommender.store, asked.user_id)
    if "current_item" in found.reads and asked.item_id is not None:
        (reads["current_item"],) = await _properties(recommender, [asked.item_id], now_s)
    allowed = found.allowed(items, values=by.get("filterValues", {}), **reads)
    return [item for item, is_allowed in zip(items, allowed.tolist(), strict=True) if is_allowed]


async def _filter(context: Context, asked: Asked, arn: str) -> Filter:
    services: Services = context.services
    path = path_of(arn)
    if not path.startswith("filter/"):
        raise InvalidInput(f"{arn} is not the ARN of a filter")
    stored = await context.resources.recent(path, now_s=services.clock())
    if stored.status != ACTIVE:
        raise ResourceNotFound(f"{arn} is {stored.status}, not {ACTIVE}")
    if path_of(stored.data["datasetGroupArn"]) != f"dataset-group/{asked.target.group}":
        raise InvalidInput(f"{arn} is of another dataset group")
    found = parse(stored.data["filterExpression"])
    if found.target != "ItemID":
        raise InvalidInput(f"{arn} chooses by {found.target}, not among items")
    return found


async def _properties(
    recommender: Recommender, items: Sequence[str], now_s: float
) -> list[Properties | None]:
    indexes = await recommender.store.item_indexes(items)
    known = await recommender.catalogue.properties([n for n in indexes if n], now_s)
    by_index = dict(zip((n for n in indexes if n), known, strict=True))
    return [by_index.get(index) for index in indexes]


async def _interactions(
    recommender: Recommender, user_id: str | None, now_s: float
) -> dict[str, set[str]]:
    """Types of the user's events by item; see `models.filters.seen_types`."""
    overview = await recommender.catalogue.refresh(now_s)
    history = await recommender.history(user_id, None, now_s=now_s)
    is_item = history.items > 0
    items, codes = (part[is_item][::-1].tolist() for part in (history.items, history.types))
    names = await recommender.catalogue.names(items)
    types = overview.types
    if any(code not in types for code in codes):
        types = await recommender.store.event_types()
    return seen_types(
        (name, types[code])
        for name, code in zip(names, codes, strict=True)
        if name is not None and code in types
    )
