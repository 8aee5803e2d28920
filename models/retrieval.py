"""Candidates: what a user may want next, out of what was seen together, own items and top lists.

Pure functions on arrays of item indexes; nothing here reads a store or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numba import f4, f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models import layout
from models.alike import NOBODY, Alike
from models.compiled import compiled
from models.context import Context
from models.tables import NOTHING, Floats, Indexes, empty_table, slot_of, table_of

SIGNALS = (
    "next_1", "after_1", "before_1", "day_1", "month_1",
    "both_10", "day_10", "month_10", "root_10", "moment", "alike",
)  # fmt: skip
"""Co-visitation of the last item by channel, then of the last 10 items together: sums of shares,
and of their roots, which count how many of the items agree; then of the items of the newest moment,
one like the other; and what those hold who had several of the last 10 items too."""

N_SIGNALS = len(SIGNALS)
N_CHANNELS = len(layout.PAIR_CHANNELS)
NEXT, AFTER, BEFORE, DAY, MONTH, BOTH = range(N_CHANNELS + 1)
BLENDED = (SIGNALS.index("both_10"), SIGNALS.index("next_1"), SIGNALS.index("day_1"))
BLEND_WEIGHTS = np.array([1.0, 0.5, 0.2])
BOTH_10, DAY_10, MONTH_10, ROOT_10, MOMENT, ALIKE = range(N_CHANNELS, N_SIGNALS)
LEAST = 1e-300
"""Divides nothing by nothing."""

MOMENT_S = 300.0
"""Events so close to the user's newest are of one moment: their order says nothing."""

CO_VISITED = 120
"""Best co-visited items kept as candidates."""

TOPS_TAKEN = {"recent": 100, "week": 30, "new": 20}
"""Candidates from each top list. Those of other lists are among these, or are never right."""

OWN = 50
"""Distinct own items, newest first, that are candidates again."""

FILLING = 1e-3
"""Weight of `alike` in the choice of candidates: it fills up where little was co-visited."""


@compiled(Tuple((i8, f8))(u4[:, ::1], f4[:, ::1], f8[::1], f8[:, ::1]))
def _share(
    words: NDArray[np.uint32], logs: NDArray[np.float32], ages: Floats, shares: Floats
) -> tuple[int, float]:
    """Fill in the shares of one list's records; gives how many there are, and the sum of both."""
    # Elements, not rows: a view made for each record would take as long as its numbers.
    used = 0
    sums = np.full(N_CHANNELS + 1, 0.5)
    while used < len(words) and words[used, 0] > 0:
        for channel in range(N_CHANNELS):
            # A clock read before the list was may lag behind it; the bound keeps that finite.
            log2 = min(np.float64(logs[used, 1 + channel]) - ages[channel], 60.0)
            count = 2.0**log2 if log2 > -100.0 else 0.0
            shares[used, channel] = count
            sums[channel] += count
        count = shares[used, AFTER] + 0.5 * shares[used, BEFORE]
        shares[used, BOTH] = count
        sums[BOTH] += count
        used += 1
    parts = 1.0 / sums
    for at in range(used):
        for channel in range(N_CHANNELS + 1):
            shares[at, channel] *= parts[channel]
    return used, sums[BOTH]


class Neighbours(NamedTuple):
    """What was seen together with one item.

    Attributes
    ----------
    items
        ``(n,)`` distinct item indexes.
    shares
        ``(n, 6)`` decayed counts of each channel, and in the last column of both directions, after
        and half of before; each divided by its sum over the list plus a half.
    """

    items: Indexes
    shares: Floats


def unpack_neighbours(raw: bytes, clock_s: float) -> Neighbours:
    """A stored list at the time `clock_s`; O(records)."""
    words, logs, _ = _joined([raw])
    shares = np.empty((len(words), N_CHANNELS + 1))
    used, _ = _share(words, logs, _ages(clock_s), shares)
    return Neighbours(words[:used, 0].astype(np.int64), shares[:used])


