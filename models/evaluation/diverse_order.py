"""The recommender's order with a dial of diversity, as requests have it."""

from __future__ import annotations

import numpy as np

from models.arrays import Indexes
from models.evaluation.baselines import VARIANTS, RecommenderVariant, SharedRecommender
from models.evaluation.protocol import TOP, Scores
from models.serving.merchandising.ruled_answers import DIVERSE_CANDIDATES, diverse_places


class DiverseOrder(RecommenderVariant):
    """The served order, its best candidates reordered by maximal marginal relevance."""

    def __init__(self, live: SharedRecommender, diversity: float) -> None:
        super().__init__(live, VARIANTS["user-personalization"])
        self._diversity = diversity

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:
        """Scores that fall with the place of each candidate."""
        ranked = super().rank(user, at_s, barred)
        # Equal scores count against an order, which this one then has none of.
        best = ranked.items[np.lexsort((-ranked.items, -ranked.scores))]
        first = best[: DIVERSE_CANDIDATES * TOP]
        places = self._live.local.run(
            lambda recommender, now_s: diverse_places(
                recommender, [*map(str, first.tolist())], self._diversity, TOP, now_s
            )
        )
        items = np.concatenate([first[places], best[len(first) :]])
        return Scores(items, -np.arange(len(items), dtype=np.float64))
