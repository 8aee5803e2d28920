"""Candidates: what a user may want next, out of what was seen together, own items and top lists.

Pure functions on arrays of item indexes; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import b1, f4, f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models import layout
from models.compiled import compiled
from models.sessions import History

Indexes = NDArray[np.int64]
Floats = NDArray[np.float64]

SIGNALS = (
    "next_1", "after_1", "before_1", "day_1", "month_1",
    "both_3", "both_10", "day_10", "month_10",
)  # fmt: skip
"""Co-visitation of the last item by channel, then of the last 3 and 10 items together."""

N_SIGNALS = len(SIGNALS)
N_CHANNELS = len(layout.PAIR_CHANNELS)
NEXT, AFTER, BEFORE, DAY, MONTH, BOTH = range(N_CHANNELS + 1)
BLENDED = [SIGNALS.index("both_10"), SIGNALS.index("next_1"), SIGNALS.index("day_1")]
BLEND_WEIGHTS = np.array([1.0, 0.5, 0.2])
BOTH_3, BOTH_10, DAY_10, MONTH_10 = range(N_CHANNELS, N_SIGNALS)
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

NOTHING: Indexes = np.empty(0, np.int64)


@compiled(i8(i8[::1], i8[::1], i8))
def slot_of(table: Indexes, items: Indexes, item: int) -> int:
    """Where a hash table of places in `items` holds the place of `item`, or -1 in its stead."""
    mask = len(table) - 1
    slot = ((item * 2654435761) >> 8) & mask
    while table[slot] >= 0 and items[table[slot]] != item:
        slot = (slot + 1) & mask
    return slot


@compiled(i8[::1](i8))
def empty_table(n: int) -> Indexes:
    """A table for `n` items, at most half full."""
    size = 4
    while size < 2 * n:
        size *= 2
    return np.full(size, -1)


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


NO_NEIGHBOURS = Neighbours(NOTHING, np.empty((0, N_CHANNELS + 1)))


@compiled(Tuple((i8[::1], f8[:, ::1]))(u4[:, ::1], f4[:, ::1], f8[::1]))
def _shares(words: NDArray[np.uint32], logs: NDArray[np.float32], ages: Floats) -> Neighbours:
    used = 0
    while used < len(words) and words[used, 0] > 0:
        used += 1
    items, shares = np.empty(used, np.int64), np.zeros((used, N_CHANNELS + 1))
    sums = np.full(N_CHANNELS, 0.5)
    for at in range(used):
        items[at] = words[at, 0]
        for channel in range(N_CHANNELS):
            # A clock read before the list was may lag behind it; the bound keeps that finite.
            log2 = min(np.float64(logs[at, 1 + channel]) - ages[channel], 60.0)
            if log2 > -100.0:
                shares[at, channel] = 2.0**log2
                sums[channel] += shares[at, channel]
    for at in range(used):
        for channel in range(N_CHANNELS):
            shares[at, channel] /= sums[channel]
        shares[at, BOTH] = shares[at, AFTER] + 0.5 * shares[at, BEFORE]
    return items, shares  # type: ignore[return-value]  # compiled code knows plain tuples only


def unpack_neighbours(raws: Sequence[bytes | None], clock_s: float) -> list[Neighbours]:
    """Stored lists at the time `clock_s`; O(records)."""
    ages = (clock_s - layout.EPOCH) * layout.PAIR_RATES
    lists = []
    for raw in raws:
        if raw:
            words = np.frombuffer(bytearray(raw), np.uint32).reshape(-1, 1 + N_CHANNELS)
            lists.append(Neighbours(*_shares(words, words.view(np.float32), ages)))
        else:
            lists.append(NO_NEIGHBOURS)
    return lists


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


@compiled(Tuple((i8[::1], f8[:, ::1], i8))(i8[::1], i8[::1], b1[::1]))
def _distilled(
    items: Indexes, times: Indexes, strong: NDArray[np.bool_]
) -> tuple[Indexes, Floats, int]:
    distinct, columns = np.empty(len(items), np.int64), np.empty((4, len(items)))
    table, n, back = empty_table(len(items)), 0, 0
    for at in range(len(items) - 1, -1, -1):
        if items[at] == 0:
            continue
        back += 1
        slot = slot_of(table, distinct, items[at])
        if table[slot] < 0:
            table[slot], distinct[n] = n, items[at]
            columns[0, n], columns[1, n] = times[at], 0.0
            columns[2, n], columns[3, n] = strong[at], back
            n += 1
        columns[1, table[slot]] += 1.0
    return distinct[:n].copy(), columns[:, :n].copy(), back


def context_of(history: History, strong_types: Collection[int] = ()) -> Context:
    """The context that a history gives; O(events)."""
    strong = np.isin(history.types, list(strong_types)) if strong_types else history.types < 0
    items, columns, length = _distilled(
        history.items.astype(np.int64), history.times.astype(np.int64), strong
    )
    return Context(items[: layout.WINDOW], items, *columns, length)


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


@compiled(Tuple((i8[::1], f8[:, ::1], i8[::1]))(i8[::1], f8[:, ::1], i8[::1]))
def _summed(items: Indexes, shares: Floats, lengths: Indexes) -> tuple[Indexes, Floats, Indexes]:
    """Distinct items, their signals, and the table of their places; lists one after another."""
    distinct, signals = np.empty(len(items), np.int64), np.zeros((len(items), N_SIGNALS))
    table, n, start = empty_table(len(items)), 0, 0
    for distance in range(len(lengths)):
        fade, end = FADES[distance], start + lengths[distance]
        for at in range(start, end):
            slot = slot_of(table, distinct, items[at])
            if table[slot] < 0:
                table[slot], distinct[n] = n, items[at]
                n += 1
            own, share = signals[table[slot]], shares[at]
            if distance == 0:
                own[:N_CHANNELS] = share[:N_CHANNELS]
            if distance < 3:
                own[BOTH_3] += fade * share[BOTH]
            own[BOTH_10] += fade * share[BOTH]
            own[DAY_10] += fade * share[DAY]
            own[MONTH_10] += fade * share[MONTH]
        start = end
    return distinct[:n], signals[:n], table


class CoVisited(NamedTuple):
    """Everything seen together with a context's items, the newest item's list first.

    Attributes
    ----------
    items, signals
        As of `Candidates`.
    table
        Hash table of each item's place, for `slot_of`.
    """

    items: Indexes
    signals: Floats
    table: Indexes


NEVER_SEEN = CoVisited(NOTHING, np.empty((0, N_SIGNALS)), empty_table(0))


def co_visited(lists: Sequence[Neighbours]) -> CoVisited:
    """Everything in the neighbour lists of a context's items; O(records)."""
    lengths = np.array([len(neighbours.items) for neighbours in lists], np.int64)
    if not lengths.any():
        return NEVER_SEEN
    items = np.concatenate([neighbours.items for neighbours in lists])
    shares = np.concatenate([neighbours.shares for neighbours in lists])
    return CoVisited(*_summed(items, shares, lengths))


