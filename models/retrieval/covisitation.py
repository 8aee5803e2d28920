"""Co-visitation: stored neighbour lists, their decayed shares, and second-order co-visitation.

Pure functions on arrays; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import f4, f8, i8, u4, void
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes, empty_table, insert
from models.machine_code import compiled
from models.state import layout

N_CHANNELS = len(layout.PAIR_CHANNELS)
NEXT, AFTER, BEFORE, DAY, MONTH, BOTH = range(N_CHANNELS + 1)
"""Columns of shares: the stored channels, and both directions (after, and half of before)."""

EXP2 = np.polynomial.Chebyshev.interpolate(np.exp2, 6, (-0.5, 0.5)).convert(
    kind=np.polynomial.Polynomial
)
"""Polynomial of 2**x for x from -0.5 to 0.5."""

COEFFICIENTS = EXP2.coef.astype(np.float32)
EXPONENT = np.int32(23)
"""First bit of the exponent of a float32."""


@compiled(void(f4[::1]))
def exp2_inplace(logs: NDArray[np.float32]) -> None:
    """Replace each number by two to its power: 0 below -127, and 2**60 above 60.

    Exact to seven digits, and vectorised: with a library call for each number, this step would take
    most of the time spent on a list.
    """
    bits = logs.view(np.int32)
    for at in range(len(logs)):
        log = min(max(logs[at], np.float32(-127.0)), np.float32(60.0))
        whole = np.floor(log + np.float32(0.5))
        power = COEFFICIENTS[-1]
        for degree in range(len(COEFFICIENTS) - 2, -1, -1):
            power = power * (log - whole) + COEFFICIENTS[degree]
        logs[at] = power
        bits[at] += np.int32(whole) << EXPONENT


@compiled(Tuple((i8, f8))(u4[:, ::1], f4[:, ::1], f8[::1], f8[:, ::1]))
def decode_shares(
    words: NDArray[np.uint32], logs: NDArray[np.float32], offsets: Floats, shares: Floats
) -> tuple[int, float]:
    """Write the shares of one list's records; returns their number and the sum of `BOTH`."""
    # Elements, not rows: making a view for each record costs as much as its numbers.
    used, counts = 0, np.empty((len(words), N_CHANNELS), np.float32)
    while used < len(words) and words[used, 0] > 0:
        for channel in range(N_CHANNELS):
            counts[used, channel] = logs[used, 1 + channel] - offsets[channel]
        used += 1
    # A clock that was read before the list may be behind it; the upper bound keeps counts finite.
    exp2_inplace(counts[:used].reshape(used * N_CHANNELS))
    sums = np.full(N_CHANNELS + 1, 0.5)
    for at in range(used):
        for channel in range(N_CHANNELS):
            count = np.float64(counts[at, channel])
            shares[at, channel] = count
            sums[channel] += count
        count = shares[at, AFTER] + 0.5 * shares[at, BEFORE]
        shares[at, BOTH] = count
        sums[BOTH] += count
    parts = 1.0 / sums
    for at in range(used):
        for channel in range(N_CHANNELS + 1):
            shares[at, channel] *= parts[channel]
    return used, sums[BOTH]


NO_RECORDS = (
    np.empty((0, 1 + N_CHANNELS), np.uint32),
    np.empty((0, 1 + N_CHANNELS), np.float32),
    NO_ITEMS,
)


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
    words, logs, _ = concatenate([raw])
    shares = np.empty((len(words), N_CHANNELS + 1))
    used, _ = decode_shares(words, logs, decay_offsets(clock_s), shares)
    return Neighbours(words[:used, 0].astype(np.int64), shares[:used])


def concatenate(
    lists: Sequence[bytes],
) -> tuple[NDArray[np.uint32], NDArray[np.float32], Indexes]:
    """Records of all lists in sequence, as integers and as floats, and the lists' lengths."""
    if not lists:
        return NO_RECORDS
    words = np.frombuffer(bytearray().join(lists), np.uint32).reshape(-1, 1 + N_CHANNELS)
    lengths = np.array([len(raw) // layout.PAIR.itemsize for raw in lists], np.int64)
    return words, words.view(np.float32), lengths


def decay_offsets(clock_s: float) -> Floats:
    """``(5,)`` decay of the channels' log2 counts since `layout.EPOCH`."""
    offsets: Floats = (clock_s - layout.EPOCH) * layout.PAIR_RATES
    return offsets


MIN_FIRST_ORDER = 60
"""Co-visited items of the recent items from which on no second hop is made."""

MAX_HOPS = 10
"""Items of a second hop: the most co-visited ones of the recent items."""

FULL_LIST_BYTES = (MIN_FIRST_ORDER + layout.SPARE_PAIRS) * layout.PAIR.itemsize
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


@compiled(Tuple((i8[::1], f8[::1]))(u4[:, ::1], f4[:, ::1], i8[::1], f8[::1]))
def _strongest(
    words: NDArray[np.uint32], logs: NDArray[np.float32], lengths: Indexes, offsets: Floats
) -> tuple[Indexes, Floats]:
    items, weights = np.empty(len(words), np.int64), np.zeros(len(words))
    shares = np.empty((len(words), N_CHANNELS + 1))
    table, n, end = empty_table(len(words)), 0, 0
    for distance in range(len(lengths)):
        start, end = end, end + lengths[distance]
        used, _ = decode_shares(words[start:end], logs[start:end], offsets, shares)
        for at in range(used):
            place, n = insert(table, items, n, words[start + at, 0])
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
