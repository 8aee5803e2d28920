"""Neighbour lists: what was seen together with an item, out of their stored form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import f4, f8, i8, u4, void
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes
from models.machine_code import compiled
from models.state import layout

N_CHANNELS = len(layout.PAIR_CHANNELS)
NEXT, AFTER, BEFORE, DAY, MONTH, BOTH = range(N_CHANNELS + 1)


EXP2 = np.polynomial.Chebyshev.interpolate(np.exp2, 6, (-0.5, 0.5)).convert(
    kind=np.polynomial.Polynomial
)
"""Two to the power of at most a half, as a polynomial."""

COEFFICIENTS = EXP2.coef.astype(np.float32)
EXPONENT = np.int32(23)
"""The bit at which a float32's exponent begins."""


@compiled(void(f4[::1]))
def exp2_inplace(logs: NDArray[np.float32]) -> None:
    """Two to the power of each number, in its place; 0 below -127, and of 60 what is above.

    To seven digits, and several at once: a call of the library's function for each takes the
    greatest part of all that is done with a list.
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
    words: NDArray[np.uint32], logs: NDArray[np.float32], ages: Floats, shares: Floats
) -> tuple[int, float]:
    """Fill in the shares of one list's records; gives how many there are, and the sum of both."""
    # Elements, not rows: a view made for each record would take as long as its numbers.
    used, counts = 0, np.empty((len(words), N_CHANNELS), np.float32)
    while used < len(words) and words[used, 0] > 0:
        for channel in range(N_CHANNELS):
            counts[used, channel] = logs[used, 1 + channel] - ages[channel]
        used += 1
    # A clock read before the list was may lag behind it; the bound keeps that finite.
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
    words, logs, _ = concatenate([raw])
    shares = np.empty((len(words), N_CHANNELS + 1))
    used, _ = decode_shares(words, logs, decay_offsets(clock_s), shares)
    return Neighbours(words[:used, 0].astype(np.int64), shares[:used])


def concatenate(
    lists: Sequence[bytes],
) -> tuple[NDArray[np.uint32], NDArray[np.float32], Indexes]:
    """Records of all lists one after another, twice for each kind of number, and their lengths."""
    if not lists:
        return NO_RECORDS
    words = np.frombuffer(bytearray().join(lists), np.uint32).reshape(-1, 1 + N_CHANNELS)
    lengths = np.array([len(raw) // layout.PAIR.itemsize for raw in lists], np.int64)
    return words, words.view(np.float32), lengths


def decay_offsets(clock_s: float) -> Floats:
    """``(5,)`` what the logarithms of the channels' counts have lost at a time."""
    lost: Floats = (clock_s - layout.EPOCH) * layout.PAIR_RATES
    return lost
