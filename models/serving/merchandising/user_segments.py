"""User segments: users by affinity to an item, or to items with some attributes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from models.filters.attribute_queries import AttributeQuery
from models.filters.filter import Filter
from models.metadata_records import Properties
from models.serving.recommender import Recommender
from models.state.catalogue.metadata import scan_item_properties, user_properties
from models.state.store import Store

MAX_NEIGHBOURS = 50
"""Items co-visited with an item whose recent owners count, too."""

MAX_MATCHING = 200
"""Items with the wanted attributes whose recent owners count: those with the most events."""


async def users_of_item(recommender: Recommender, item_id: str, *, now_s: float) -> list[str]:
    """Users by affinity to an item, highest first; empty for an unknown item.

    Affinity is the score of the item itself and of the items co-visited with it, summed over the
    last `layout.RECENT_OWNERS` owners of each.
    """
    answer = await recommender.similar(item_id, k=MAX_NEIGHBOURS, now_s=now_s)
    top = max((one.score for one in answer.items), default=1.0) or 1.0
    weights = {one.item_id: one.score / top for one in answer.items}
    weights[item_id] = 1.0 + sum(weights.values())
    (known,) = await recommender.store.item_indexes([item_id])
    return await _users_by_affinity(recommender.store, weights) if known else []


async def users_of_items(recommender: Recommender, query: AttributeQuery) -> list[str]:
    """Users by the number of items with some attributes in their histories, most first.

    O(items of the group with metadata).
    """
    store = recommender.store
    matching: list[int] = []
    async for rows in scan_item_properties(store):
        matching += _matching(query, rows)
    names = [name for name in await store.item_ids(matching) if name is not None]
    counts = await store.event_counts(matching)
    order = np.argsort([-count for count in counts], kind="stable")[:MAX_MATCHING]
    return await _users_by_affinity(store, {names[place]: 1.0 for place in order.tolist()})


async def filter_users(
    store: Store, found: Filter, users: Sequence[str], values: Mapping[str, str]
) -> list[str]:
    """The users that a filter allows, in their order.

    Raises
    ------
    InvalidInput
        A value that the filter needs is missing.
    """
    properties = [await user_properties(store, user) for user in users]
    interactions = await _event_types(store, users) if "interactions" in found.reads else {}
    allowed = found.allowed(users, properties=properties, interactions=interactions, values=values)
    return [user for user, is_allowed in zip(users, allowed.tolist(), strict=True) if is_allowed]


def _matching(query: AttributeQuery, rows: Sequence[tuple[int, Properties]]) -> list[int]:
    indexes = [index for index, _ in rows]
    matches = query.matching([str(index) for index in indexes], [known for _, known in rows])
    return [index for index, is_match in zip(indexes, matches.tolist(), strict=True) if is_match]


async def _users_by_affinity(store: Store, weights: Mapping[str, float]) -> list[str]:
    """Users by the summed weights of the items in whose recent owners they are; ties by id."""
    names = list(weights)
    indexes = await store.item_indexes(names)
    owned = await store.recent_owners(indexes)
    scores: dict[int, float] = defaultdict(float)
    for name, numbers in zip(names, owned, strict=True):
        for number in numbers.tolist():
            scores[number] += weights[name]
    owners = await store.owner_keys(list(scores))
    users = [
        (-score, owner[2:])
        for score, owner in zip(scores.values(), owners, strict=True)
        if owner is not None and owner.startswith("u:")
    ]
    return [user for _, user in sorted(users)]


async def _event_types(store: Store, users: Sequence[str]) -> dict[str, set[str]]:
    """Event types in each user's history, in lower case."""
    names = await store.event_types()
    histories = await store.histories([f"u:{user}" for user in users])
    return {
        user: {names.get(code, "").lower() for code in history.types.tolist()}
        for user, history in zip(users, histories, strict=True)
    }
