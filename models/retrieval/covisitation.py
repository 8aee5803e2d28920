"""Co-visitation: stored neighbour lists, their decayed shares, and second-order co-visitation.

Pure functions on arrays; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes, empty_table, insert
from models.machine_code import compiled
from models.state import layout

N_CHANNELS = len(layout.PAIR_CHANNELS)
NEXT, AFTER, BEFORE, DAY, MONTH, BOTH = range(N_CHANNELS + 1)
"""Columns of shares: the stored channels, and both directions (after, and half of before)."""

COUNTS = (layout.BOTH_COUNT, layout.MONTH_COUNT, layout.DAY_COUNT)
"""The stored counts, in the order of the bases in a list's head."""

CODES = np.zeros((len(COUNTS), max(count.codes for count in COUNTS)))
"""Two to the power of each code's steps, by count; 0 for code 0: no count."""
for _row, _count in zip(CODES, COUNTS, strict=True):
    _row[1 : _count.codes] = np.exp2(np.arange(1, _count.codes) * _count.step_log2)

STEPS = np.array([count.step_log2 for count in COUNTS])
RATES = np.array([1 / count.half_life_s for count in COUNTS])

WORD_BYTES = 4
HEAD_WORDS = layout.PAIR_HEAD.size // WORD_BYTES
PAIR_WORDS = layout.PAIR.itemsize // WORD_BYTES
MAX_SHARE = layout.SHARE_CODES - 1
BOTH_PLACE = layout.SHARE_CODES**2
MONTH_PLACE = layout.BOTH_COUNT.codes * BOTH_PLACE

MAX_LOG2 = 60.0
"""Bound of a base's logarithm beside the clock's, should the clock be far behind."""


