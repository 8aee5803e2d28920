"""The ranker's layers as serving needs them: applied to raw features, in machine code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import f8

from models.arrays import Floats
from models.machine_code import compiled
from models.ranking import returns
from models.ranking.features import AGAIN, N_FEATURES

HIDDEN_UNITS = 16
"""Units of the hidden layer, a multiple of four. Decision 13 measures other sizes."""


class FoldedWeights(NamedTuple):
    """Layers with the standardisation of features folded in: they apply to raw features.

    Attributes
    ----------
    input_weights
        ``(HIDDEN_UNITS + 1, N_FEATURES)`` of each hidden unit and, in the last row, of the linear
        part.
    hidden_bias, output_weights
        ``(HIDDEN_UNITS,)``.
    """

    input_weights: Floats
    hidden_bias: Floats
    output_weights: Floats


@compiled(f8[::1](f8[:, ::1], f8[:, ::1], f8[::1], f8[::1]), any_order=True)
def layer_scores(
    matrix: Floats, input_weights: Floats, hidden_bias: Floats, output_weights: Floats
) -> Floats:
    """Scores of candidates by the layers; ``(n,)``."""
    # Not by BLAS, which is no faster at this size and gives equal rows different last digits
    # (decision 13).
    scores = np.empty(len(matrix))
    for at in range(len(matrix)):
        score = 0.0
        for column in range(N_FEATURES):
            score += matrix[at, column] * input_weights[HIDDEN_UNITS, column]
        for unit in range(0, HIDDEN_UNITS, 4):
            # Four units at a time: four independent sums keep the processor's pipeline full.
            first, second, third, fourth = hidden_bias[unit : unit + 4]
            for column in range(N_FEATURES):
                number = matrix[at, column]
                first += number * input_weights[unit, column]
                second += number * input_weights[unit + 1, column]
                third += number * input_weights[unit + 2, column]
                fourth += number * input_weights[unit + 3, column]
            score += max(first, 0.0) * output_weights[unit]
            score += max(second, 0.0) * output_weights[unit + 1]
            score += max(third, 0.0) * output_weights[unit + 2]
            score += max(fourth, 0.0) * output_weights[unit + 3]
        scores[at] = score
    return scores


@compiled(f8[::1](f8[:, ::1], f8[:, ::1], f8[::1], f8[::1], f8))
def scores_with_returns(
    matrix: Floats,
    input_weights: Floats,
    hidden_bias: Floats,
    output_weights: Floats,
    share: float,
) -> Floats:
    """The same, mixed with `returns` where a row has `again`; `share` is the weight of those."""
    scores = layer_scores(matrix, input_weights, hidden_bias, output_weights)
    for at in range(len(matrix)):
        if matrix[at, AGAIN] != 0.0:
            return returns.mixed_scores(scores, matrix[:, AGAIN], share)
    return scores
