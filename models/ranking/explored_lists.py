"""Exploration of a list: each slot of its second half shows another item with a known probability.

The policy is a mixture, slot by slot: with the probability `rate` a slot shows an item drawn from a
pool, by weights, and else the one that the ranker has there. Nothing else of the list moves. So the
probability of what stands in a slot, given the explored items above it, is exact and costs nothing:
`models.evaluation.off_policy` estimates from it what another policy would have brought.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

MAX_POOL = 16
"""Items that one list explores among, at most."""

WHOLE = 10_000
"""Sum of the weights of a pool, nearly: they are whole numbers, so that a log has them exactly."""


class DrawnSlot(NamedTuple):
    """The draw of a randomised slot: the item that it shows, and how likely that was.

    Attributes
    ----------
    item_id
        The item that is shown.
    replaced
        The list's own item of an explored slot; None where that is shown.
    probability
        Of the item in this slot, given what was explored above it.
    """

    item_id: str
    replaced: str | None
    probability: float


class Exploration(NamedTuple):
    """The exploration of one list.

    Attributes
    ----------
    rate
        Probability that a slot of the second half is explored.
    pool
        Items among which an explored slot chooses, with their weights; none is in the list itself.
    slots
        The slots of the second half, from above.
    """

    rate: float
    pool: Mapping[str, int]
    slots: list[DrawnSlot]


def exploration_rate(n_listed: int, n_explored: int) -> float:
    """Probability that a slot of the second half is explored, for so many explored on average.

    >>> exploration_rate(25, 1)
    0.07692307692307693
    """
    slots = n_listed - n_listed // 2
    return min(1.0, n_explored / slots) if slots else 0.0


def explore(
    listed: Sequence[str], pool: Mapping[str, int], rate: float, rng: random.Random
) -> Exploration:
    """Draws of the slots in the second half of a list.

    Parameters
    ----------
    listed
        The list by its own order.
    pool
        Weights, at least 1, of items that are not in the list. Each is shown once at most; where
        none is left, slots show the list's own items.

    Examples
    --------
    >>> explore(["a", "b", "c"], {"x": 1}, 1.0, random.Random(7)).slots
    [DrawnSlot(item_id='x', replaced='b', probability=1.0), DrawnSlot(item_id='c', ...)]
    """
    left, slots, of_own = dict(pool), list[DrawnSlot](), 1.0 - rate
    for own in listed[len(listed) // 2 :]:
        if not left:
            slots.append(DrawnSlot(own, None, 1.0))
        elif rng.random() >= rate:
            slots.append(DrawnSlot(own, None, of_own))
        else:
            (drawn,) = rng.choices([*left], [*left.values()])
            probability = rate * left[drawn] / sum(left.values())
            del left[drawn]
            slots.append(DrawnSlot(drawn, own, probability))
    return Exploration(rate, pool, slots)


def joined_pool(parts: Sequence[Mapping[str, float]], most: int = MAX_POOL) -> dict[str, int]:
    """A pool of several with equal shares, the likeliest items first; empty ones have no share.

    >>> joined_pool([{"tent": 3.0, "lamp": 1.0}, {}, {"rope": 8.0}])
    {'rope': 5000, 'tent': 3750, 'lamp': 1250}
    """
    held = [part for part in parts if part]
    sums: dict[str, float] = {}
    for part in held:
        total = sum(part.values()) * len(held)
        for name, weight in part.items():
            sums[name] = sums.get(name, 0.0) + weight / total
    likeliest = sorted(sums.items(), key=itemgetter(1), reverse=True)[:most]
    return {name: round(WHOLE * weight) or 1 for name, weight in likeliest}
