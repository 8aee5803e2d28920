"""Lifts of contextual columns: how much likelier an item is under a value than anywhere.

Pure functions on the counts of context_counts.lua; nothing here reads a store or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import f8, i8

from models.arrays import NO_ITEMS, Floats, Indexes, slot_of, table_of
from models.machine_code import compiled
from models.retrieval.candidates import best_places
from models.state import layout

MAX_CONTEXT_CANDIDATES = 50
"""Candidates from each context value: its most frequent items."""

SHRINKAGE_RANGE = (5.0, 1000.0)
"""Bounds of the pseudo-count of `shrinkage`, in events."""

WEIGHT_WITH_HISTORY = 0.5
"""Weight of lifts for users with a history: past interactions were made in the same contexts, so
their ranking contains a part of the lift already."""

MAX_LIFT = 4.0
"""Greatest sum of an item's lifts, in log-odds: a factor of some fifty."""


class DecayedCounts(NamedTuple):
    """Decayed event counts of items, under one context value or one column.

    Attributes
    ----------
    items, events
        ``(n,)`` distinct item indexes, and the events of each.
    total
        Events of all items, evicted ones included.
    """

    items: Indexes
    events: Floats
    total: float

    @property
    def max_missing(self) -> float:
        """Most events that an item outside the list can have: 0 while the list is not full."""
        return float(self.events.min()) if len(self.items) >= layout.CONTEXT_ITEMS else 0.0


def unpack_counts(raw: bytes | None, clock_s: float) -> DecayedCounts:
    """Counts in a stored list at the time `clock_s`; empty for a missing list."""
    if not raw:
        return DecayedCounts(NO_ITEMS, np.empty(0), 0.0)
    age = (clock_s - layout.EPOCH) / layout.CONTEXT_HALF_LIFE_S
    total = float(np.frombuffer(raw, layout.CONTEXT_TOTAL, 1)[0])
    records = np.frombuffer(raw, layout.CONTEXT_COUNT, offset=layout.CONTEXT_TOTAL.itemsize)
    events = np.exp2(np.minimum(records["log2"] - age, 60.0))
    return DecayedCounts(records["item"].astype(np.int64), events, 2.0 ** min(total - age, 60.0))


class ContextValue(NamedTuple):
    """Counts of events with one value of a contextual column, and with any value of it."""

    with_value: DecayedCounts
    with_column: DecayedCounts


class ContextValues(NamedTuple):
    """Context values of one request that the group has counts of."""

    values: tuple[ContextValue, ...] = ()

    @property
    def frequent_items(self) -> Indexes:
        """Most frequent items, `MAX_CONTEXT_CANDIDATES` of each value; they may repeat."""
        if not self.values:
            return NO_ITEMS
        return np.concatenate(
            [one.with_value.items[_most_frequent(one.with_value.events)] for one in self.values]
        )

    def with_lifts(self, scores: Floats, items: Indexes, *, has_history: bool = True) -> Floats:
        """Scores in log-odds plus the items' lifts; the same array if there are no values.

        Lifts have `WEIGHT_WITH_HISTORY` for users with a history.
        """
        if not self.values:
            return scores
        return scores + (WEIGHT_WITH_HISTORY if has_history else 1.0) * self.lifts(items)

    def lifts(self, items: Indexes) -> Floats:
        """Sum of each item's lifts over all values, in log-odds; ``(n,)``.

        Naive Bayes: values are taken as independent given the item, so P(item | values) is P(item)
        times the product of P(value | item) / P(value). 0 for an item without counts.
        """
        total = np.zeros(len(items))
        for one in self.values:
            total += lift(items, one)
        return np.clip(total, -MAX_LIFT, MAX_LIFT)


NO_CONTEXT_VALUES = ContextValues()


