"""Candidates: what a user may want next, out of what was seen together, own items and top lists.

Pure functions on arrays of item indexes; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
NEXT, AFTER, BEFORE, DAY, MONTH, BOTH = range(N_CHANNELS + 1)
BLENDED = [SIGNALS.index("both_10"), SIGNALS.index("next_1"), SIGNALS.index("day_1")]
BLEND_WEIGHTS = np.array([1.0, 0.5, 0.2])
LEAST = 1e-300
"""Divides nothing by nothing."""

FADES = layout.FADE ** np.arange(layout.WINDOW)
"""Weight of the context's items, newest first."""

CO_VISITED = 120
"""Best co-visited items kept as candidates."""

TOPS_TAKEN = {"recent": 100, "day": 60, "week": 30, "all": 20, "hour": 20, "new": 20}
"""Candidates from each top list."""

OWN = 50
"""Distinct own items, newest first, that are candidates again."""


class Neighbours(NamedTuple):
    """What was seen together with one item.

    Attributes
    ----------
    items
        ``(n,)`` distinct item indexes.
    shares
        ``(n, 6)`` decayed counts of each channel, divided by their sum over the list plus a half;
        and in the last column, of both directions: after, and half of before.
    """

    items: Indexes
    shares: Floats


NO_NEIGHBOURS = Neighbours(np.empty(0, np.int64), np.empty((0, N_CHANNELS + 1)))


def unpack_neighbours(raws: Sequence[bytes | None], clock_s: float) -> list[Neighbours]:
    """Stored lists at the time `clock_s`, all in one pass; O(records)."""
    stored = [raw for raw in raws if raw]
    if not stored:
        return [NO_NEIGHBOURS] * len(raws)
    sizes = np.array([len(raw) for raw in stored]) // layout.PAIR.itemsize
    starts = np.cumsum(sizes) - sizes
    words = np.frombuffer(b"".join(stored), "<u4").reshape(-1, 1 + N_CHANNELS).T
    items = words[0].astype(np.int64)
    used = items > 0
    # A clock read before the list was may lag behind it; the bound keeps that finite.
    age = ((clock_s - layout.EPOCH) * layout.PAIR_RATES)[:, None]
    columns = np.empty((N_CHANNELS + 1, len(items)))
    counts = columns[:N_CHANNELS]
    np.subtract(words[1:].view("<f4"), age, out=counts)
    np.exp2(np.minimum(counts, 60.0, out=counts), out=counts)
    counts *= used
    counts /= np.repeat(np.add.reduceat(counts, starts, axis=1) + 0.5, sizes, axis=1)
    columns[BOTH] = counts[AFTER] + 0.5 * counts[BEFORE]
    shares = columns.T
    ends = starts + np.add.reduceat(used, starts, dtype=np.int64)
    lists = iter(
        [
            Neighbours(items[start:end], shares[start:end])
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]
    )
    return [next(lists) if raw else NO_NEIGHBOURS for raw in raws]


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
    items, times, types = history.items.tolist(), history.times.tolist(), history.types.tolist()
    newest: dict[int, list[float]] = {}
    back = 0
    for at in range(len(items) - 1, -1, -1):
        item = items[at]
        if not item:
            continue
        back += 1
        known = newest.get(item)
        if known is None:
            newest[item] = [times[at], 1.0, float(types[at] in strong_types), back]
        else:
            known[1] += 1.0
    distinct = np.fromiter(newest, np.int64, len(newest))
    columns = np.array(list(newest.values()), np.float64).reshape(-1, 4).T
    return Context(
        recent=distinct[: layout.WINDOW],
        items=distinct,
        times=columns[0],
        counts=columns[1],
        strong=columns[2],
        positions=columns[3],
        length=back,
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
    lengths = [len(neighbours.items) for neighbours in lists]
    if not any(lengths):
        return Candidates(np.empty(0, np.int64), np.empty((0, len(SIGNALS))))
    items, places = slots.number(np.concatenate([neighbours.items for neighbours in lists]))
    shares = np.concatenate([neighbours.shares[:, DAY:] for neighbours in lists])
    shares *= np.repeat(FADES[: len(lists)], lengths)[:, None]
    n, last, three = len(items), lengths[0], sum(lengths[:3])
    signals = np.zeros((len(SIGNALS), n)).T
    signals[places[:last], :N_CHANNELS] = lists[0].shares[:, :N_CHANNELS]
    signals[:, 5] = np.bincount(places[:three], shares[:three, BOTH - DAY], n)
    signals[:, 6] = np.bincount(places, shares[:, BOTH - DAY], n)
    signals[:, 7] = np.bincount(places, shares[:, 0], n)
    signals[:, 8] = np.bincount(places, shares[:, MONTH - DAY], n)
    return Candidates(items, signals)


def blend(signals: Floats) -> Floats:
    """The score that needs no learning: co-visitation of the last ten, the next, and the day.

    Each signal counts relative to its greatest value among the candidates.
    """
    chosen = signals[:, BLENDED]
    greatest = chosen.max(axis=0, initial=0.0)
    blended: Floats = chosen @ (BLEND_WEIGHTS / np.maximum(greatest, LEAST))
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
    signals = np.zeros((len(SIGNALS), len(distinct))).T
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
