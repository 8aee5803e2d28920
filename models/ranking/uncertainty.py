"""Uncertainty of the learned ranker: rankers drawn from what it may still become.

A Bayesian last layer: the weights that are added up to a score are uncertain, the hidden units are
taken as they are. AdaGrad keeps the sum of squared gradients of each weight, which is the diagonal
of the empirical Fisher information; the Laplace approximation (MacKay 1992, "A practical Bayesian
framework for backpropagation networks") takes it for the precision of the weight. So a drawn ranker
costs neither state nor learning, and differs less from the mean the more was learned.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.arrays import Floats, Indexes
from models.ranking.ranker import HIDDEN_UNITS, ListwiseRanker, layers_of

HEADS = 8
"""Rankers drawn at a time: each has one vote about what to explore."""

PRIOR_PRECISION = 10.0
"""Precision of a weight that nothing was learned of; features are standardised."""


class DrawnHeads(NamedTuple):
    """Last layers drawn from the ranker's uncertainty, as deviations from it, on raw features.

    Attributes
    ----------
    hidden_weights, hidden_bias
        Of the ranker itself, ``(HIDDEN_UNITS, N_FEATURES)`` and ``(HIDDEN_UNITS,)``.
    linear, output
        Deviations of each head from the ranker, ``(heads, N_FEATURES)`` and
        ``(heads, HIDDEN_UNITS)``.
    """

    hidden_weights: Floats
    hidden_bias: Floats
    linear: Floats
    output: Floats

    def deviations(self, matrix: Floats) -> Floats:
        """Score of each row by each head, less that by the ranker; ``(n, heads)``.

        Up to a number that all rows of a head have in common, which changes no order.
        """
        hidden = np.maximum(matrix @ self.hidden_weights.T + self.hidden_bias, 0.0)
        found: Floats = matrix @ self.linear.T + hidden @ self.output.T
        return found


def drawn_heads(ranker: ListwiseRanker, rng: np.random.Generator, n: int = HEADS) -> DrawnHeads:
    """Last layers drawn from the posterior of the ranker's; some 30 µs."""
    squares = layers_of(ranker.squared_gradients)
    linear = rng.normal(size=(n, len(squares.weights))) / np.sqrt(PRIOR_PRECISION + squares.weights)
    output = rng.normal(size=(n, HIDDEN_UNITS)) / np.sqrt(PRIOR_PRECISION + squares.output_weights)
    folded = ranker.folded_weights
    return DrawnHeads(
        folded.input_weights[:HIDDEN_UNITS], folded.hidden_bias, linear / ranker.deviation(), output
    )


def votes(heads: DrawnHeads, matrix: Floats, scores: Floats) -> Indexes:
    """Number of heads that have each row first; ``(n,)``, it adds up to the number of heads.

    Parameters
    ----------
    matrix
        Features of the candidates among which the heads choose, ``(n, N_FEATURES)``, n > 0.
    scores
        ``(n,)`` final scores, with what was added to the ranker's.
    """
    firsts = np.argmax(scores[:, None] + heads.deviations(matrix), axis=0)
    return np.bincount(firsts, minlength=len(scores))