def blend(signals: Floats) -> Floats:
    """The score that needs no learning: co-visitation of the last ten, the next, and the day.

    Each signal counts relative to its greatest value among the candidates.
    """
    chosen = signals[:, BLENDED]
    greatest = chosen.max(axis=0, initial=0.0)
    blended: Floats = chosen @ (BLEND_WEIGHTS / np.maximum(greatest, LEAST))
    return blended


@compiled(Tuple((i8[::1], f8[:, ::1]))(i8[::1], i8[::1], f8[:, ::1], i8[::1], i8[::1]))
def _gathered(
    best: Indexes, seen: Indexes, seen_signals: Floats, seen_table: Indexes, others: Indexes
) -> Candidates:
    """Those at the places `best`, then others; each once, and with the signals it has."""
    size = len(best) + len(others)
    items, signals = np.empty(size, np.int64), np.zeros((size, N_SIGNALS))
    table, n = empty_table(size), 0
    for at in range(size):
        item = seen[best[at]] if at < len(best) else others[at - len(best)]
        slot = slot_of(table, items, item)
        if table[slot] >= 0:
            continue
        table[slot], items[n] = n, item
        place = seen_table[slot_of(seen_table, seen, item)]
        # Others may be co-visited without being among the best: they keep their signals.
        if place >= 0:
            signals[n] = seen_signals[place]
        n += 1
    return items[:n], signals[:n]  # type: ignore[return-value]  # see _shares


def heads_of(tops: Mapping[str, Indexes], taken: Mapping[str, int] = TOPS_TAKEN) -> Indexes:
    """The first items of each top list, best first, one list after another."""
    return np.concatenate([NOTHING, *(tops[name][:n] for name, n in taken.items() if name in tops)])


def retrieve(context: Context, lists: Sequence[Neighbours], heads: Indexes) -> Candidates:
    """The best co-visited items, and the heads of the top lists, and own items; each once.

    Parameters
    ----------
    lists
        Neighbours of `context.recent`, in that order.
    heads
        As of `heads_of`.

    Returns
    -------
    Candidates
        At most `CO_VISITED` + `OWN` items, beside the heads.
    """
    seen = co_visited(lists)
    best = np.arange(len(seen.items))
    if len(best) > CO_VISITED:
        best = np.argpartition(-blend(seen.signals), CO_VISITED)[:CO_VISITED]
    others = np.concatenate([heads, context.items[:OWN]])
    return Candidates(*_gathered(best, *seen, others))


def only(items: Indexes, lists: Sequence[Neighbours]) -> Candidates:
    """The given items as candidates, in their order, with what the context says of them."""
    return Candidates(*_gathered(NOTHING, *co_visited(lists), items))
