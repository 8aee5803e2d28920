"""Filters at work: the items of an answer that one allows, and others where too few are left."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import numpy as np

from models.arrays import NO_ITEMS, Indexes
from models.errors import InvalidInput
from models.filters.filter import INTERACTIONS_PER_TYPE, Filter, ReadPart, seen_types
from models.filters.grammar import IDENTITIES
from models.metadata_records import Properties, categories_of, named_values, normalized
from models.ranking.selection import CapGroup
from models.serving.answers import Answer
from models.serving.cached.derived_values import DerivedValues
from models.serving.recommender import Recommender
from models.state import layout
from models.state.catalogue.metadata import of_categories, user_properties
from models.state.histories import History, effects, item_indexes, last_item
from models.state.store import Store

T = TypeVar("T")

NEEDS: Mapping[ReadPart, str] = {
    "interactions": "userId",
    "user": "userId",
    "current_item": "itemId",
}
"""Id that a request must carry for each part of the state that a filter reads."""

ITEM_PARTS: frozenset[ReadPart] = frozenset(("properties",))
"""Parts of the state that a filter may read for its decisions to be kept."""

MAX_OTHERS = 4000
"""Items that are looked at for a filter that leaves too few of an answer, at most."""

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
    users
        Store with the records of users, where it is not that of the candidates; None if it is.
    """

    filter: Filter
    values: Mapping[str, str] = field(default_factory=dict)
    user_id: str | None = None
    session_id: str | None = None
    item_id: str | None = None
    users: Store | None = None

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
        sent = (part for pair in sorted(self.values.items()) for part in pair)
        decisions = cache.filter_decisions.of((self.filter.text, *sent), version)
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
        reads, found = self.filter.reads, dict[str, Any](await self.of_request(recommender, now_s))
        if "properties" in reads:
            found["properties"] = await _cached_properties(recommender, items, now_s)
        if "interactions" in reads:
            history = await self._history(recommender, now_s, history)
            found["interactions"] = await _interactions(
                recommender, history, now_s, per_type=INTERACTIONS_PER_TYPE[self.filter.target]
            )
        allowed: list[bool] = self.filter.allowed(items, values=self.values, **found).tolist()
        return allowed

    async def of_request(
        self, recommender: Recommender, now_s: float
    ) -> dict[str, Properties | None]:
        """Properties of the user and the current item that it reads, for `Filter.allowed`.

        Raises
        ------
        InvalidInput
            It needs an id that the request lacks.
        """
        reads, found = self.filter.reads, dict[str, Properties | None]()
        known = {
            "interactions": self.user_id or self.session_id,
            "user": self.user_id,
            "current_item": self.item_id,
        }
        for part, name in NEEDS.items():
            if part in reads and known[part] is None:
                raise InvalidInput(f"the filter needs a {name}")
        if "user" in reads and self.user_id is not None:
            found["user"] = await user_properties(self.users or recommender.store, self.user_id)
        if "current_item" in reads and self.item_id is not None:
            (found["current_item"],) = await _cached_properties(recommender, [self.item_id], now_s)
        return found

    async def _history(
        self, recommender: Recommender, now_s: float, history: History | None
    ) -> History:
        """The user's events: as they were just read, or as they are now."""
        if history is not None:
            return history
        return await recommender.snapshots.history(self.user_id, self.session_id, now_s=now_s)


async def others_allowed(
    recommender: Recommender,
    filters: Sequence[ItemFilter],
    shown: Answer,
    *,
    now_s: float,
    history: History | None = None,
    taken_out: Collection[str] = (),
) -> list[str]:
    """Items that all filters of a request allow, beside those of an answer with too few of them.

    All there are, as `PropertyIndex` has them, or else the last changed items of each category that
    the filters' INCLUDEs name, then the top lists: some thousands in all; without the item being
    looked at or, without one, the user's last. Some round trips.
    """
    first = filters[0]
    left_out = {*(item.item_id for item in shown.items), *shown.disliked, *taken_out}
    if history is None and (
        first.item_id is None or any("interactions" in one.filter.reads for one in filters)
    ):
        history = await recommender.snapshots.history(first.user_id, first.session_id, now_s=now_s)
    if first.item_id is not None:
        left_out.add(first.item_id)
    elif history is not None:
        last = await recommender.cache.item_ids.of(last_item(history).tolist())
        left_out.update(name for name in last if name is not None)
    named = await _named_by(recommender, filters, history, now_s)
    left = [name for name in named if name not in left_out]
    for one in filters:
        left = await one.allowed(recommender, left, now_s=now_s, history=history)
    return left


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


async def _derived(
    recommender: Recommender,
    kept: DerivedValues[T],
    derivation: tuple[str, ...],
    items: Sequence[str],
    now_s: float,
    derive: Callable[[Properties | None], T],
) -> Mapping[str, T]:
    """What is derived from the record of each item, found once for all requests."""
    found = kept.of(derivation, await recommender.cache.properties_version(now_s))
    new = [item for item in items if item not in found]
    if new:
        known = await _cached_properties(recommender, new, now_s)
        found.update((item, derive(one)) for item, one in zip(new, known, strict=True))
    return found


