"""Own items at the beginning of a moment: a mixture of how often they were taken and the ranker.

Where people take the same again, as in a grocery, how often they took it says more than all else;
but few choices begin a basket, and the ranker would need tens of thousands to find that. So a
request that begins a moment is answered by two experts, each with a probability for every
candidate: one has the user's own items by their feature `again`, the other has the learned scores.
The weight of the first is learned, see `models.ranking.mixed_experts`. It falls to nothing within
some ten choices where nobody takes anything again, and where the ranker knows better by itself.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import f8

from models.arrays import Floats
from models.machine_code import compiled
from models.ranking.mixed_experts import LEAST_CHANCE, shares_of_two, weights_of

WEIGHTINGS = shares_of_two([0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
"""Weights that are tried, of either expert."""


class Chances(NamedTuple):
    """Probability of the item that was taken, by either expert.

    Attributes
    ----------
    again, ranker
        By how often it was taken, and by the ranker.
    """

    again: float
    ranker: float


def _softmax(scores: Floats) -> Floats:
    odds = np.exp(scores - scores.max())
    probabilities: Floats = odds / odds.sum()
    return probabilities


@compiled(f8[::1](f8[::1], f8[:], f8))
def mixed_scores(scores: Floats, again: Floats, share: float) -> Floats:
    """Logarithms of the candidates' probabilities by both experts; some 10 µs at 300 candidates.

    Parameters
    ----------
    scores
        ``(n,)`` of the ranker, log-odds.
    again
        ``(n,)`` the feature `again`, above 0 for one candidate at least.
    share
        Weight of the first expert.

    >>> mixed_scores(np.zeros(2), np.array([0.0, 1.0]), 0.5).round(2).tolist()
    [-1.39, -0.29]
    """
    odds: Floats = np.exp(scores - scores.max())
    of_again, of_ranker = share / again.sum(), (1.0 - share) / odds.sum()
    for at in range(len(odds)):
        mixture = of_again * again[at] + of_ranker * odds[at]
        odds[at] = math.log(max(mixture, LEAST_CHANCE))
    return odds


def chances_of(scores: Floats, again: Floats, place: int) -> Chances:
    """Probability of the candidate at a place by either expert; arguments of `mixed_scores`."""
    return Chances(float(again[place] / again.sum()), float(_softmax(scores)[place]))


def share_of(evidence: Floats) -> float:
    """Weight of the first expert, by the evidence of `mixed_experts.weighed`; all 0 at first.

    >>> from models.ranking.mixed_experts import weighed
    >>> evidence = np.zeros(len(WEIGHTINGS))
    >>> round(share_of(evidence), 2)
    0.27
    >>> round(share_of(weighed(evidence, WEIGHTINGS, Chances(again=0.0, ranker=0.1))), 2)
    0.21
    """
    return float(weights_of(evidence, WEIGHTINGS)[0])
