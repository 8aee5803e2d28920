"""User k-NN: the users and sessions that share most items with a history, and their items.

Pure functions on arrays; nothing here reads a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import f8, i8, u1, u4, void
from numba.types import Array, Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes, empty_table, insert, slot_of, table_of
from models.machine_code import compiled
from models.state import layout
from models.state.histories import HASH_BYTES, HEAD_BYTES

MAX_NEIGHBOURS = 50
"""Neighbours at most: the histories that share most of the recent items."""

LENGTH_POWER = -0.5
"""Events of a history of n count n to this power: long histories share items by chance."""


RAW = Array(u1, 1, "C", readonly=True)
"""Numba type of stored bytes."""

HISTORY_SIZE_AT = HEAD_BYTES - 4
"""Offset of the number of events in the head of a stored history; its flags are behind it."""


class NeighbourItems(NamedTuple):
    """Items of the neighbours' histories.

    Attributes
    ----------
    items, weights
        ``(n,)`` item index and weight of each event; items repeat.
    """

    items: Indexes
    weights: Floats


NO_NEIGHBOURS = NeighbourItems(NO_ITEMS, np.empty(0))


@compiled(Tuple((i8[::1], f8[::1]))(u4[::1], i8[::1], i8[::1]))
def _nearest(numbers: NDArray[np.uint32], lengths: Indexes, own: Indexes) -> tuple[Indexes, Floats]:
    owners, weights = np.empty(len(numbers), np.int64), np.zeros(len(numbers))
    last = np.full(len(numbers), -1)
    table, n, end = empty_table(len(numbers)), 0, 0
    own_table = table_of(own)
    for distance in range(len(lengths)):
        start, end = end, end + lengths[distance]
        for at in range(end - 1, max(start, end - layout.RECENT_OWNERS) - 1, -1):
            owner = numbers[at]
            if own_table[slot_of(own_table, own, owner)] >= 0:
                continue
            place, n = insert(table, owners, n, owner)
            if last[place] < distance:
                last[place] = distance
                weights[place] += layout.FADES[distance]
    # Of equal weights, the owner of the newest event.
    best = np.argsort(-weights[:n], kind="mergesort")[:MAX_NEIGHBOURS]
    return owners[best], weights[best]


def nearest_users(recent_owners: Sequence[bytes], own: Sequence[int]) -> tuple[Indexes, Floats]:
    """Numbers of the histories that share most recent items, and their weights, nearest first.

    Parameters
    ----------
    recent_owners
        Stored numbers of the histories that had each recent item last, newest item first.
    own
        Numbers of the user's own histories, which are left out.
    """
    numbers = np.frombuffer(bytearray().join(recent_owners), layout.HISTORY_NUMBER)
    lengths = np.array([len(raw) // 4 for raw in recent_owners], np.int64)
    return _nearest(numbers, lengths, np.array(own, np.int64))


@compiled(void(RAW, i8, i8, i8, i8[::1]))
def _write_items(raw: NDArray[np.uint8], start: int, n: int, flags: int, items: Indexes) -> None:
    """Write the items of a stored history that starts in `raw`, as `unpack_history` gives them."""
    width = 3 if flags & layout.HAS_WIDE_ITEMS else 2
    at = start + HEAD_BYTES + n * HASH_BYTES
    effects_at = at + n * width + (n if flags & layout.HAS_TYPES else 0)
    for k in range(n):
        items[k] = raw[at] + 2**8 * np.int64(raw[at + 1])
        if width == 3:
            items[k] += 2**16 * np.int64(raw[at + 2])
        if flags & layout.HAS_EFFECTS and raw[effects_at + k]:
            items[k] = -(items[k] + np.int64(raw[effects_at + k]) * layout.EFFECT_PLACE)
        at += width


@compiled(Tuple((i8[::1], f8[::1]))(RAW, i8[::1], f8[::1]))
def _neighbour_items(
    joined: NDArray[np.uint8], sizes: Indexes, weights: Floats
) -> tuple[Indexes, Floats]:
    n_events, flags, start = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64), 0
    for place in range(len(sizes)):
        if sizes[place]:
            n_at = start + HISTORY_SIZE_AT
            n_events[place] = joined[n_at] + 2**8 * np.int64(joined[n_at + 1])
            flags[place] = joined[n_at + 2]
        start += sizes[place]
    items, by_event = np.empty(n_events.sum(), np.int64), np.empty(n_events.sum())
    start, used = 0, 0
    for place in range(len(sizes)):
        n = n_events[place]
        if n:
            _write_items(joined, start, n, flags[place], items[used : used + n])
            by_event[used : used + n] = weights[place] * n**LENGTH_POWER
        start, used = start + sizes[place], used + n
    return items, by_event


def neighbour_items(histories: Sequence[bytes | None], weights: Floats) -> NeighbourItems:
    """Items in the stored histories of `nearest_users`; a missing history has none."""
    sizes = np.array([len(raw) if raw else 0 for raw in histories], np.int64)
    joined = np.frombuffer(b"".join([raw for raw in histories if raw]), np.uint8)
    return NeighbourItems(*_neighbour_items(joined, sizes, weights))
