"""Scores as answers show them, and the score of a trend."""

from __future__ import annotations

import numpy as np

from models import layout
from models.retrieval import Floats


def relative(scores: Floats) -> Floats:
    """Scores as shares of the greatest; none below 0.

    >>> relative(np.array([4.0, 1.0, -2.0])).tolist()
    [1.0, 0.25, 0.0]
    """
    shares: Floats = np.maximum(scores, 0.0) / max(float(scores.max(initial=0.0)), 1e-12)
    return shares


def softmax(scores: Floats) -> Floats:
    """Scores as shares of one; ``(n,)``."""
    if not len(scores):
        return scores
    odds = np.exp(scores - scores.max())
    shares: Floats = odds / odds.sum()
    return shares


def trend_scores(log2: Floats, clock_s: float) -> Floats:
    """How much the rate of events of the last hour exceeds that of the last day, events an hour.

    Parameters
    ----------
    log2
        ``(n, 4)`` forward-decayed popularities by hour, day, week and month.
    """
    counts = np.exp2(log2 - (clock_s - layout.EPOCH) * layout.POPULARITY_RATES)
    hours = np.array(list(layout.POPULARITY_HALF_LIVES_S.values())) / 3600.0
    rates = counts / hours
    # The week breaks ties among items with no event of late, so that a quiet shop has an order.
    trend: Floats = rates[:, 0] - rates[:, 1] + 1e-3 * rates[:, 2]
    return trend
