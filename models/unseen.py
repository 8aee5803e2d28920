"""Heads of the top lists in the order of somebody who knows none of them, and of whom nobody knows.

To such a user they rank among themselves as to every other, so that only the first of them can come
into an answer: they are put in order once, and not for each request.
"""

from __future__ import annotations

import numpy as np

from models.catalogue import Catalogue, Overview
from models.context import context_of
from models.features import features_of
from models.ranking import Objective, Ranker
from models.retrieval import N_SIGNALS, Candidates
from models.sessions import NO_HISTORY
from models.tables import Indexes


class Unseen:
    """The heads in the order that is served, renewed when what is known of them was read anew."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._orders: dict[Objective, tuple[Overview, Indexes]] = {}

    async def order(self, overview: Overview, objective: Objective, now_s: float) -> Indexes:
        """``(n,)`` distinct items, best first; of equal ones by their ids."""
        held = self._orders.get(objective)
        if held is not None and held[0] is overview:
            return held[1]
        order = await self._ranked(overview, overview.order(objective), now_s)
        self._orders[objective] = overview, order
        return order

    async def _ranked(self, overview: Overview, ranker: Ranker, now_s: float) -> Indexes:
        heads = np.unique(overview.heads)
        stats = await self._catalogue.stats(heads, now_s)
        nothing = Candidates(heads, np.zeros((len(heads), N_SIGNALS)))
        nobody = context_of(NO_HISTORY, overview.strong)
        matrix = features_of(nothing, nobody, stats, overview.best, overview.clock_s)
        scores = ranker.scores(matrix).tolist()
        names = await self._catalogue.names(heads.tolist())
        ranked = sorted(range(len(heads)), key=lambda at: (-scores[at], names[at] or ""))
        return heads[ranked]
