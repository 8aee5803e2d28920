"""Prequential evaluation: every choice is predicted first and learned after, so it measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

K = 20
WINDOW = 2000
"""Choices that the running means look back on, about."""

LEAD_AFTER = 300
"""Choices before the learned order may be served at all."""


def measures_of(rank: int) -> dict[str, float]:
    """Hit, reciprocal rank and discounted gain within the first `K`; rank 0 is a miss.

    >>> measures_of(2)["mrr"]
    0.5
    """
    hit = 1 <= rank <= K
    return {
        "hr": float(hit),
        "mrr": 1.0 / rank if hit else 0.0,
        "ndcg": 1.0 / math.log2(rank + 1) if hit else 0.0,
    }


@dataclass
class Scoreboard:
    """Running means of HR@20, MRR@20 and NDCG@20 of every rival, on the same choices."""

    n: int = 0
    means: dict[str, dict[str, float]] = field(default_factory=dict)

    def update(self, ranks: Mapping[str, int]) -> None:
        """Count one choice, by the rank each rival gave it."""
        self.n += 1
        rate = max(1.0 / WINDOW, 1.0 / self.n)
        for name, rank in ranks.items():
            means = self.means.setdefault(name, {"hr": 0.0, "mrr": 0.0, "ndcg": 0.0})
            for measure, value in measures_of(rank).items():
                means[measure] += rate * (value - means[measure])

    def serving(self) -> str:
        """Which order to serve: the learned one while it is not behind the blend."""
        if self.n < LEAD_AFTER:
            return "blend"
        return "ranker" if self.means["ranker"]["mrr"] >= self.means["blend"]["mrr"] else "blend"
