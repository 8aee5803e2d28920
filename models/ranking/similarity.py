"""The order of similar items: a mixture of co-visitation and of item factors.

Factors say what goes together over whole histories, smoothed; co-visitation what comes next. Which
of both finds what people take next differs from shop to shop: where histories are short searches,
factors are noise; where people collect, they find more. So either is an expert with a probability
for every candidate, and choices of the shop's users teach the weights by how likely the item was
that followed their last one, see `models.ranking.mixed_experts`.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.arrays import Floats
from models.ranking.mixed_experts import shares_of_two, weighed, weights_of
from models.retrieval.candidates import Candidates
from models.retrieval.signals import FACTORS, blend

WEIGHTINGS = shares_of_two([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
"""Weights that are tried, of factors and of co-visitation."""

START = -10.0 * WEIGHTINGS[:, 0]
"""Evidence before the first choice: for co-visitation, about as much as ten choices can say."""

CO_VISITED_POWER = 0.5
"""Power of the blend of co-visitation that its probabilities are proportional to."""

CHANCE_SHARE = 0.01
"""Share of either expert's probability that all candidates have alike: none is impossible."""


class SimilarityChances(NamedTuple):
    """Probability of the item that was taken, by either expert.

    Attributes
    ----------
    factors, co_visited
        By the similarity of factors, and by co-visitation.
    """

    factors: float
    co_visited: float


def _probabilities(candidates: Candidates) -> tuple[Floats, Floats] | None:
    """Probabilities by factors and by co-visitation; None where one of them knows nothing."""
    near = candidates.signals[:, FACTORS]
    together = blend(candidates.signals) ** CO_VISITED_POWER
    n, of_near, of_together = len(near), near.sum(), together.sum()
    if not (of_near > 0.0 and of_together > 0.0):
        return None
    spread, kept = CHANCE_SHARE / n, 1.0 - CHANCE_SHARE
    return kept / of_near * near + spread, kept / of_together * together + spread


def similarity(candidates: Candidates, evidence: Floats) -> Floats:
    """Scores of similar items, ``(n,)``, log-odds; by co-visitation where factors know nothing.

    Parameters
    ----------
    candidates
        As `models.retrieval.similar_items.with_similar_factors` gives them.
    evidence
        Of the weights, as choices taught it; `START` at first.
    """
    found = _probabilities(candidates)
    if found is None:
        return blend(candidates.signals) + candidates.signals[:, FACTORS]
    by_factors, by_pairs = weights_of(evidence, WEIGHTINGS)
    scores: Floats = np.log(by_factors * found[0] + by_pairs * found[1])
    return scores


def chances_of(candidates: Candidates, taken: int) -> SimilarityChances | None:
    """Evidence of a choice after an item about its similar items; None where it says nothing.

    Candidates as in `similarity`, of the user's last item; `taken` is the index of the next one.
    """
    places = np.flatnonzero(candidates.items == taken)
    found = _probabilities(candidates) if len(places) else None
    if found is None:
        return None
    place = int(places[0])
    return SimilarityChances(float(found[0][place]), float(found[1][place]))


def taught(evidence: Floats, chances: SimilarityChances) -> Floats:
    """The evidence after one more choice.

    >>> evidence = START
    >>> for _ in range(40):
    ...     evidence = taught(evidence, SimilarityChances(factors=0.02, co_visited=0.01))
    >>> before, after = weights_of(START, WEIGHTINGS), weights_of(evidence, WEIGHTINGS)
    >>> bool(before[0] < 0.1 and after[0] > 0.6)
    True
    """
    return weighed(evidence, WEIGHTINGS, chances)
