"""Segments: the users who want an item most, by who took it and what is seen together with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from models.filters.attribute_queries import AttributeQuery
from models.filters.filter import Filter
from models.metadata_records import Properties
from models.serving.recommender import Recommender
from models.state.histories import unpack_history
from models.state.metadata import HEAD, user_properties
from models.state.store import Store

NEIGHBOURS = 50
"""Items seen together with an item whose takers count, too."""

MATCHING = 200
"""Items with wanted attributes whose takers count: those with the most events."""

SCANNED = 1000


async def users_of_item(recommender: Recommender, item_id: str, *, now_s: float) -> list[str]:
    """Users by affinity to an item, highest first; none for an unknown item.

    Affinity is the score of the item itself and of the items co-visited with it, summed over the
    last `layout.RECENT_OWNERS` owners of each.
    """
    answer = await recommender.similar(item_id, k=NEIGHBOURS, now_s=now_s)
    top = max((one.score for one in answer.items), default=1.0) or 1.0
    weights = {one.item_id: one.score / top for one in answer.items}
    weights[item_id] = 1.0 + sum(weights.values())
    (known,) = await recommender.store.item_indexes([item_id])
    return await _takers(recommender.store, weights) if known else []


async def users_of_items(recommender: Recommender, query: AttributeQuery) -> list[str]:
    """Users by how many of the items with some attributes they took, the most first.

    O(items of the group with metadata).
    """
    store = recommender.store
    matching: list[int] = []
    rows: list[tuple[int, Properties]] = []
    async for field, raw in store.redis.hscan_iter(store.key("properties"), count=SCANNED):
        rows.append((int(field), msgspec.json.decode(memoryview(raw)[HEAD.size :])))
        if len(rows) >= SCANNED:
            matching += _matching(query, rows)
            rows = []
    matching += _matching(query, rows)
    names = [name for name in await store.item_ids(matching) if name is not None]
    counts = await store.redis.zmscore(store.key("top:all"), matching) if matching else []
    order = np.argsort([-(count or 0.0) for count in counts], kind="stable")[:MATCHING]
    return await _takers(store, {names[place]: 1.0 for place in order.tolist()})


async def filter_users(
    store: Store, found: Filter, users: Sequence[str], values: Mapping[str, str]
) -> list[str]:
    """The users that a filter lets through, in their order.

    Raises
    ------
    InvalidInput
        A value that the filter needs is missing.
    """
    properties = [await user_properties(store, user) for user in users]
    interactions = await _types(store, users) if "interactions" in found.reads else {}
    allowed = found.allowed(users, properties=properties, interactions=interactions, values=values)
    return [user for user, is_allowed in zip(users, allowed.tolist(), strict=True) if is_allowed]


def _matching(query: AttributeQuery, rows: Sequence[tuple[int, Properties]]) -> list[int]:
    indexes = [index for index, _ in rows]
    matches = query.matching([str(index) for index in indexes], [known for _, known in rows])
    return [index for index, is_match in zip(indexes, matches.tolist(), strict=True) if is_match]


async def _takers(store: Store, weights: Mapping[str, float]) -> list[str]:
    """Users by the weights of the items that they took; equals by id."""
    names = list(weights)
    indexes = await store.item_indexes(names)
    raws = await store.redis.mget([store.key(f"takers:{index}") for index in indexes])
    scores: dict[int, float] = defaultdict(float)
    for name, raw in zip(names, raws, strict=True):
        for number in np.unique(np.frombuffer(raw or b"", "<u4")).tolist():
            scores[number] += weights[name]
    owners = await store.owner_keys(list(scores))
    users = [
        (-score, owner[2:])
        for score, owner in zip(scores.values(), owners, strict=True)
        if owner is not None and owner.startswith("u:")
    ]
    return [user for _, user in sorted(users)]


async def _types(store: Store, users: Sequence[str]) -> dict[str, set[str]]:
    """Types of the events of each user, in small letters."""
    names = await store.event_types()
    keys = [store.key(f"history:u:{user}") for user in users]
    raws = await store.redis.mget(keys) if keys else []
    return {
        user: {names.get(code, "").lower() for code in unpack_history(raw).types.tolist()}
        for user, raw in zip(users, raws, strict=True)
    }
