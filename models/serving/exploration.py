"""Exploration: slots of an answer for new items, chosen by Thompson sampling."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from models.arrays import Floats, Indexes
from models.serving.cache import SharedState, StateCache
from models.state import layout

MAX_EVENTS, MAX_AGE_S = 20, 30 * layout.DAY_S
"""Events and age up to which an item counts as new."""

DRAWN_ORDERS = 16
"""Orders sampled at a time."""

T = TypeVar("T")


class Exploration:
    """Orders of new items by Thompson sampling, sampled once for each renewal of the shared state.

    Requests take turns with the orders: sampling one costs as much as ranking the candidates.
    """

    def __init__(self, cache: StateCache, rng: np.random.Generator) -> None:
        self._cache = cache
        self._rng = rng
        self._shared: SharedState | None = None
        self._items: list[tuple[int, str | None]] = []
        self._orders: Iterator[list[int]] = itertools.repeat([])

    async def order(self, now_s: float) -> Iterator[tuple[int, str]]:
        """Index and id of every new item, the first to show first."""
        shared = self._cache.shared
        if shared is not self._shared:
            # Set before sampling: other requests meanwhile use the former orders.
            self._shared = shared
            await self._sample(shared, now_s)
        order = map(self._items.__getitem__, next(self._orders))
        return ((item, item_id) for item, item_id in order if item_id is not None)

    async def _sample(self, shared: SharedState, now_s: float) -> None:
        new = shared.top_lists["new"]
        stats = await self._cache.stats(new, now_s)
        is_new = (shared.clock_s - stats["first"] < MAX_AGE_S) & (stats["events"] < MAX_EVENTS)
        items, events = new[is_new].tolist(), stats["events"][is_new].astype(np.float64)
        shown = np.array([shared.trial_counts.get(item, 0) for item in items], np.float64)
        item_ids = await self._cache.item_ids.of(items)
        orders = [
            thompson_order(events, shown, len(items), self._rng).tolist()
            for _ in range(DRAWN_ORDERS)
        ]
        self._items = list(zip(items, item_ids, strict=True))
        self._orders = itertools.cycle(orders)


def thompson_order(events: Floats, shown: Floats, n: int, rng: np.random.Generator) -> Indexes:
    """Places of n items to show, by Thompson sampling of the rate at which a shown item is taken.

    An item that was never shown has an uncertain rate and comes up soon; one that was shown without
    events is sampled ever less (Chapelle and Li 2011, "An empirical evaluation of Thompson
    sampling").

    Parameters
    ----------
    events, shown
        ``(m,)`` events of each item, and how often it was shown for exploration.
    """
    rates = rng.beta(1.0 + events, 1.0 + np.maximum(shown - events, 0.0))
    return np.argsort(-rates, kind="stable")[:n]


def insert_explored(listed: Sequence[T], explored: Sequence[T], rng: random.Random) -> list[T]:
    """The list with explored items at random places of its second half, in its former length.

    >>> insert_explored([5, 6, 7, 8], [9], random.Random(7))[:2]
    [5, 6]
    """
    kept = list(listed[: len(listed) - len(explored)])
    for item in explored:
        kept.insert(rng.randint(len(listed) // 2, len(kept)), item)
    return kept
