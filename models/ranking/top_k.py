"""Scores as answers show them, and the score of a trend."""

from __future__ import annotations

import math

import numpy as np
from numba import b1, f8, i8
from numba.types import Tuple

from models.arrays import Floats, Indexes
from models.machine_code import compiled
from models.retrieval.candidates import LEAST, best_places
from models.state import layout


def scaled_to_max(scores: Floats) -> Floats:
    """Scores as shares of the greatest, in the same order; from the least up if that is negative.

    >>> scaled_to_max(np.array([4.0, 1.0, 0.5])).tolist()
    [1.0, 0.25, 0.125]
    >>> scaled_to_max(np.array([-1.0, -3.0, -5.0])).tolist()
    [1.0, 0.5, 0.0]
    """
    lifted = scores - min(float(scores.min(initial=0.0)), 0.0)
    shares: Floats = lifted / max(float(lifted.max(initial=0.0)), LEAST)
    return shares


@compiled(f8[::1](f8[::1]))
def softmax(scores: Floats) -> Floats:
    """Scores as shares of one; ``(n,)``."""
    shares = np.empty(len(scores))
    greatest = -np.inf
    for score in scores:
        greatest = max(greatest, score)
    total = 0.0
    for place in range(len(scores)):
        shares[place] = math.exp(scores[place] - greatest)
        total += shares[place]
    return shares / total


@compiled(Tuple((i8[::1], f8[::1], b1))(i8[::1], f8[::1], i8))
def top_k(items: Indexes, scores: Floats, k: int) -> tuple[Indexes, Floats, bool]:
    """The k items with the best scores, and more that equal the k-th best; and those scores.

    The last says whether any of them are equal.
    """
    places = best_places(scores, k, len(scores))
    places = places[np.argsort(-scores[places], kind="mergesort")]
    best = scores[places]
    return items[places], best, bool(np.any(best[1:] == best[:-1]))


@compiled(Tuple((i8[::1], f8[::1], b1))(i8[::1], f8[::1], i8))
def softmax_top_k(items: Indexes, scores: Floats, k: int) -> tuple[Indexes, Floats, bool]:
    """`top_k` of the scores as shares of one: in one call, for each takes microseconds."""
    return top_k(items, softmax(scores), k)


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
