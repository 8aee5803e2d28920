"""Items similar to one: what was co-visited with it, and what its factors are near to.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

import numpy as np
from numba import f8, i8
from numba.types import Tuple

from models.arrays import Floats, Indexes, slot_of, table_of
from models.machine_code import compiled
from models.retrieval.candidates import Candidates, best_places
from models.retrieval.item_factors import (
    MAX_OF_FACTORS,
    MAX_SOUGHT,
    ItemFactors,
    similarities,
)
from models.retrieval.signals import FACTORS


@compiled(Tuple((i8[::1], f8[:, ::1]))(i8[::1], f8[:, ::1], i8[::1]))
def _with_more(items: Indexes, signals: Floats, more: Indexes) -> tuple[Indexes, Floats]:
    """Candidates, and those of the others that are not among them, without signals."""
    table, n = table_of(items), len(items)
    joined, of_joined = np.empty(n + len(more), np.int64), np.zeros((n + len(more), len(signals.T)))
    joined[:n], of_joined[:n] = items, signals
    for item in more:
        if table[slot_of(table, items, item)] < 0:
            joined[n] = item
            n += 1
    return joined[:n], of_joined[:n]


def with_similar_factors(candidates: Candidates, item: int, factors: ItemFactors) -> Candidates:
    """Candidates for a list of items similar to one, with the signal `factors` of each.

    Those that it is nearest to are added, without other signals. The same candidates where the item
    has no factors. Some 50 µs.

    Parameters
    ----------
    candidates
        What was found for a profile of that item alone, without it.
    """
    sought = factors.items[:MAX_SOUGHT]
    found = similarities(sought, item, factors)
    found[sought == item] = 0.0
    if not found.any():
        return candidates
    near = np.where(found > 0.0, found, -np.inf)
    best = sought[best_places(near, MAX_OF_FACTORS, MAX_OF_FACTORS)]
    items, signals = _with_more(candidates.items, candidates.signals, best)
    signals[:, FACTORS] = similarities(items, item, factors)
    return Candidates(items, signals)
