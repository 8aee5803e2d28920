"""Influences on an order beside the ranker's: popularity, freshness, or a property of items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.arrays import Floats
from models.retrieval.signals import TINY


def with_influences(scores: Floats, influences: Sequence[tuple[float, Floats]]) -> Floats:
    """Scores of candidates mixed with other values of them, in the scores' own scale; ``(n,)``.

    All are compared by how far they are from their mean, in standard deviations. With the weight 1
    only the values count, with 0 only the scores.

    Parameters
    ----------
    influences
        Weights from -1 to 1, and ``(n,)`` values each; weights whose sizes add up to more than 1
        are divided by the sum.

    Examples
    --------
    >>> prices = np.array([1.0, 2.0, 9.0])
    >>> int(with_influences(np.array([3.0, 2.0, 1.0]), [(1.0, prices)]).argmax())
    2
    >>> int(with_influences(np.array([3.0, 2.0, 1.0]), [(0.0, prices)]).argmax())
    0
    """
    total = sum(abs(weight) for weight, _ in influences)
    if not total or not len(scores):
        return scores
    divisor = max(1.0, total)
    mixed = (1.0 - total / divisor) * _standardized(scores)
    for weight, values in influences:
        mixed += weight / divisor * _standardized(values)
    spread = float(scores.std()) or 1.0
    rescaled: Floats = scores.mean() + spread * mixed
    return rescaled


def _standardized(values: Floats) -> Floats:
    """Distances from the mean in standard deviations; 0 where a value is unknown (NaN)."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values))
    distances: Floats = (values - known.mean()) / max(float(known.std()), TINY)
    return np.nan_to_num(distances, nan=0.0, posinf=0.0, neginf=0.0)
