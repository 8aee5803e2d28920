"""Filters at work: the items of an answer that one allows, and others where too few are left."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from models.arrays import NO_ITEMS
from models.errors import InvalidInput
from models.filters.filter import Filter, ReadPart, seen_types
from models.metadata_records import Properties, named_values, normalized
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

FIRST_CANDIDATES = 1.5
"""Candidates for each item wanted that a filter is tried on first; and ten more for short lists."""


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
        # The first call checks the values, even where there is nothing to decide.
        if undecided or not decisions:
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
        known = {
            "interactions": self.user_id or self.session_id,
            "user": self.user_id,
            "current_item": self.item_id,
        }
        for part, name in NEEDS.items():
            if part in reads and known[part] is None:
                raise InvalidInput(f"the filter needs a {name}")
        if "properties" in reads:
            found["properties"] = await _cached_properties(recommender, items, now_s)
        if "interactions" in reads:
            history = await self._history(recommender, now_s, history)
            found["interactions"] = await _interactions(recommender, history, now_s)
        if "user" in reads and self.user_id is not None:
            found["user"] = await user_properties(recommender.store, self.user_id)
        if "current_item" in reads and self.item_id is not None:
            (found["current_item"],) = await _cached_properties(recommender, [self.item_id], now_s)
        allowed: list[bool] = self.filter.allowed(items, values=self.values, **found).tolist()
        return allowed

    async def others(
        self,
        recommender: Recommender,
        shown: Answer,
        *,
        now_s: float,
        history: History | None = None,
        taken_out: Collection[str] = (),
    ) -> list[str]:
        """Allowed items beside those of an answer with too few; four round trips.

        The last changed items of each category that the filter's INCLUDEs name, then the top lists:
        some thousands in all; without the item being looked at or, without one, the user's last.
        """
        left_out = {*(item.item_id for item in shown.items), *taken_out}
        if self.item_id is not None:
            left_out.add(self.item_id)
        else:
            history = await self._history(recommender, now_s, history)
            last = await recommender.cache.item_ids.of(history.items[-1:].tolist())
            left_out.update(name for name in last if name is not None)
        named = await _named_by(recommender, self.filter, self.values, now_s)
        return await self.allowed(
            recommender,
            [name for name in named if name not in left_out],
            now_s=now_s,
            history=history,
        )

    async def _history(
        self, recommender: Recommender, now_s: float, history: History | None
    ) -> History:
        """The user's events: as they were just read, or as they are now."""
        if history is not None:
            return history
        return await recommender.snapshots.history(self.user_id, self.session_id, now_s=now_s)


def first_length(k: int) -> int:
    """Candidates to ask for first where some are taken out: a few more than the k wanted.

    Most filters leave enough of them, and a longer list begins with the same items.

    >>> first_length(25)
    47
    """
    return 10 + int(FIRST_CANDIDATES * k)


async def until_enough(
    lengths: Iterable[int],
    ask: Callable[[int], Awaitable[Answer]],
    keep: Callable[[list[str]], Awaitable[Sequence[str]]],
    *,
    k: int,
) -> tuple[Answer, list[str]]:
    """The first of ever longer answers of which k items are kept, and those; the last otherwise.

    Parameters
    ----------
    lengths
        At least one; a longer answer begins with the same items.
    ask, keep
        Make the answer with so many items, and choose among its item ids, in their order.
    """
    for length in lengths:
        answer = await ask(length)
        kept = await keep([item.item_id for item in answer.items])
        if len(kept) >= k or len(answer.items) < length:
            break
    return answer, list(kept)


async def _cached_properties(
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
    known = await _cached_properties(recommender, [item.item_id for item in answer.items], now_s)
    items = [
        msgspec.structs.replace(item, properties=named_values(properties, names))
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
