"""Heads of the top lists in the order of somebody who knows none of them, and of whom nobody knows.

To such a user they rank among themselves as to every other whose context is as long and as old, so
that only the first of them can come into an answer: they are not put in order for each request.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.arrays import Floats, Indexes
from models.ranking.features import STEPS, features_of
from models.ranking.ranker import Objective
from models.retrieval.candidates import N_SIGNALS, Candidates
from models.retrieval.profile import profile_of
from models.serving.cache import SharedState, StateCache
from models.state.histories import NO_HISTORY


class PreRanked(NamedTuple):
    """The heads of an overview, by their ids, and the features that a stranger would give them."""

    overview: SharedState
    items: Indexes
    matrix: Floats


class TopListOrder:
    """The heads in the order that is served, renewed when what is known of them was read anew.

    What a request says of all candidates (`steps_of`) takes few values: there is an order for each
    of them that was met.
    """

    def __init__(self, catalogue: StateCache) -> None:
        self._catalogue = catalogue
        self._heads: PreRanked | None = None
        self._orders: dict[tuple[Objective, tuple[float, float]], Indexes] = {}

    async def order(
        self, overview: SharedState, objective: Objective, steps: tuple[float, float], now_s: float
    ) -> Indexes:
        """``(n,)`` distinct items, best first; of equal ones by their ids."""
        heads = self._heads
        if heads is None or heads.overview is not overview:
            heads = self._heads = await self._read(overview, now_s)
            self._orders = {}
        order = self._orders.get((objective, steps))
        if order is None:
            matrix = heads.matrix.copy()
            matrix[:, STEPS:] = steps
            scores = overview.order(objective).scores(matrix)
            order = heads.items[np.argsort(-scores, kind="stable")]
            self._orders[objective, steps] = order
        return order

    async def _read(self, overview: SharedState, now_s: float) -> PreRanked:
        items = np.unique(overview.heads)
        names = await self._catalogue.names.of(items.tolist())
        items = items[sorted(range(len(items)), key=lambda at: names[at] or "")]
        stats = await self._catalogue.stats(items, now_s)
        nothing = Candidates(items, np.zeros((len(items), N_SIGNALS)))
        nobody = profile_of(NO_HISTORY, overview.strong)
        matrix = features_of(nothing, nobody, stats, overview.best, overview.clock_s)
        return PreRanked(overview, items, matrix)
