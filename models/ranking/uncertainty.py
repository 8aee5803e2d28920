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
from numba import f8, i8
from numba.types import Tuple

from models.arrays import Floats, Indexes
from models.machine_code import compiled
from models.ranking.folded_weights import HIDDEN_UNITS
from models.ranking.ranker import ListwiseRanker, layers_of

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

    def deviations(self, rows: Floats) -> Floats:
        """Score of each row by each head, less that by the ranker; ``(n, heads)``.

        Up to a number that all rows of a head have in common, which changes no order.
        """
        found: Floats = _deviations(rows, *self)
        return found


@compiled(f8[:, ::1](f8[:, ::1], f8[:, ::1], f8[::1], f8[:, ::1], f8[:, ::1]), any_order=True)
def _deviations(
    rows: Floats, hidden_weights: Floats, hidden_bias: Floats, linear: Floats, output: Floats
) -> Floats:
    found, n_columns = np.zeros((len(rows), len(linear))), rows.shape[1]
    for at in range(len(rows)):
        for head in range(len(linear)):
            for column in range(n_columns):
                found[at, head] += rows[at, column] * linear[head, column]
        for unit in range(len(hidden_bias)):
            number = hidden_bias[unit]
            for column in range(n_columns):
                number += rows[at, column] * hidden_weights[unit, column]
            if number > 0.0:
                for head in range(len(linear)):
                    found[at, head] += number * output[head, unit]
    return found


@compiled(i8[::1](f8[:, ::1], f8[::1], f8[:, ::1], f8[::1], f8[:, ::1], f8[:, ::1]))
def _votes(
    rows: Floats,
    scores: Floats,
    hidden_weights: Floats,
    hidden_bias: Floats,
    linear: Floats,
    output: Floats,
) -> Indexes:
    deviations = _deviations(rows, hidden_weights, hidden_bias, linear, output)
    found = np.zeros(len(rows), np.int64)
    for head in range(len(linear)):
        first = 0
        for at in range(1, len(rows)):
            if scores[at] + deviations[at, head] > scores[first] + deviations[first, head]:
                first = at
        found[first] += 1
    return found


@compiled(Tuple((f8[:, ::1], f8[::1]))(i8[::1], f8[:, ::1], f8[::1], i8[::1]))
def rows_of(
    items: Indexes, matrix: Floats, scores: Floats, wanted: Indexes
) -> tuple[Floats, Floats]:
    """Features and scores of wanted items, ``(m, N_FEATURES)`` and ``(m,)``; all are in `items`."""
    rows, found = np.empty((len(wanted), matrix.shape[1])), np.empty(len(wanted))
    for at in range(len(wanted)):
        place = 0
        while place < len(items) - 1 and items[place] != wanted[at]:
            place += 1
        rows[at], found[at] = matrix[place], scores[place]
    return rows, found


def drawn_heads(ranker: ListwiseRanker, rng: np.random.Generator, n: int = HEADS) -> DrawnHeads:
    """Last layers drawn from the posterior of the ranker's; some 30 µs."""
    squares = layers_of(ranker.squared_gradients)
    linear = rng.normal(size=(n, len(squares.weights))) / np.sqrt(PRIOR_PRECISION + squares.weights)
    output = rng.normal(size=(n, HIDDEN_UNITS)) / np.sqrt(PRIOR_PRECISION + squares.output_weights)
    folded = ranker.folded_weights
    return DrawnHeads(
        folded.input_weights[:HIDDEN_UNITS], folded.hidden_bias, linear / ranker.deviation(), output
    )


def votes(heads: DrawnHeads, rows: Floats, scores: Floats) -> Indexes:
    """Number of heads that have each row first; ``(n,)``, it adds up to the number of heads.

    Some 5 µs for 16 rows.

    Parameters
    ----------
    rows
        Features of the candidates among which the heads choose, ``(n, N_FEATURES)``, n > 0.
    scores
        ``(n,)`` final scores, with what was added to the ranker's.
    """
    found: Indexes = _votes(rows, scores, *heads)
    return found
