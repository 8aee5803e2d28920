"""New items to try, so that they get their chance: which, and in which order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from models.ranking.diversity import thompson_order
from models.serving.cache import SharedState, StateCache
from models.state import layout

EVENTS, AGE_S = 20, 30 * layout.DAY_S
"""An item is tried until it has so many events, or has been there for so long."""

ORDERS = 16
"""Orders drawn at a time."""


class Exploration:
    """Orders to try the new items in, drawn when what is known of them has been read anew.

    Requests take turns with the orders: to draw one takes as long as to rank the candidates.
    """

    def __init__(self, catalogue: StateCache, rng: np.random.Generator) -> None:
        self._catalogue = catalogue
        self._rng = rng
        self._overview: SharedState | None = None
        self._named: list[tuple[int, str | None]] = []
        self._orders: Iterator[list[int]] = itertools.repeat([])

    async def order(self, now_s: float) -> Iterator[tuple[int, str]]:
        """Index and id of every item to try, the first to try first."""
        overview = self._catalogue.overview
        if overview is not self._overview:
            # Others go on with what was drawn before: not all shall draw the same again.
            self._overview = overview
            await self._draw(overview, now_s)
        order = map(self._named.__getitem__, next(self._orders))
        return ((item, name) for item, name in order if name is not None)

    async def _draw(self, overview: SharedState, now_s: float) -> None:
        new = overview.tops["new"]
        stats = await self._catalogue.stats(new, now_s)
        young = (overview.clock_s - stats["first"] < AGE_S) & (stats["events"] < EVENTS)
        items, events = new[young].tolist(), stats["events"][young].astype(np.float64)
        shown = np.array([overview.tried.get(item, 0) for item in items], np.float64)
        names = await self._catalogue.names.of(items)
        orders = [
            thompson_order(events, shown, len(items), self._rng).tolist() for _ in range(ORDERS)
        ]
        self._named, self._orders = list(zip(items, names, strict=True)), itertools.cycle(orders)
