"""Prequential evaluation online: each example is ranked by all rankers first, and learned after."""

from __future__ import annotations

import math
from collections.abc import Mapping

from models.ranking.champions import Measures
from models.ranking.examples import Example
from models.ranking.ranker import RANKERS, ListwiseRanker

CUTOFF = 20
WINDOW = 2000
"""Window of the running means, in examples."""

LEAD_WINDOW = 200
"""Window of the guard, in examples: it sees a fall long before the running means do."""

MIN_GAIN = 1.01
"""Factor by which a ranker with more cost must exceed the one without it, in MRR: user
k-NN, for which HR counts, too, costs two reads a recommendation."""

MIN_EXAMPLES_TO_SERVE = 300
"""Examples before the learned ranker may serve at all."""


def measures_of(rank: int) -> dict[str, float]:
    """Hit, reciprocal rank and discounted gain within the first `CUTOFF`; rank 0 is a miss.

    >>> measures_of(2)["mrr"]
    0.5
    """
    hit = 1 <= rank <= CUTOFF
    return {
        "hr": float(hit),
        "mrr": 1.0 / rank if hit else 0.0,
        "ndcg": 1.0 / math.log2(rank + 1) if hit else 0.0,
    }


class Scoreboard(Measures, rename={"losing_streak": "behind", "squared_lead": "spread"}):
    """Measures of all compared rankers, and what else decides which of them serves.

    Attributes
    ----------
    losing_streak
        Examples in a row, up to the last, after which the blend was champion.
    lead, squared_lead
        Recent means of the learned ranker's reciprocal rank less the blend's, and of its square.
    """

    losing_streak: int = 0
    lead: float = 0.0
    squared_lead: float = 0.0

    def update(self, ranks: Mapping[str, int]) -> None:
        """Count one example, by the rank that each ranker gave to the taken item."""
        self.n += 1
        rate = max(1.0 / WINDOW, 1.0 / self.n)
        for name, rank in ranks.items():
            means = self.means.setdefault(name, {"hr": 0.0, "mrr": 0.0, "ndcg": 0.0})
            for measure, value in measures_of(rank).items():
                means[measure] += rate * (value - means[measure])
        lead = (
            measures_of(ranks.get("ranker", 0))["mrr"] - measures_of(ranks.get("blend", 0))["mrr"]
        )
        self.lead += (lead - self.lead) / LEAD_WINDOW
        self.squared_lead += (lead**2 - self.squared_lead) / LEAD_WINDOW
        self.losing_streak = self.losing_streak + 1 if self.champion() == "blend" else 0

    def champion(self) -> str:
        """Name of the ranker to serve, of `RANKERS`.

        "blend" while the learned ranker is behind it, by the running means or, lately, by two
        standard errors of an exponential mean. Otherwise "ranker", or "ranker-alone" where user
        k-NN pays neither in MRR nor in HR. A further ranker in `RANKERS` is
        champion if its MRR exceeds that one's by `MIN_GAIN`.
        """
        lead_error = math.sqrt(self.squared_lead / (2 * LEAD_WINDOW))
        if self.n < MIN_EXAMPLES_TO_SERVE or self.lead < -2.0 * lead_error:
            return "blend"
        mrr = {name: self.means.get(name, {}).get("mrr", 0.0) for name in RANKERS}
        if mrr["ranker"] < mrr["blend"]:
            champion = "blend"
        elif mrr["ranker"] >= MIN_GAIN * mrr["ranker-alone"] or self._has_more_hits():
            champion = "ranker"
        else:
            champion = "ranker-alone"
        built_in = ("ranker", "ranker-alone", "blend")
        further = {name: value for name, value in mrr.items() if name not in built_in}
        best = max(further, key=further.__getitem__, default=champion)
        return best if mrr[best] > MIN_GAIN * mrr[champion] else champion

    def _has_more_hits(self) -> bool:
        hits = [self.means.get(name, {}).get("hr", 0.0) for name in ("ranker", "ranker-alone")]
        return hits[0] > MIN_GAIN * hits[1]


def evaluate_then_learn(
    ranker: ListwiseRanker, scoreboard: Scoreboard, example: Example, ranks: Mapping[str, int]
) -> ListwiseRanker:
    """Measure an example by its ranks, if any, then learn it; returns the ranker to continue with.

    A new one if this one has lost to the blend for a whole window: learning again from the blend is
    quicker than unlearning with AdaGrad's ever smaller steps.
    """
    if ranks:
        scoreboard.update(ranks)
    if scoreboard.losing_streak > WINDOW:
        scoreboard.losing_streak = 0
        ranker = ListwiseRanker(similarity_evidence=ranker.similarity_evidence)
    return ranker.learn_one(example.matrix(), 0) if example.rows else ranker
