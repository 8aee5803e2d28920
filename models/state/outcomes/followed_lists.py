"""The lists that were served to an owner lately, with why and what came of them.

Reads what outcomes.lua keeps in {group}:shown:<owner>; see `models.state.outcomes.served_outcomes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from models.served_messages import SOURCES_BY_CODE, UNKNOWN_SOURCE
from models.state.outcomes.served_outcomes import stored_lists
from models.state.store import Store


class FollowedItem(NamedTuple):
    """An item of a served list.

    Attributes
    ----------
    item_id
        Empty where the item is known no more.
    source
        Of its first reason, or its level where no reason was asked for.
    value
        Sum of the `eventValue` of what followed.
    """

    item_id: str
    source: str
    is_clicked: bool
    is_bought: bool
    value: float


class FollowedList(NamedTuple):
    """A list that was served to an owner, "u:<user>" or "s:<session>"."""

    recommendation_id: str
    owner: str
    served_at: float
    placement: str
    arm: str
    recipe: str
    items: list[FollowedItem]


async def followed_lists(
    store: Store, owners: Sequence[str], *, newest: int | None = None
) -> list[FollowedList]:
    """The lists of owners that have taken effect, oldest first; two round trips.

    At most `layout.SHOWN_LISTS` of each owner, of `served_messages.MAX_SHOWN_ITEMS` items.

    Parameters
    ----------
    newest
        The newest so many of all owners; None for all.
    """
    stored = await stored_lists(store, owners)
    stored.sort(key=lambda one: (one[1][1], one[1][0]))
    if newest is not None:
        stored = stored[-newest:] if newest else []
    entries = [[part for part in one[4].split(",") if part] for _, one in stored]
    indexes = list({int(part) for parts in entries for part in parts if part[0] != "="})
    names = dict(zip(indexes, await store.item_ids(indexes), strict=True))
    return [
        _followed(owner, one, [_name(part, names) for part in parts])
        for (owner, one), parts in zip(stored, entries, strict=True)
    ]


def _name(part: str, names: dict[int, str | None]) -> str:
    """Items stand as indexes, or as names that had none yet."""
    return part[1:] if part[0] == "=" else names[int(part)] or ""


def _followed(owner: str, stored: Sequence[Any], item_ids: list[str]) -> FollowedList:
    name, served_ms, dimensions, codes, _, taken, *_ = stored
    placement, arm, recipe = dimensions.split("\t")
    # Outcomes by position, from 1.
    outcomes = {int(one[0]): one for one in taken or ()}
    items = []
    for position, item_id in enumerate(item_ids, 1):
        _, clicked, bought, value, *_ = outcomes.get(position, (0, 0, 0, 0))
        code = codes[position - 1 : position]
        items.append(
            FollowedItem(
                item_id,
                SOURCES_BY_CODE.get(code, UNKNOWN_SOURCE),
                bool(clicked),
                bool(bought),
                float(value) / 1000,
            )
        )
    return FollowedList(name, owner, served_ms / 1000, placement, arm, recipe, items)
