"""Served lists as decisions: at each randomised slot one of several items was shown.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.arrays import Floats, Indexes
from models.served_messages import ServedList

OWN = 0
"""Column of the item that the list has in a slot by its own order; the pool's follow."""


class RewardedList(NamedTuple):
    """A served list, and what came of each of its items."""

    served: ServedList
    rewards: Sequence[float]


class Decisions(NamedTuple):
    """The randomised slots of lists, D of them with A items at most to choose from.

    Attributes
    ----------
    item_ids
        Of items, by number.
    items
        ``(D, A)`` numbers of the items that could be shown; -1 where there are fewer.
    probabilities
        ``(D, A)`` with which each was shown, given what was explored above.
    shown
        ``(D,)`` column of the item that was shown.
    rewards, positions, lists
        ``(D,)`` what came of it; its place in the list, from 0; number of the list.
    rates
        ``(D,)`` probability that the slot was explored.
    owners
        ``(lists,)`` number of the user or session that each list was served to.
    fixed
        ``(lists,)`` what came of the items that were not randomised.
    served
        The lists themselves.
    own_items
        Of each list, numbers of the items that it has by its own order.
    """

    item_ids: list[str]
    items: Indexes
    probabilities: Floats
    shown: Indexes
    rewards: Floats
    positions: Indexes
    lists: Indexes
    rates: Floats
    owners: Indexes
    fixed: Floats
    served: list[ServedList]
    own_items: list[list[int]]

    @property
    def n_owners(self) -> int:
        """Users and sessions that lists were served to."""
        return int(self.owners.max(initial=-1)) + 1


def decisions_of(rewarded: Sequence[RewardedList]) -> Decisions:
    """The decisions of served lists; O(randomised slots x pool)."""
    numbers: dict[str, int] = {}
    owners: dict[str, int] = {}
    rows: list[tuple[list[int], list[float], int, float, int, int, float]] = []
    fixed, own_items, owner_of = np.zeros(len(rewarded)), [], list[int]()
    for number, (served, rewards) in enumerate(rewarded):
        drawn = served.exploration
        replaced = drawn.replaced if drawn else {}
        own = [replaced.get(place, name) for place, name in enumerate(served.items)]
        own_numbers = [numbers.setdefault(name, len(numbers)) for name in own]
        own_items.append(own_numbers)
        left = dict(zip(drawn.pool, drawn.weights, strict=True)) if drawn else {}
        for place, name in enumerate(served.items):
            is_drawn = drawn is not None and left and drawn.probabilities[place] < 1.0
            if drawn is None or not is_drawn:
                fixed[number] += rewards[place]
                left.pop(name, None)
                continue
            total = sum(left.values())
            choice = [own_numbers[place], *(numbers.setdefault(one, len(numbers)) for one in left)]
            odds = [1.0 - drawn.rate, *(drawn.rate * one / total for one in left.values())]
            shown = OWN if place not in replaced else 1 + [*left].index(name)
            rows.append((choice, odds, shown, rewards[place], place, number, drawn.rate))
            left.pop(name, None)
        owner = served.user_id or served.session_id or served.recommendation_id
        owner_of.append(owners.setdefault(owner, len(owners)))
    width = max((len(row[0]) for row in rows), default=1)
    items = np.full((len(rows), width), -1, np.int64)
    probabilities = np.zeros((len(rows), width))
    for at, (choice, odds, *_) in enumerate(rows):
        items[at, : len(choice)] = choice
        probabilities[at, : len(odds)] = odds
    whole = np.array([(row[2], row[4], row[5]) for row in rows], np.int64).reshape(-1, 3)
    numbers_of = np.array([(row[3], row[6]) for row in rows], np.float64).reshape(-1, 2)
    return Decisions(
        [*numbers],
        items,
        probabilities,
        whole[:, 0],
        numbers_of[:, 0],
        whole[:, 1],
        whole[:, 2],
        numbers_of[:, 1],
        np.array(owner_of, np.int64),
        fixed,
        [one for one, _ in rewarded],
        own_items,
    )
