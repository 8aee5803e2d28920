"""Filters: which items of an answer may stand in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from api.personalize.context import Context

if TYPE_CHECKING:
    from api.personalize.runtime import Asked


async def let_through(
    context: Context, asked: Asked, by: Mapping[str, Any], items: Sequence[str]
) -> list[str]:
    """The items that the filter of a request or a promotion lets through; all, without a filter.

    Raises
    ------
    ResourceNotFound
        There is no filter with this ARN.
    """
    if "filterArn" not in by:
        return list(items)
    await context.resources.get(by["filterArn"])
    return list(items)
