"""Items with texts like those of an item, read and summed once for many requests."""

from __future__ import annotations

import numpy as np

from models.arrays import Indexes
from models.retrieval.similar_texts import similar_items
from models.retrieval.user_neighbours import NO_NEIGHBOURS, NeighbourItems
from models.serving.cached.cached_items import ItemStatistics
from models.state import layout
from models.state.catalogue.term_lists import term_lists
from models.state.store import Store
from models.state.timed_cache import TimedCache

MAX_AGE_S = 60.0
"""Longest age of a list of similar items: weights fade as the items of a list get events."""


class TextNeighbours:
    """Similar items of a group's items; forgotten when an item's terms have changed."""

    def __init__(self, store: Store, statistics: ItemStatistics, *, size: int) -> None:
        self._store = store
        self._statistics = statistics
        self._lists = TimedCache[int, NeighbourItems](size=size, max_age_s=MAX_AGE_S)
        self._version = 0

    def changed(self, version: int) -> None:
        """Forget all lists if this is not the version of the terms that they are of."""
        if version != self._version:
            self._version = version
            self._lists.invalidate_all()

    async def of(self, items: Indexes, now_s: float) -> list[NeighbourItems]:
        """Similar items of each; two reads if any must be found, none for a group without texts.

        A weight fades with the events of the item or of the similar one, whichever has fewer: at
        `layout.COLD_EVENTS` it is 0.
        """
        if not self._version:
            return []

        async def load(missing: list[int]) -> list[NeighbourItems]:
            return await self._found(missing, now_s)

        found = await self._lists.read(items.tolist(), now_s, load)
        return [one or NO_NEIGHBOURS for one in found]

    async def _found(self, items: list[int], now_s: float) -> list[NeighbourItems]:
        n_events = (await self._statistics.of(np.array(items, np.int64), now_s))["events"]
        by_item = await term_lists(self._store, items)
        found = [
            similar_items(item, lists, with_warm=bool(n < layout.COLD_EVENTS))
            for item, n, lists in zip(items, n_events, by_item, strict=True)
        ]
        return [
            await self._faded(one, int(n), now_s) for one, n in zip(found, n_events, strict=True)
        ]

    async def _faded(self, similar: NeighbourItems, n_events: int, now_s: float) -> NeighbourItems:
        others = (await self._statistics.of(similar.items, now_s))["events"]
        fewer = np.minimum(others.astype(np.float64), n_events)
        weights = similar.weights * (1.0 - fewer / layout.COLD_EVENTS)
        is_left = weights > 0.0
        return NeighbourItems(similar.items[is_left], weights[is_left])
