"""Candidates: what a user may want next, out of what was seen together, own items and top lists.

Pure functions on arrays of item indexes; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import layout
from models.sessions import History

Indexes = NDArray[np.int64]
Floats = NDArray[np.float64]

SIGNALS = (
    "next_1", "after_1", "before_1", "day_1", "month_1",
    "both_3", "both_10", "day_10", "month_10",
)  # fmt: skip
"""Co-visitation of the last item by channel, then of the last 3 and 10 items together."""

N_CHANNELS = len(layout.PAIR_CHANNELS)
AFTER, BEFORE, DAY, MONTH = 1, 2, 3, 4
BOTH_10, NEXT_1, DAY_1 = SIGNALS.index("both_10"), 0, 3

CO_VISITED = 120
"""Best co-visited items kept as candidates."""

TOPS_TAKEN = {"recent": 100, "day": 60, "week": 30, "all": 20, "hour": 20, "new": 20}
"""Candidates from each top list."""

OWN = 50
"""Distinct own items, newest first, that are candidates again."""


@dataclass(frozen=True)
class Neighbours:
    """What was seen together with one item.

    Attributes
    ----------
    items
        ``(n,)`` distinct item indexes.
    shares
        ``(n, 5)`` decayed counts of each channel, divided by their sum over the list plus a half.
    """

    items: Indexes
    shares: Floats


NO_NEIGHBOURS = Neighbours(np.empty(0, np.int64), np.empty((0, N_CHANNELS)))


def unpack_neighbours(raw: bytes | None, clock_s: float) -> Neighbours:
    """A stored list at the time `clock_s`; O(n)."""
    if not raw:
        return NO_NEIGHBOURS
    records = np.frombuffer(raw, layout.PAIR)
    records = records[records["item"] > 0]
    # A clock read before the list was may lag behind it; the bound keeps that finite.
    age = np.minimum(records["log2"] - (clock_s - layout.EPOCH) * layout.PAIR_RATES, 60.0)
    counts = np.exp2(age)
    shares = counts / (counts.sum(axis=0) + 0.5)
    return Neighbours(records["item"].astype(np.int64), shares)


@dataclass(frozen=True)
class Context:
    """What a recommendation starts from: a user's recent events, distilled.

    Attributes
    ----------
    recent
        ``(n,)`` distinct items, newest first, at most `layout.WINDOW`.
    items, times, counts, strong, positions
        Of every distinct item in the history, newest first: index, Unix seconds of the last event,
        number of events, whether the last event weighed more than a click, events back (from 1).
    length
        Events in the history.
    """

    recent: Indexes
    items: Indexes
    times: Floats
    counts: Floats
    strong: Floats
    positions: Floats
    length: int


def context_of(history: History, strong_types: frozenset[int] = frozenset()) -> Context:
    """The context that a history gives; O(events)."""
    known = history.items > 0
    newest_first = history.items[known][::-1].astype(np.int64)
    items, first, counts = np.unique(newest_first, return_index=True, return_counts=True)
    order = np.argsort(first, kind="stable")
    items, first, counts = items[order], first[order], counts[order]
    times = history.times[known][::-1][first].astype(np.float64)
    types = history.types[known][::-1][first]
    strong = np.array([float(code in strong_types) for code in types.tolist()])
    return Context(
        recent=items[: layout.WINDOW],
        items=items,
        times=times,
        counts=counts.astype(np.float64),
        strong=strong,
        positions=first.astype(np.float64) + 1.0,
        length=len(newest_first),
    )


@dataclass(frozen=True)
class Candidates:
    """Items to choose from, with their co-visitation signals.

    Attributes
    ----------
    items
        ``(n,)`` distinct item indexes.
    signals
        ``(n, len(SIGNALS))``, 0 where an item was never seen with the context.
    """

    items: Indexes
    signals: Floats


class Slots:
    """Numbering of distinct items by a table over all indexes; reused, so not for two threads."""

    def __init__(self) -> None:
        self._table = np.zeros(1024, np.int64)

    def number(self, items: Indexes) -> tuple[Indexes, Indexes]:
        """The distinct items, and the place of each given item among them; O(items)."""
        if not len(items):
            return items, items
        highest = int(items.max())
        if highest >= len(self._table):
            self._table = np.zeros(max(highest + 1, 2 * len(self._table)), np.int64)
        table, places = self._table, np.arange(len(items))
        table[items] = places
        distinct = items[table[items] == places]
        table[distinct] = places[: len(distinct)]
        return distinct, table[items]

    def places(self, items: Indexes, distinct: Indexes) -> Indexes:
        """Where `items` stand in what the last `number` gave; -1 where they do not."""
        if not len(distinct):
            return np.full(len(items), -1)
        table = self._table
        places = table[np.minimum(items, len(table) - 1)]
        places = np.minimum(places, len(distinct) - 1)
        return np.where(distinct[places] == items, places, -1)


def co_visited(lists: Sequence[Neighbours], slots: Slots) -> Candidates:
    """Everything seen together with the context's items, newest item's list first."""
    if not any(len(neighbours.items) for neighbours in lists):
        return Candidates(np.empty(0, np.int64), np.empty((0, len(SIGNALS))))
    lengths = [len(neighbours.items) for neighbours in lists]
    items, places = slots.number(np.concatenate([neighbours.items for neighbours in lists]))
    shares = np.concatenate([neighbours.shares for neighbours in lists])
    weights = np.repeat(layout.FADE ** np.arange(len(lists)), lengths)
    n, last, three = len(items), lengths[0], sum(lengths[:3])
    signals = np.zeros((n, len(SIGNALS)))
    signals[places[:last], :N_CHANNELS] = shares[:last]
    both = (shares[:, AFTER] + 0.5 * shares[:, BEFORE]) * weights
    signals[:, 5] = np.bincount(places[:three], both[:three], n)
    signals[:, 6] = np.bincount(places, both, n)
    signals[:, 7] = np.bincount(places, shares[:, DAY] * weights, n)
    signals[:, 8] = np.bincount(places, shares[:, MONTH] * weights, n)
    return Candidates(items, signals)


def blend(signals: Floats) -> Floats:
    """The score that needs no learning: co-visitation of the last ten, the next, and the day.

    Each signal counts relative to its greatest value among the candidates.
    """
    greatest = signals.max(axis=0, initial=0.0)
    relative = signals / np.where(greatest > 0, greatest, 1.0)
    blended: Floats = relative[:, BOTH_10] + 0.5 * relative[:, NEXT_1] + 0.2 * relative[:, DAY_1]
    return blended


def retrieve(
    context: Context,
    lists: Sequence[Neighbours],
    tops: Mapping[str, Indexes],
    slots: Slots,
    *,
    also: Indexes | None = None,
) -> Candidates:
    """The best co-visited items, and the heads of the top lists, and own items; each once.

    Parameters
    ----------
    lists
        Neighbours of `context.recent`, in that order.
    tops
        Item indexes of each top list, best first.
    also
        Further items to score, as in ranking a given list.

    Returns
    -------
    Candidates
        At most `CO_VISITED` + `OWN` + the sum of `TOPS_TAKEN` items, beside `also`.
    """
    seen = co_visited(lists, slots)
    best = np.arange(len(seen.items))
    if len(best) > CO_VISITED:
        best = np.argpartition(-blend(seen.signals), CO_VISITED)[:CO_VISITED]
    others = [tops[name][:taken] for name, taken in TOPS_TAKEN.items() if name in tops]
    others.append(context.items[:OWN])
    if also is not None:
        others.append(also)
    rest = np.concatenate(others) if others else np.empty(0, np.int64)
    # Others may be co-visited without being among the best: they keep their signals.
    rest_places = slots.places(rest, seen.items)
    items = np.concatenate([seen.items[best], rest])
    places = np.concatenate([best, rest_places])
    distinct, numbers = slots.number(items)
    signals = np.zeros((len(distinct), len(SIGNALS)))
    known = places >= 0
    signals[numbers[known]] = seen.signals[places[known]]
    return Candidates(distinct, signals)


def only(items: Indexes, lists: Sequence[Neighbours], slots: Slots) -> Candidates:
    """The given items as candidates, in their order, with what the context says of them."""
    seen = co_visited(lists, slots)
    places = slots.places(items, seen.items)
    signals = np.zeros((len(items), len(SIGNALS)))
    known = places >= 0
    signals[known] = seen.signals[places[known]]
    return Candidates(items, signals)


def best_first(scores: Floats, ids: Sequence[Any], k: int) -> list[int]:
    """Places of the k best scores; equal scores in the order of their ids.

    >>> best_first(np.array([1.0, 3.0, 3.0]), ["a", "c", "b"], 2)
    [2, 1]
    """
    return sorted(range(len(ids)), key=lambda place: (-scores[place], ids[place]))[:k]
