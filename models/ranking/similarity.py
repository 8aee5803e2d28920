"""The order of similar items: a mixture of co-visitation and of item factors.

Factors say what goes together over whole histories, smoothed; co-visitation what comes next. Which
of both finds what people take next differs from shop to shop: where histories are short searches,
factors are noise; where people collect, they find more. So either is an expert with a probability
for every candidate, and choices of the shop's users teach the weights by how likely the item was
that followed their last one, see `models.ranking.mixed_experts`.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import f8

from models.arrays import Floats
from models.machine_code import compiled
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


@compiled(f8[::1](f8[:, ::1], f8))
def _mixed_scores(signals: Floats, share: float) -> Floats:
    """Logarithms of the mixed probabilities; none where one of both experts knows nothing."""
    scores, n = blend(signals), len(signals)
    of_factors, of_pairs = 0.0, 0.0
    for at in range(n):
        scores[at] = scores[at] ** CO_VISITED_POWER
        of_factors += signals[at, FACTORS]
        of_pairs += scores[at]
    if not (of_factors > 0.0 and of_pairs > 0.0):
        return scores[:0]
    of_factors = (1.0 - CHANCE_SHARE) * share / of_factors
    of_pairs = (1.0 - CHANCE_SHARE) * (1.0 - share) / of_pairs
    for at in range(n):
        mixture = of_factors * signals[at, FACTORS] + of_pairs * scores[at]
        scores[at] = math.log(mixture + CHANCE_SHARE / n)
    return scores


def similarity(candidates: Candidates, evidence: Floats) -> Floats:
    """Scores of similar items, ``(n,)``, log-odds; by co-visitation where factors know nothing.

    Some 8 µs at 250 candidates.

    Parameters
    ----------
    candidates
        As `models.retrieval.similar_items.with_similar_factors` gives them.
    evidence
        Of the weights, as choices taught it; `START` at first.
    """
    share = float(weights_of(evidence, WEIGHTINGS)[0])
    scores: Floats = _mixed_scores(candidates.signals, share)
    if not len(scores):
        return blend(candidates.signals) + candidates.signals[:, FACTORS]
    return scores


def chances_of(candidates: Candidates, taken: int) -> SimilarityChances | None:
    """Evidence of a choice after an item about its similar items; None where it says nothing.

    Candidates as in `similarity`, of the user's last item; `taken` is the index of the next one.
    """
    places = np.flatnonzero(candidates.items == taken)
    if not len(places):
        return None
    by_factors, by_pairs = (_mixed_scores(candidates.signals, share) for share in (1.0, 0.0))
    if not len(by_factors):
        return None
    place = int(places[0])
    return SimilarityChances(math.exp(by_factors[place]), math.exp(by_pairs[place]))


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