async def value_groups(
    recommender: Recommender, items: Sequence[str], names: Sequence[str], *, now_s: float
) -> Mapping[str, Sequence[CapGroup]]:
    """Name and value of each value that items have of these properties, at most `cache_s` old.

    A text `a|b` has two values; texts count in any case. Names are understood as in `named_values`.
    Those of other items may be there too.
    """
    return await _derived(
        recommender,
        recommender.cache.value_groups,
        tuple(names),
        items,
        now_s,
        lambda properties: _value_groups(properties, names),
    )


def _value_groups(properties: Properties | None, names: Sequence[str]) -> tuple[CapGroup, ...]:
    return tuple(
        (name, part.strip().casefold())
        for name, value in named_values(properties, names).items()
        for part in (value.split("|") if isinstance(value, str) else [str(value)])
        if value is not None and part.strip()
    )


async def categories(
    recommender: Recommender, items: Sequence[str], *, now_s: float
) -> list[Sequence[str]]:
    """Categories of each item, see `categories_of`, at most `cache_s` old."""
    found = await _derived(
        recommender,
        recommender.cache.categories,
        (),
        items,
        now_s,
        lambda properties: categories_of(properties or {}),
    )
    return [found[item] for item in items]


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
    recommender: Recommender, history: History, now_s: float, *, per_type: int
) -> dict[str, set[str]]:
    """Types of the user's events by item; see `models.filters.filter.seen_types`."""
    types = (await recommender.cache.with_types(history.types, now_s)).event_types
    indexes = item_indexes(history)
    is_item = (indexes > 0) & (effects(history) != layout.TAKEN_BACK)
    items, codes = (part[is_item][::-1].tolist() for part in (indexes, history.types))
    names = await recommender.cache.item_ids.of(items)
    return seen_types(
        (
            (name, types[code])
            for name, code in zip(names, codes, strict=True)
            if name is not None and code in types
        ),
        per_type=per_type,
    )


async def _named_by(
    recommender: Recommender, filters: Sequence[ItemFilter], history: History | None, now_s: float
) -> list[str]:
    """Distinct items that the filters may allow, the user's own and those of top lists first.

    All that their conditions on properties allow, up to `MAX_OTHERS`; where there is no index, of
    the categories that they ask for and of the top lists.
    """
    cache = recommender.cache
    shared = await cache.refresh(now_s)
    top_items = np.array(
        list(dict.fromkeys(np.concatenate([NO_ITEMS, *shared.top_lists.values()]).tolist())),
        np.int64,
    )
    wanted = {pair for one in filters for pair in one.filter.categories(one.values)}
    own_ids = [text for name, text in wanted if name == IDENTITIES["Items"]]
    own = np.array(await cache.item_indexes(own_ids), np.int64)
    if history is not None:
        # A condition on interactions looks at these, and the index knows nothing of it.
        own = np.concatenate([own, item_indexes(history)[::-1]])
    allowed = await _indexed(recommender, filters, now_s)
    if allowed is None:
        listed = await _of_wanted_categories(recommender, wanted, top_items.tolist(), now_s)
        order = [own[own > 0], np.array(listed, np.int64), top_items]
    else:
        first = np.concatenate([own[own > 0], top_items])
        places = np.minimum(np.searchsorted(allowed, first), max(len(allowed) - 1, 0))
        first = first[allowed[places] == first] if len(allowed) else NO_ITEMS
        order = [first, shared.shown(allowed)[::-1][: MAX_OTHERS + len(first)]]
    items = shared.shown(np.array(list(dict.fromkeys(np.concatenate(order).tolist())), np.int64))
    names = await cache.item_ids.of(items[:MAX_OTHERS].tolist())
    return [name for name in names if name is not None]


async def _indexed(
    recommender: Recommender, filters: Sequence[ItemFilter], now_s: float
) -> Indexes | None:
    """Indexes of the items that all filters may allow; None without an index."""
    found: Indexes | None = None
    for one in filters:
        allowed = await recommender.cache.property_index.may_allow(
            one.filter, one.values, now_s, **await one.of_request(recommender, now_s)
        )
        if allowed is None:
            return None
        found = allowed if found is None else np.intersect1d(found, allowed, assume_unique=True)
    return found


async def _of_wanted_categories(
    recommender: Recommender,
    wanted: Collection[tuple[str, str]],
    top_items: Sequence[int],
    now_s: float,
) -> list[int]:
    """Items of categories by folded property and value, as the top items spell the properties."""
    rows = await recommender.cache.properties(top_items, now_s)
    spelled = {(normalized(column), column) for row in rows if row for column in row}
    categories = {
        f"{column}={text}" for name, text in wanted for folded, column in spelled if folded == name
    }
    return await of_categories(recommender.store, categories)
