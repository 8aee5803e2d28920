"""Lifts: how much more often items are met under the circumstances of a request than elsewhere.

Pure functions on what context_counts.lua counts; nothing here reads a store or a clock.
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
"""Items of each circumstance that become candidates, the most frequent."""

PRIORS = (5.0, 1000.0)
"""The least and the most events that an item counts with beside its own; see `shrinkage`."""

WEIGHT_WITH_HISTORY = 0.5
"""How much of a lift counts for a user with a history: who reads on a phone has read what is read
on phones, and the order knows it."""

MAX_LIFT = 4.0
"""All circumstances together lift an item by so much at most: some fifty times its odds."""


class Counts(NamedTuple):
    """Events of items, by whatever they have in common; all decayed alike.

    Attributes
    ----------
    items, events
        ``(n,)`` distinct item indexes, and how many events of each.
    total
        Events of all items, also of those that had to make room for others.
    """

    items: Indexes
    events: Floats
    total: float

    @property
    def least(self) -> float:
        """What an item may have that is not there: nothing, as long as there is room."""
        return float(self.events.min()) if len(self.items) >= layout.CONTEXT_ITEMS else 0.0


def unpack_counts(raw: bytes | None, clock_s: float) -> Counts:
    """A stored list at the time `clock_s`; of one that is not there, nothing."""
    if not raw:
        return Counts(NO_ITEMS, np.empty(0), 0.0)
    age = (clock_s - layout.EPOCH) / layout.CONTEXT_HALF_LIFE_S
    total = float(np.frombuffer(raw, layout.CONTEXT_TOTAL, 1)[0])
    records = np.frombuffer(raw, layout.CONTEXT_COUNT, offset=layout.CONTEXT_TOTAL.itemsize)
    events = np.exp2(np.minimum(records["log2"] - age, 60.0))
    return Counts(records["item"].astype(np.int64), events, 2.0 ** min(total - age, 60.0))


class ContextValue(NamedTuple):
    """What is counted where a column has a value, and where it has any."""

    here: Counts
    anywhere: Counts


class ContextValues(NamedTuple):
    """Those of one request that the group has met before."""

    known: tuple[ContextValue, ...] = ()

    @property
    def best(self) -> Indexes:
        """The most frequent items of each; ``(at most BEST * n,)``, some perhaps repeated."""
        if not self.known:
            return NO_ITEMS
        return np.concatenate([one.here.items[_best(one.here.events)] for one in self.known])

    def lifted(self, scores: Floats, items: Indexes, *, has_history: bool = True) -> Floats:
        """Scores in log-odds with the items' lifts; the very same where nothing is known.

        Those of a user whose `has_history` say in part already what the lifts do.
        """
        if not self.known:
            return scores
        return scores + (WEIGHT_WITH_HISTORY if has_history else 1.0) * self.lifts(items)

    def lifts(self, items: Indexes) -> Floats:
        """How much more likely each item is here than elsewhere, in log-odds; ``(n,)``.

        As if circumstances were independent of each other, given the item (naive Bayes): P(item |
        values) is P(item) by the product of P(value | item) / P(value). An item of which nothing is
        known has a lift of 0.
        """
        total = np.zeros(len(items))
        for one in self.known:
            total += lift(items, one)
        return np.clip(total, -MAX_LIFT, MAX_LIFT)


NO_CONTEXT_VALUES = ContextValues()


def lift(items: Indexes, circumstance: ContextValue) -> Floats:
    """How much more likely items are here, log P(value | item) / P(value); ``(n,)``.

    Only events that have the column count: where others do not say, nothing follows from it. Each
    item counts with `shrinkage` events that are spread as everybody's are.

    Of an item that has made room for others no more is taken to be known than that it is not among
    the frequent ones: that speaks against it where it is frequent elsewhere, and never for it.

    >>> here = Counts(np.array([1, 2]), np.array([40.0, 10.0]), 50.0)
    >>> anywhere = Counts(np.array([1, 2, 3]), np.array([40.0, 50.0, 10.0]), 100.0)
    >>> lift(np.array([1, 2, 3, 4]), ContextValue(here, anywhere)).round(2).tolist()
    [0.64, -0.79, -1.1, 0.0]
    """
    here, anywhere = circumstance
    share = min(here.total / anywhere.total, 1.0)
    events, all_events = (_looked_up(items, some.items, some.events) for some in circumstance)
    missing = all_events < 0.0
    all_events[missing] = np.where(events[missing] > 0.0, anywhere.least, 0.0)
    all_events = np.maximum(all_events, events)
    events = np.where(events < 0.0, np.minimum(here.least, share * all_events), events)
    base = shrinkage(circumstance)
    lifts: Floats = np.log((events + base * share) / ((all_events + base) * share))
    return lifts


def shrinkage(circumstance: ContextValue) -> float:
    """How many events of everybody's each item is to count with, between `PRIORS`.

    Few where items differ in their shares of events here by more than chance makes them, and many
    where they do not: then the circumstance does not matter, and lifts nobody. By the moments of
    the beta-binomial distribution.

    References
    ----------
    Kleinman (1973), "Proportions with extraneous variance: single and independent samples", Journal
    of the American Statistical Association 68.

    Examples
    --------
    >>> anywhere = Counts(np.array([1, 2]), np.array([50.0, 50.0]), 100.0)
    >>> here = Counts(np.array([1, 2]), np.array([25.0, 25.0]), 50.0)
    >>> round(shrinkage(ContextValue(here, anywhere)))
    1000
    """
    here, anywhere = circumstance
    least, most = PRIORS
    share = here.total / anywhere.total
    pairs = float((anywhere.events * np.maximum(anywhere.events - 1.0, 0.0)).sum())
    if share >= 1.0 or pairs <= 0.0:
        return most
    events = np.maximum(_looked_up(anywhere.items, here.items, here.events), 0.0)
    spread = float(((events - share * anywhere.events) ** 2).sum()) / (share * (1.0 - share))
    extraneous = (spread - float(anywhere.events.sum())) / pairs
    return max(1.0 / max(extraneous, 1.0 / (most + 1.0)) - 1.0, least)


def popularity(items: Indexes, log2: Floats, circumstances: ContextValues) -> Floats:
    """Scores, in log-odds, for who has no history: how popular items are, and their lifts.

    Parameters
    ----------
    log2
        ``(n,)`` logarithms of the items' decayed counts; any half-life will do.
    """
    scores: Floats = math.log(2.0) * log2 + circumstances.lifts(items)
    return scores


def rerank_by_lift(items: Sequence[int], circumstances: ContextValues) -> list[int]:
    """Items in another order by their lifts, as if the chances of the old were 1, 1/2, 1/3...

    >>> rerank_by_lift([7, 8], NO_CONTEXT_VALUES)
    [7, 8]
    """
    places = np.arange(1, len(items) + 1)
    scores = circumstances.lifts(np.array(items, np.int64)) - np.log(places)
    return [items[place] for place in np.argsort(-scores, kind="stable")]


def _best(events: Floats) -> Indexes:
    return best_places(events, MAX_CONTEXT_CANDIDATES, MAX_CONTEXT_CANDIDATES)


@compiled(f8[::1](i8[::1], i8[::1], f8[::1]))
def _looked_up(items: Indexes, listed: Indexes, events: Floats) -> Floats:
    """The events of each item, or -1 where it is not listed."""
    found, table = np.full(len(items), -1.0), table_of(listed)
    for at in range(len(items)):
        place = table[slot_of(table, listed, items[at])]
        if place >= 0:
            found[at] = events[place]
    return found
