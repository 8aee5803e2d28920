"""Selection of an answer's items: scores as shown, the top k with ties, and diversity caps.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numba import b1, f8, i8
from numba.types import Tuple

from models.arrays import Floats, Indexes
from models.machine_code import compiled
from models.retrieval.candidates import best_places
from models.retrieval.signals import TINY
from models.state import layout

CapGroup = tuple[str, str]
"""Property and value that a diversity cap counts, such as ("category", "tents")."""


def scaled_to_max(scores: Floats) -> Floats:
    """Scores divided by the greatest, in the same order; shifted to start at 0 if one is negative.

    >>> scaled_to_max(np.array([4.0, 1.0, 0.5])).tolist()
    [1.0, 0.25, 0.125]
    >>> scaled_to_max(np.array([-1.0, -3.0, -5.0])).tolist()
    [1.0, 0.5, 0.0]
    """
    shifted = scores - min(float(scores.min(initial=0.0)), 0.0)
    shares: Floats = shifted / max(float(shifted.max(initial=0.0)), TINY)
    return shares


@compiled(f8[::1](f8[::1]))
def softmax(scores: Floats) -> Floats:
    """Probabilities proportional to the exponentials of scores; ``(n,)``."""
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
    """The k items with the best scores and all ties with the k-th, and their scores, best first.

    The last value is True if any of these scores are equal.
    """
    places = best_places(scores, k, len(scores))
    places = places[np.argsort(-scores[places], kind="mergesort")]
    best = scores[places]
    return items[places], best, bool(np.any(best[1:] == best[:-1]))


@compiled(Tuple((i8[::1], f8[::1], b1))(i8[::1], f8[::1], i8))
def softmax_top_k(items: Indexes, scores: Floats, k: int) -> tuple[Indexes, Floats, bool]:
    """`top_k` of the softmax of scores, in one call: each call costs microseconds."""
    return top_k(items, softmax(scores), k)


def trend_scores(log2: Floats, clock_s: float, *, by_day: bool = False) -> Floats:
    """Events an hour in the last hour, less those in the last day; ``(n,)``.

    `by_day`: in the last day, less those in the last week.

    Parameters
    ----------
    log2
        ``(n, 4)`` forward-decayed popularities by hour, day, week and month.
    """
    counts = np.exp2(log2 - (clock_s - layout.EPOCH) * layout.POPULARITY_RATES)
    hours = np.array(list(layout.POPULARITY_HALF_LIVES_S.values())) / 3600.0
    rates = counts / hours
    # The week breaks ties among items without recent events, so that a quiet shop has an order.
    at = int(by_day)
    trend: Floats = rates[:, at] - rates[:, at + 1] + 1e-3 * rates[:, 2]
    return trend


def apply_caps(
    order: Sequence[int],
    groups: Sequence[Collection[CapGroup]],
    k: int,
    max_counts: Mapping[str, int],
) -> list[int]:
    """Reorder places so that the first k respect the diversity caps; the rest follows in order.

    If fewer than k respect them, the best of the rest fill up. O(order).

    Parameters
    ----------
    groups
        Cap groups of each place; none for an item that is never capped.
    max_counts
        By property, the most items of one of its groups.

    Examples
    --------
    >>> tents, lamps = {("category", "tents")}, {("category", "lamps")}
    >>> apply_caps([0, 1, 2, 3], [tents, tents, tents, lamps], 2, {"category": 1})
    [0, 3, 1, 2]
    """
    counts: Counter[CapGroup] = Counter()
    taken: list[int] = []
    rest: list[int] = []
    for place in order:
        if len(taken) < k and all(counts[one] < max_counts[one[0]] for one in groups[place]):
            counts.update(groups[place])
            taken.append(place)
        else:
            rest.append(place)
    return taken + rest
