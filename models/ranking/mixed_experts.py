"""Mixtures of experts, each with a probability for every candidate; their weights are learned.

Each of a few weightings is believed as much as it has predicted the choices so far (Vovk 1990,
"Aggregating strategies"): an expert that predicts badly loses its weight within some ten choices.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.arrays import Floats

MEMORY = 1.0 - 1.0 / 2000.0
"""Share of the evidence that is kept at each further choice: people may change."""

LEAST_CHANCE = 1e-300
"""Instead of a probability of 0, whose logarithm is not finite."""


def shares_of_two(shares: Sequence[float]) -> Floats:
    """Weightings of two experts, ``(n, 2)``, by the weight of the first.

    >>> shares_of_two([0.0, 0.25]).tolist()
    [[0.0, 1.0], [0.25, 0.75]]
    """
    first = np.array(shares)
    return np.stack([first, 1.0 - first], axis=1)


def weighed(evidence: Floats, weightings: Floats, chances: Sequence[float]) -> Floats:
    """The evidence after one more choice.

    Parameters
    ----------
    evidence
        ``(n,)`` logarithms of how much each weighting is believed; only differences count.
    weightings
        ``(n, experts)`` weights that are tried; each row sums to 1.
    chances
        Probability of the item that was taken, by each expert.
    """
    mixture = weightings @ np.array(chances)
    evidence = MEMORY * evidence + np.log(np.maximum(mixture, LEAST_CHANCE))
    relative: Floats = evidence - evidence.max()
    return relative


def weights_of(evidence: Floats, weightings: Floats) -> Floats:
    """Weight of each expert: the mean of the weightings by what speaks for each; sums to 1.

    >>> tried = shares_of_two([0.0, 0.5, 1.0])
    >>> weights_of(np.zeros(3), tried).tolist()
    [0.5, 0.5]
    >>> weights_of(weighed(np.zeros(3), tried, (0.1, 0.3)), tried).round(2).tolist()
    [0.33, 0.67]
    """
    belief = np.exp(evidence - evidence.max())
    weights: Floats = belief / belief.sum() @ weightings
    return weights