def lift(items: Indexes, value: ContextValue) -> Floats:
    """Lift of items under one value, log P(value | item) / P(value); ``(n,)``.

    Only events that have the column count. Each item's share is shrunk towards the overall share by
    `shrinkage` events.

    An item that was evicted from the value's list is only known not to be frequent there. That
    counts against it if it is frequent elsewhere, and never in its favour.

    >>> with_value = DecayedCounts(np.array([1, 2]), np.array([40.0, 10.0]), 50.0)
    >>> with_column = DecayedCounts(np.array([1, 2, 3]), np.array([40.0, 50.0, 10.0]), 100.0)
    >>> lift(np.array([1, 2, 3, 4]), ContextValue(with_value, with_column)).round(2).tolist()
    [0.64, -0.79, -1.1, 0.0]
    """
    with_value, with_column = value
    share = min(with_value.total / with_column.total, 1.0)
    events, all_events = (_looked_up(items, counts.items, counts.events) for counts in value)
    is_missing = all_events < 0.0
    all_events[is_missing] = np.where(events[is_missing] > 0.0, with_column.max_missing, 0.0)
    all_events = np.maximum(all_events, events)
    missing_events = np.minimum(with_value.max_missing, share * all_events)
    events = np.where(events < 0.0, missing_events, events)
    prior = shrinkage(value)
    lifts: Floats = np.log((events + prior * share) / ((all_events + prior) * share))
    return lifts


def shrinkage(value: ContextValue) -> float:
    """Pseudo-count that shrinks an item's share towards the overall share, in `SHRINKAGE_RANGE`.

    Small if the items' shares of events with the value differ by more than chance explains, large
    if they do not: then the value carries no information. Method of moments for the beta-binomial
    distribution.

    References
    ----------
    Kleinman (1973), "Proportions with extraneous variance: single and independent samples", Journal
    of the American Statistical Association 68.

    Examples
    --------
    >>> with_column = DecayedCounts(np.array([1, 2]), np.array([50.0, 50.0]), 100.0)
    >>> with_value = DecayedCounts(np.array([1, 2]), np.array([25.0, 25.0]), 50.0)
    >>> round(shrinkage(ContextValue(with_value, with_column)))
    1000
    """
    with_value, with_column = value
    least, most = SHRINKAGE_RANGE
    share = with_value.total / with_column.total
    pairs = float((with_column.events * np.maximum(with_column.events - 1.0, 0.0)).sum())
    if share >= 1.0 or pairs <= 0.0:
        return most
    events = np.maximum(_looked_up(with_column.items, with_value.items, with_value.events), 0.0)
    spread = float(((events - share * with_column.events) ** 2).sum()) / (share * (1.0 - share))
    extraneous = (spread - float(with_column.events.sum())) / pairs
    return max(1.0 / max(extraneous, 1.0 / (most + 1.0)) - 1.0, least)


def popularity_with_lift(items: Indexes, log2: Floats, context: ContextValues) -> Floats:
    """Scores in log-odds for users without a history: popularity and lifts.

    Parameters
    ----------
    log2
        ``(n,)`` logarithms of the items' decayed counts, of any half-life.
    """
    scores: Floats = math.log(2.0) * log2 + context.lifts(items)
    return scores


def rerank_by_lift(items: Sequence[int], context: ContextValues) -> list[int]:
    """Reorder items by their lifts, with odds of 1, 1/2, 1/3... for the given order.

    >>> rerank_by_lift([7, 8], NO_CONTEXT_VALUES)
    [7, 8]
    """
    places = np.arange(1, len(items) + 1)
    scores = context.lifts(np.array(items, np.int64)) - np.log(places)
    return [items[place] for place in np.argsort(-scores, kind="stable")]


def _most_frequent(events: Floats) -> Indexes:
    return best_places(events, MAX_CONTEXT_CANDIDATES, MAX_CONTEXT_CANDIDATES)


@compiled(f8[::1](i8[::1], i8[::1], f8[::1]))
def _looked_up(items: Indexes, listed: Indexes, events: Floats) -> Floats:
    """Events of each item, or -1 if it is not listed."""
    found, table = np.full(len(items), -1.0), table_of(listed)
    for at in range(len(items)):
        place = table[slot_of(table, listed, items[at])]
        if place >= 0:
            found[at] = events[place]
    return found
