"""New items to try, so that they get their chance: which, and in which order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from models import layout
from models.assortment import drawn
from models.catalogue import Catalogue, Overview

EVENTS, AGE_S = 20, 30 * layout.DAY_S
"""An item is tried until it has so many events, or has been there for so long."""

ORDERS = 16
"""Orders drawn at a time."""

Order = list[tuple[int, str]]


class Trials:
    """Orders to try the new items in, drawn when what is known of them has been read anew.

    Requests take turns with the orders: to draw one takes as long as to rank the candidates.
    """

    def __init__(self, catalogue: Catalogue, rng: np.random.Generator) -> None:
        self._catalogue = catalogue
        self._rng = rng
        self._overview: Overview | None = None
        self._orders: Iterator[Order] = itertools.repeat([])

    async def order(self, now_s: float) -> Order:
        """Index and id of every item to try, the first to try first."""
        overview = self._catalogue.overview
        if overview is not self._overview:
            # Others go on with what was drawn before: not all shall draw the same again.
            self._overview = overview
            self._orders = itertools.cycle(await self._drawn(overview, now_s))
        return next(self._orders)

    async def _drawn(self, overview: Overview, now_s: float) -> list[Order]:
        new = overview.tops["new"]
        stats = await self._catalogue.stats(new, now_s)
        young = (overview.clock_s - stats["first"] < AGE_S) & (stats["events"] < EVENTS)
        items, events = new[young].tolist(), stats["events"][young].astype(np.float64)
        shown = np.array([overview.tried.get(item, 0) for item in items], np.float64)
        names = await self._catalogue.names(items)
        named = list(zip(items, names, strict=True))
        orders = (drawn(events, shown, len(items), self._rng).tolist() for _ in range(ORDERS))
        return [
            [(item, name) for item, name in map(named.__getitem__, order) if name is not None]
            for order in orders
        ]
