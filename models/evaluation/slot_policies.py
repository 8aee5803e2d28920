"""Policies that a log of drawn lists can judge: what they would show in each randomised slot.

Each gives the probability of every item that could stand there; see `Decisions`. A policy that
wants an item which never could has no support in that slot, and says so.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arrays import Floats
from models.evaluation.drawn_lists import OWN, Decisions
from models.ranking.explored_lists import exploration_rate

MAX_WEIGHT = 50.0
"""Times as likely as the log that a policy may show an item: beyond, the few lists that had it
would decide alone, and no interval would be right."""


class PolicyTable(NamedTuple):
    """Probabilities with which a policy shows each item in each randomised slot.

    Attributes
    ----------
    probabilities
        ``(D, A)``; a supported row adds up to one.
    is_supported
        ``(D,)`` False where it would show something that the log never could.
    """

    probabilities: Floats
    is_supported: NDArray[np.bool_]


SlotPolicy = Callable[[Decisions], PolicyTable]


def judged(policy: SlotPolicy) -> SlotPolicy:
    """The policy where the log can judge it, and what was served elsewhere.

    It can where nothing would be shown more than `MAX_WEIGHT` times as often as it was.
    """

    def table(decisions: Decisions) -> PolicyTable:
        found = policy(decisions)
        is_bounded = (found.probabilities <= MAX_WEIGHT * decisions.probabilities).all(axis=1)
        is_supported = found.is_supported & is_bounded
        probabilities = np.where(
            is_supported[:, None], found.probabilities, decisions.probabilities
        )
        return PolicyTable(probabilities, is_supported)

    return table


def share_policy(share: float) -> SlotPolicy:
    """Another share of exploration, from the same pools; 0: none."""

    def table(decisions: Decisions) -> PolicyTable:
        lengths = np.array([len(one.items) for one in decisions.served], np.int64)
        by_list = np.array([exploration_rate(n, int(share * n)) for n in lengths.tolist()])
        rates = by_list[decisions.lists] if len(by_list) else np.zeros(0)
        return _mixed(_pool_shares(decisions) * rates[:, None])

    return table


def weighted_policy(factors: Mapping[str, float]) -> SlotPolicy:
    """Some items so many times as likely as others in a slot, as they are now; 0: never."""

    def table(decisions: Decisions) -> PolicyTable:
        by_number = np.array([factors.get(name, 1.0) for name in [*decisions.item_ids, ""]])
        # The last one, of the number -1, is none.
        by_number[-1] = 0.0
        weighted = decisions.probabilities * by_number[decisions.items]
        totals = weighted.sum(axis=1)
        is_supported = totals > 0.0
        found = weighted / np.where(is_supported, totals, 1.0)[:, None]
        return PolicyTable(found, is_supported)

    return table


def capped_policy(groups: Mapping[str, Collection[Hashable]], most: int) -> SlotPolicy:
    """At most so many items of one group in a list: others of the pool stand in for the rest.

    What stands above a slot are the list's own items. Where all of the pool is capped too, the
    list's own item stays.
    """

    def table(decisions: Decisions) -> PolicyTable:
        of_number = [groups.get(name, ()) for name in decisions.item_ids]
        is_open = np.zeros(decisions.items.shape, np.bool_)
        for row, choice in enumerate(decisions.items.tolist()):
            own = decisions.own_items[int(decisions.lists[row])][: int(decisions.positions[row])]
            above = Counter(group for item in own for group in of_number[item])
            is_open[row] = [
                item >= 0 and all(above[one] < most for one in of_number[item]) for item in choice
            ]
        shares = decisions.probabilities * is_open
        shares[:, OWN] = 0.0
        totals = shares.sum(axis=1)
        rates = np.where(totals > 0.0, np.where(is_open[:, OWN], decisions.rates, 1.0), 0.0)
        shares /= np.where(totals > 0.0, totals, 1.0)[:, None]
        return _mixed(shares * rates[:, None])

    return table


def listed_policy(lists: Mapping[str, Sequence[str]]) -> SlotPolicy:
    """The lists that another system would have shown, by recommendationId."""

    def table(decisions: Decisions) -> PolicyTable:
        numbers = {name: number for number, name in enumerate(decisions.item_ids)}
        wanted = np.full(len(decisions.items), -2, np.int64)
        for row, (number, place) in enumerate(
            zip(decisions.lists.tolist(), decisions.positions.tolist(), strict=True)
        ):
            other = lists.get(decisions.served[number].recommendation_id, ())
            if place < len(other):
                wanted[row] = numbers.get(other[place], -2)
        found = (decisions.items == wanted[:, None]) & (decisions.probabilities > 0.0)
        return PolicyTable(found.astype(np.float64), found.any(axis=1))

    return table


def _pool_shares(decisions: Decisions) -> Floats:
    """Share of each item in what an explored slot shows; ``(D, A)``, the own item's is 0."""
    shares = decisions.probabilities / decisions.rates[:, None]
    shares[:, OWN] = 0.0
    return shares


def _mixed(pool: Floats) -> PolicyTable:
    """The pool's items with these probabilities, else the own one."""
    found = pool.copy()
    found[:, OWN] = np.maximum(1.0 - pool.sum(axis=1), 0.0)
    return PolicyTable(found, np.ones(len(found), np.bool_))
