"""What a list is made of beside scores: not too many of a kind, and a little that is new.

Pure functions on places, which count candidates from 0; nothing here reads a store or a clock.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

from models.arrays import Floats, Indexes

T = TypeVar("T")

CapGroup = tuple[str, str]
"""What many items may be one of: by what it is told, and which."""


def apply_caps(
    order: Sequence[int], kinds: Sequence[Collection[CapGroup]], k: int, most: Mapping[str, int]
) -> list[int]:
    """The order with not too many of a kind among its first k; what is beyond comes after.

    Where that leaves less than k, the best of what was put back fill up. O(order).

    Parameters
    ----------
    kinds
        Of each place, what it is one of; none for what is never too many.
    most
        How many of one kind there may be, by what it is told.

    Examples
    --------
    >>> tents, lamps = {("category", "tents")}, {("category", "lamps")}
    >>> apply_caps([0, 1, 2, 3], [tents, tents, tents, lamps], 2, {"category": 1})
    [0, 3, 1, 2]
    """
    counts: Counter[CapGroup] = Counter()
    taken: list[int] = []
    left: list[int] = []
    for place in order:
        if len(taken) < k and all(counts[kind] < most[kind[0]] for kind in kinds[place]):
            counts.update(kinds[place])
            taken.append(place)
        else:
            left.append(place)
    return taken + left


def thompson_order(events: Floats, shown: Floats, n: int, rng: np.random.Generator) -> Indexes:
    """Places of n new items to try, by Thompson sampling of how often one is taken when shown.

    An item nobody was shown may be anything and is tried soon; one that was shown in vain is drawn
    ever less (Chapelle and Li 2011, "An empirical evaluation of Thompson sampling").

    Parameters
    ----------
    events, shown
        ``(m,)`` events on each item, and how often it was shown to be tried.
    """
    chances = rng.beta(1.0 + events, 1.0 + np.maximum(shown - events, 0.0))
    return np.argsort(-chances, kind="stable")[:n]


def insert_explored(listed: Sequence[T], tried: Sequence[T], chance: random.Random) -> list[T]:
    """The list with items to try at random places of its second half, as long as it was.

    >>> insert_explored([5, 6, 7, 8], [9], random.Random(7))[:2]
    [5, 6]
    """
    kept = list(listed[: len(listed) - len(tried)])
    for item in tried:
        kept.insert(chance.randint(len(listed) // 2, len(kept)), item)
    return kept
