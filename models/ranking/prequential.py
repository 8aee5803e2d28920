"""Prequential evaluation: every choice is predicted first and learned after, so it measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.ranking.examples import Example
from models.ranking.ranker import Ranker

K = 20
WINDOW = 2000
"""Choices that the running means look back on, about."""

RECENT = 200
"""Choices that the guard looks back on, about: a fall is seen long before the means show it."""

ALIKE_GAIN = 1.01
"""Those alike are looked for while that lifts the learned order's MRR at least so many times: it
costs two reads a recommendation."""

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
    """Running means of HR@20, MRR@20 and NDCG@20 of every rival, on the same choices.

    Attributes
    ----------
    n, behind
        Choices in all, and how many of the last in a row found the learned order not to be served.
    lead, spread
        Recent mean of the learned order's reciprocal rank less the blend's, and of its square.
    """

    n: int = 0
    means: dict[str, dict[str, float]] = field(default_factory=dict)
    behind: int = 0
    lead: float = 0.0
    spread: float = 0.0

    def update(self, ranks: Mapping[str, int]) -> None:
        """Count one choice, by the rank each rival gave it."""
        self.n += 1
        rate = max(1.0 / WINDOW, 1.0 / self.n)
        for name, rank in ranks.items():
            means = self.means.setdefault(name, {"hr": 0.0, "mrr": 0.0, "ndcg": 0.0})
            for measure, value in measures_of(rank).items():
                means[measure] += rate * (value - means[measure])
        ahead = (
            measures_of(ranks.get("ranker", 0))["mrr"] - measures_of(ranks.get("blend", 0))["mrr"]
        )
        self.lead += (ahead - self.lead) / RECENT
        self.spread += (ahead**2 - self.spread) / RECENT
        self.behind = self.behind + 1 if self.serving() == "blend" else 0

    def serving(self) -> str:
        """Which order to serve: the learned one while it is not behind the blend.

        Behind is by the means, or lately by twice the standard error of an exponential mean. The
        learned one is "ranker", or "ranker-alone" where those alike do not pay.
        """
        if self.n < LEAD_AFTER or self.lead < -2.0 * math.sqrt(self.spread / (2 * RECENT)):
            return "blend"
        ranker, alone, blend = (
            self.means.get(name, {}).get("mrr", 0.0) for name in ("ranker", "ranker-alone", "blend")
        )
        if ranker < blend:
            return "blend"
        return "ranker" if ranker >= ALIKE_GAIN * alone else "ranker-alone"


def evaluate_then_learn(
    ranker: Ranker, scoreboard: Scoreboard, example: Example, ranks: Mapping[str, int]
) -> Ranker:
    """Measure a choice by its ranks, if it has any, then learn it; gives the ranker to go on with.

    That is a new one where this one has been behind the blend for a whole window: whatever spoiled
    it, to learn from the blend on is quicker than to unlearn with steps that grow ever smaller.
    """
    if ranks:
        scoreboard.update(ranks)
    if scoreboard.behind > WINDOW:
        scoreboard.behind = 0
        ranker = Ranker()
    return ranker.learn_one(example.matrix(), 0) if example.rows else ranker