def _joined(
    lists: Sequence[bytes],
) -> tuple[NDArray[np.uint32], NDArray[np.float32], Indexes]:
    """Records of all lists one after another, and the length of each."""
    words = np.frombuffer(bytearray().join(lists), np.uint32).reshape(-1, 1 + N_CHANNELS)
    lengths = np.array([len(raw) // layout.PAIR.itemsize for raw in lists], np.int64)
    return words, words.view(np.float32), lengths


def _ages(clock_s: float) -> Floats:
    ages: Floats = (clock_s - layout.EPOCH) * layout.PAIR_RATES
    return ages


class Candidates(msgspec.Struct, frozen=True, gc=False):
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


NO_CANDIDATES = Candidates(NOTHING, np.empty((0, N_SIGNALS)))


@compiled(
    Tuple((i8[::1], f8[:, ::1], i8[::1]))(
        u4[:, ::1], f4[:, ::1], i8[::1], f8[::1], f8[::1], i8[::1], f8[::1]
    )
)
def _summed(
    words: NDArray[np.uint32],
    logs: NDArray[np.float32],
    lengths: Indexes,
    times: Floats,
    ages: Floats,
    alike_items: Indexes,
    alike_weights: Floats,
) -> tuple[Indexes, Floats, Indexes]:
    """Every item in the lists, its signals, and a table of the items' places."""
    size = len(words) + len(alike_items)
    items, signals = np.empty(size, np.int64), np.zeros((size, N_SIGNALS))
    shares = np.empty((len(words), N_CHANNELS + 1))
    table, n, end = empty_table(size), 0, 0
    for distance in range(len(lengths)):
        start, end = end, end + lengths[distance]
        used, total = _share(words[start:end], logs[start:end], ages, shares)
        fade, root = layout.FADES[distance], math.sqrt(total)
        is_of_moment = times[0] - times[distance] <= MOMENT_S
        for at in range(used):
            item = words[start + at, 0]
            slot = slot_of(table, items, item)
            if table[slot] < 0:
                table[slot], items[n] = n, item
                n += 1
            place = table[slot]
            if distance == 0:
                for channel in range(N_CHANNELS):
                    signals[place, channel] = shares[at, channel]
            signals[place, BOTH_10] += fade * shares[at, BOTH]
            signals[place, DAY_10] += fade * shares[at, DAY]
            signals[place, MONTH_10] += fade * shares[at, MONTH]
            signals[place, ROOT_10] += fade * math.sqrt(shares[at, BOTH])
            if is_of_moment:
                # The count by the root of the sum, as in a cosine; its other half is a feature's.
                signals[place, MOMENT] += root * shares[at, BOTH]
    for at in range(len(alike_items)):
        held = alike_items[at]
        if held == 0:
            continue
        slot = slot_of(table, items, held)
        if table[slot] < 0:
            table[slot], items[n] = n, held
            n += 1
        signals[table[slot], ALIKE] += alike_weights[at]
    return items[:n], signals[:n], table


@compiled(f8[::1](f8[:, ::1]))
def blend(signals: Floats) -> Floats:
    """The score that needs no learning: co-visitation of the last ten, the next, and the day.

    Each signal counts relative to its greatest value among the candidates.
    """
    scores = np.zeros(len(signals))
    for part in range(len(BLENDED)):
        greatest = LEAST
        for at in range(len(signals)):
            greatest = max(greatest, signals[at, BLENDED[part]])
        for at in range(len(signals)):
            scores[at] += BLEND_WEIGHTS[part] / greatest * signals[at, BLENDED[part]]
    return scores


@compiled(i8[::1](f8[::1], i8, i8))
def best_places(scores: Floats, k: int, most: int) -> Indexes:
    """Places of the k best scores, and of more that equal the k-th best, up to `most` in all.

    They are in no order, for most callers put them in another; minus infinity is never among them.
    """
    least = -np.inf
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
    places, n = np.empty(min(most, len(scores)), np.int64), 0
    for better in (True, False):
        for place in range(len(scores)):
            wanted = scores[place] > least if better else scores[place] == least > -np.inf
            if wanted and n < len(places):
                places[n] = place
                n += 1
    return places[:n]


@compiled(f8[::1](f8[::1], i8[::1], i8[::1]))
def without(scores: Floats, items: Indexes, barred: Indexes) -> Floats:
    """The scores, with minus infinity for barred items."""
    left, table = scores.copy(), table_of(barred)
    for place in range(len(items)):
        if table[slot_of(table, barred, items[place])] >= 0:
            left[place] = -np.inf
    return left


@compiled(Tuple((i8[::1], f8[:, ::1]))(i8[::1], i8[::1], i8[::1], i8[::1], f8[:, ::1], i8[::1]))
def _gathered(
    places: Indexes,
    others: Indexes,
    barred: Indexes,
    seen: Indexes,
    seen_signals: Floats,
    seen_table: Indexes,
) -> tuple[Indexes, Floats]:
    """What stands at the places, then others; each once, with its signals, and none barred."""
    size = len(places) + len(others)
    items, signals = np.empty(size, np.int64), np.zeros((size, N_SIGNALS))
    table, n, out = empty_table(size), 0, table_of(barred)
    for at in range(size):
        item = seen[places[at]] if at < len(places) else others[at - len(places)]
        slot = slot_of(table, items, item)
        if table[slot] >= 0 or out[slot_of(out, barred, item)] >= 0:
            continue
        table[slot], items[n] = n, item
        # Others may be co-visited without being among the best: they keep their signals.
        place = seen_table[slot_of(seen_table, seen, item)]
        if place >= 0:
            for signal in range(N_SIGNALS):
                signals[n, signal] = seen_signals[place, signal]
        n += 1
    return items[:n], signals[:n]


@compiled(
    Tuple((i8[::1], f8[:, ::1]))(
        u4[:, ::1], f4[:, ::1], i8[::1], f8[::1], f8, i8[::1], f8[::1],
        i8[::1], i8[::1], i8[::1],
    )
)  # fmt: skip
def _retrieved(
    words: NDArray[np.uint32],
    logs: NDArray[np.float32],
    lengths: Indexes,
    times: Floats,
    clock_s: float,
    alike_items: Indexes,
    alike_weights: Floats,
    heads: Indexes,
    own: Indexes,
    barred: Indexes,
) -> tuple[Indexes, Floats]:
    """`retrieve` as one piece of machine code: each call from Python takes microseconds."""
    ages = (clock_s - layout.EPOCH) * layout.PAIR_RATES
    items, signals, table = _summed(words, logs, lengths, times, ages, alike_items, alike_weights)
    scores = blend(signals)
    greatest = LEAST
    for at in range(len(scores)):
        greatest = max(greatest, signals[at, ALIKE])
    for at in range(len(scores)):
        scores[at] += FILLING / greatest * signals[at, ALIKE]
    best = best_places(without(scores, items, barred), CO_VISITED, CO_VISITED)
    others = np.concatenate((heads, own))
    return _gathered(best, others, barred, items, signals, table)


def heads_of(tops: Mapping[str, Indexes], taken: Mapping[str, int] = TOPS_TAKEN) -> Indexes:
    """The first items of each top list, best first, one list after another."""
    return np.concatenate([NOTHING, *(tops[name][:n] for name, n in taken.items() if name in tops)])


def retrieve(
    context: Context,
    lists: Sequence[bytes],
    heads: Indexes,
    clock_s: float,
    barred: Indexes = NOTHING,
    others: Alike = NOBODY,
) -> Candidates:
    """The best co-visited items, and the heads of the top lists, and own items; each once.

    Parameters
    ----------
    lists
        What the store holds as neighbours of `context.recent`, in that order.
    heads
        As of `heads_of`.
    clock_s
        Time of the newest event, Unix seconds.
    barred
        Items that are no candidates: they take no other's place.
    others
        As of `alike`.

    Returns
    -------
    Candidates
        At most `CO_VISITED` + `OWN` items, beside the heads.
    """
    own = context.items[:OWN]
    return Candidates(
        *_retrieved(*_joined(lists), context.times, clock_s, *others, heads, own, barred)
    )


def only(
    items: Indexes,
    context: Context,
    lists: Sequence[bytes],
    clock_s: float,
    others: Alike = NOBODY,
) -> Candidates:
    """The given items as candidates, in their order, with what the context says of them."""
    seen = _summed(*_joined(lists), context.times, _ages(clock_s), *others)
    return Candidates(*_gathered(NOTHING, items, NOTHING, *seen))
