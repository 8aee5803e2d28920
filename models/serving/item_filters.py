"""Filters at work: the items of an answer that one allows, and others where too few are left."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from models.arrays import NO_ITEMS
from models.errors import InvalidInput
from models.filters.filter import Filter, ReadPart, seen_types
from models.metadata_records import Properties, normalized
from models.serving.answers import Answer
from models.serving.filter_decisions import ITEM_PARTS
from models.serving.recommender import Recommender
from models.state.histories import History
from models.state.metadata import of_categories, user_properties

NEEDS: Mapping[ReadPart, str] = {
    "interactions": "userId",
    "user": "userId",
    "current_item": "itemId",
}
"""Id that a request must carry for each part of the state that a filter reads."""


@dataclass(frozen=True)
class ItemFilter:
    """A filter as one request asks for it.

    Attributes
    ----------
    filter, values
        The filter, and values of its placeholders.
    user_id, session_id, item_id
        The user whose interactions and properties it reads, and the item being looked at.
    """

    filter: Filter
    values: Mapping[str, str] = field(default_factory=dict)
    user_id: str | None = None
    session_id: str | None = None
    item_id: str | None = None

    async def allowed(
        self,
        recommender: Recommender,
        items: Sequence[str],
        *,
        now_s: float,
        history: History | None = None,
    ) -> list[str]:
        """The items that it allows, in their order.

        A few µs for 60 items where a filter of properties has seen them before, else some 100 µs.

        Parameters
        ----------
        history
            The user's events, where they were just read; None to read them if they are needed. They
            are read as they are now: a purchase counts in the next answer.

        Raises
        ------
        InvalidInput
            It needs an id or a value that the request lacks.
        """
        reads, cache = self.filter.reads, recommender.cache
        if not reads <= ITEM_PARTS:
            allowed = await self._decide(recommender, items, now_s, history)
            return list(itertools.compress(items, allowed))
        version = await cache.properties_version(now_s)
        decisions = cache.filter_decisions.of(self.filter, self.values, version)
        undecided = [item for item in items if item not in decisions]
        if undecided:
            decided = await self._decide(recommender, undecided, now_s, None)
            decisions.update(zip(undecided, decided, strict=True))
        return [item for item in items if decisions[item]]

    async def _decide(
        self,
        recommender: Recommender,
        items: Sequence[str],
        now_s: float,
        history: History | None,
    ) -> list[bool]:
        """True for each item that it allows."""
        reads, found = self.filter.reads, dict[str, Any]()
        ids = {"userId": self.user_id or self.session_id, "itemId": self.item_id}
        for part, name in NEEDS.items():
            if part in reads and ids[name] is None:
                raise InvalidInput(f"the filter needs a {name}")
        if "properties" in reads:
            found["properties"] = await item_properties(recommender, items, now_s)
        if "interactions" in reads:
            if history is None:
                history = await recommender.snapshots.history(
                    self.user_id, self.session_id, now_s=now_s
                )
            found["interactions"] = await _interactions(recommender, history, now_s)
        if "user" in reads and self.user_id is not None:
            found["user"] = await user_properties(recommender.store, self.user_id)
        if "current_item" in reads and self.item_id is not None:
            (found["current_item"],) = await item_properties(recommender, [self.item_id], now_s)
        allowed: list[bool] = self.filter.allowed(items, values=self.values, **found).tolist()
        return allowed

    async def others(
        self, recommender: Recommender, known: Sequence[str], *, now_s: float
    ) -> list[str]:
        """Allowed items beside the known ones, for an answer with too few; four round trips.

        The last changed items of each category that the filter's INCLUDEs name, then the top lists:
        some thousands in all.
        """
        left_out = frozenset(known)
        named = await _named_by(recommender, self.filter, self.values, now_s)
        return await self.allowed(
            recommender, [name for name in named if name not in left_out], now_s=now_s
        )


async def item_properties(
    recommender: Recommender, items: Sequence[str], now_s: float
) -> list[Properties | None]:
    """Properties of items, at most `cache_s` old; None without a record."""
    cache = recommender.cache
    indexes = await cache.item_indexes(items)
    known = await cache.properties([n for n in indexes if n], now_s)
    if len(known) == len(indexes):
        return known
    by_index = dict(zip((n for n in indexes if n), known, strict=True))
    return [by_index.get(index) for index in indexes]


async def with_properties(
    recommender: Recommender, answer: Answer, names: Sequence[str], *, now_s: float
) -> Answer:
    """The answer with these properties of its items, at most `cache_s` old.

    A name is understood in any case and with or without underscores; a property that an item lacks
    is left out.
    """
    if not names:
        return answer
    known = await item_properties(recommender, [item.item_id for item in answer.items], now_s)
    folded = {normalized(name): name for name in names}
    items = [
        msgspec.structs.replace(
            item,
            properties={
                folded[normalized(name)]: value
                for name, value in (properties or {}).items()
                if normalized(name) in folded
            },
        )
        for item, properties in zip(answer.items, known, strict=True)
    ]
    return msgspec.structs.replace(answer, items=items)


async def _interactions(
    recommender: Recommender, history: History, now_s: float
) -> dict[str, set[str]]:
    """Types of the user's events by item; see `models.filters.filter.seen_types`."""
    types = (await recommender.cache.with_types(history.types, now_s)).event_types
    is_item = history.items > 0
    items, codes = (part[is_item][::-1].tolist() for part in (history.items, history.types))
    names = await recommender.cache.item_ids.of(items)
    return seen_types(
        (name, types[code])
        for name, code in zip(names, codes, strict=True)
        if name is not None and code in types
    )


async def _named_by(
    recommender: Recommender, found: Filter, values: Mapping[str, str], now_s: float
) -> list[str]:
    """Distinct items of the categories that a filter asks for, then of the top lists."""
    cache = recommender.cache
    shared = await cache.refresh(now_s)
    top_items = list(dict.fromkeys(np.concatenate([NO_ITEMS, *shared.top_lists.values()]).tolist()))
    rows = await cache.properties(top_items, now_s)
    spelled = {(normalized(column), column) for row in rows if row for column in row}
    categories = {
        f"{column}={text}"
        for name, text in found.categories(values)
        for folded, column in spelled
        if folded == name
    }
    listed = await of_categories(recommender.store, categories)
    names = await cache.item_ids.of(list(dict.fromkeys([*listed, *top_items])))
    return [name for name in names if name is not None]