@compiled(Tuple((i8, f8))(u4[::1], f8[::1], i8[::1], f8[:, ::1]))
def decode_shares(
    words: NDArray[np.uint32], offsets: Floats, items: Indexes, shares: Floats
) -> tuple[int, float]:
    """Write the items and shares of one stored list; returns their number and the sum of `BOTH`."""
    used, scales = 0, np.empty(len(offsets))
    if len(words) <= HEAD_WORDS:
        return 0, 0.5
    for count in range(len(offsets)):
        base = np.int64(np.int32(words[count]))
        scales[count] = 2.0 ** min(base * STEPS[count] - offsets[count], MAX_LOG2)
    sums = np.full(N_CHANNELS + 1, 0.5)
    for at in range(HEAD_WORDS, len(words) - 1, PAIR_WORDS):
        item_day, others = np.int64(words[at]), np.int64(words[at + 1])
        item = item_day & layout.MAX_ITEM_INDEX
        if item == 0:
            break
        code = others // layout.SHARE_CODES % layout.SHARE_CODES
        both = scales[0] * CODES[0, others // BOTH_PLACE % layout.BOTH_COUNT.codes]
        after = both * code / MAX_SHARE
        items[used] = item
        shares[used, NEXT] = after * (others % layout.SHARE_CODES) / MAX_SHARE
        shares[used, AFTER] = after
        shares[used, BEFORE] = 2.0 * both * (MAX_SHARE - code) / MAX_SHARE
        shares[used, DAY] = scales[2] * CODES[2, item_day // (layout.MAX_ITEM_INDEX + 1)]
        shares[used, MONTH] = scales[1] * CODES[1, others // MONTH_PLACE]
        shares[used, BOTH] = both
        for channel in range(N_CHANNELS + 1):
            sums[channel] += shares[used, channel]
        used += 1
    parts = 1.0 / sums
    for place in range(used):
        for channel in range(N_CHANNELS + 1):
            shares[place, channel] *= parts[channel]
    return used, sums[BOTH]


@compiled(Tuple((i8, f8))(u4[::1], f8, i8[::1], f8[::1]))
def decode_both(
    words: NDArray[np.uint32], offset: float, items: Indexes, counts: Floats
) -> tuple[int, float]:
    """Write the items and counts in both directions of one stored list, as `decode_shares` does.

    Returns the number of items, and the sum of the counts.
    """
    used, total = 0, 0.5
    if len(words) <= HEAD_WORDS:
        return used, total
    scale = 2.0 ** min(np.int64(np.int32(words[0])) * STEPS[0] - offset, MAX_LOG2)
    for at in range(HEAD_WORDS, len(words) - 1, PAIR_WORDS):
        item = np.int64(words[at]) & layout.MAX_ITEM_INDEX
        if item == 0:
            break
        code = np.int64(words[at + 1]) // BOTH_PLACE % layout.BOTH_COUNT.codes
        items[used], counts[used] = item, scale * CODES[0, code]
        total += counts[used]
        used += 1
    return used, total


class Neighbours(NamedTuple):
    """Items co-visited with one item.

    Attributes
    ----------
    items
        ``(n,)`` distinct item indexes.
    shares
        ``(n, 6)`` decayed counts by channel, and of both directions in the last column; each
        divided by its sum over the list plus 0.5.
    """

    items: Indexes
    shares: Floats


def unpack_neighbours(raw: bytes, clock_s: float) -> Neighbours:
    """Neighbours in a stored list at the time `clock_s`; O(records)."""
    words, _ = concatenate([raw])
    room = most_pairs(len(words))
    items, shares = np.empty(room, np.int64), np.empty((room, N_CHANNELS + 1))
    used, _ = decode_shares(words, decay_offsets(clock_s), items, shares)
    return Neighbours(items[:used], shares[:used])


@compiled(i8(i8))
def most_pairs(n_words: int) -> int:
    """Pairs that one or more stored lists of so many words have room for, at most."""
    return max(0, n_words - HEAD_WORDS) // PAIR_WORDS


NO_WORDS = np.empty(0, np.uint32)


def concatenate(lists: Sequence[bytes]) -> tuple[NDArray[np.uint32], Indexes]:
    """Words of all stored lists in sequence, and the lists' lengths in words."""
    if not lists:
        return NO_WORDS, NO_ITEMS
    lengths = np.array([len(raw) // WORD_BYTES for raw in lists], np.int64)
    return np.frombuffer(bytearray().join(lists), np.uint32), lengths


def decay_offsets(clock_s: float) -> Floats:
    """``(3,)`` decay of the stored counts' logarithms since `layout.EPOCH`."""
    offsets: Floats = (clock_s - layout.EPOCH) * RATES
    return offsets


MIN_FIRST_ORDER = 60
"""Co-visited items of the recent items from which on no second hop is made."""

MAX_HOPS = 10
"""Items of a second hop: the most co-visited ones of the recent items."""

FULL_LIST_BYTES = (
    layout.PAIR_HEAD.size + (MIN_FIRST_ORDER + layout.SPARE_PAIRS) * layout.PAIR.itemsize
)
"""Least size of a stored list that surely holds `MIN_FIRST_ORDER` items: others may be unused."""


class SecondHops(NamedTuple):
    """Intermediate items of second-order co-visitation.

    Attributes
    ----------
    items, weights
        ``(n,)`` distinct item indexes, and their shares in the recent items' lists, decayed by
        position.
    lists
        Stored neighbour list of each.
    """

    items: Indexes
    weights: Floats
    lists: Sequence[bytes]


NO_SECOND_HOPS = SecondHops(NO_ITEMS, np.empty(0), ())


@compiled(Tuple((i8[::1], f8[::1]))(u4[::1], i8[::1], f8[::1]))
def _strongest(
    words: NDArray[np.uint32], lengths: Indexes, offsets: Floats
) -> tuple[Indexes, Floats]:
    size = most_pairs(len(words))
    items, weights = np.empty(size, np.int64), np.zeros(size)
    listed, shares = np.empty(size, np.int64), np.empty((size, N_CHANNELS + 1))
    table, n, end = empty_table(size), 0, 0
    for distance in range(len(lengths)):
        start, end = end, end + lengths[distance]
        used, _ = decode_shares(words[start:end], offsets, listed, shares)
        for at in range(used):
            place, n = insert(table, items, n, listed[at])
            weights[place] += layout.FADES[distance] * shares[at, BOTH]
        if n >= MIN_FIRST_ORDER:
            return items[:0].copy(), weights[:0].copy()
    # Of equal weights, the first in the order of the lists.
    best = np.argsort(-weights[:n], kind="mergesort")[:MAX_HOPS]
    return items[best], weights[best]


def hop_sources(lists: Sequence[bytes], clock_s: float) -> tuple[Indexes, Floats]:
    """Items of the second hop, most co-visited first, and their weights.

    None if the recent items have `MIN_FIRST_ORDER` co-visited items of their own.

    Parameters
    ----------
    lists
        Stored neighbour lists of the recent items, newest item first.
    """
    if max(map(len, lists), default=0) >= FULL_LIST_BYTES:
        return NO_SECOND_HOPS[:2]
    return _strongest(*concatenate(lists), decay_offsets(clock_s))
