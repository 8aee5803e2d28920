"""Histories that are alike: who had several of a context's items, and what else they hold.

Pure functions on arrays; nothing here reads a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes, empty_table, insert, slot_of, table_of
from models.machine_code import compiled
from models.state import layout

MAX_NEIGHBOURS = 50
"""Owners of histories whose items count, at most: those with most of the context's items."""

LENGTH_POWER = -0.5
"""A history of n events counts with n to this power: long ones share items by chance."""


class NeighbourItems(NamedTuple):
    """What is held by others with several of the context's items.

    Attributes
    ----------
    items, weights
        ``(n,)`` item of each of their events, and how much the event counts.
    """

    items: Indexes
    weights: Floats


NO_NEIGHBOURS = NeighbourItems(NO_ITEMS, np.empty(0))


@compiled(Tuple((i8[::1], f8[::1]))(u4[::1], i8[::1], i8[::1]))
def _nearest(numbers: NDArray[np.uint32], lengths: Indexes, own: Indexes) -> tuple[Indexes, Floats]:
    owners, weights = np.empty(len(numbers), np.int64), np.zeros(len(numbers))
    last = np.full(len(numbers), -1)
    table, n, end = empty_table(len(numbers)), 0, 0
    mine = table_of(own)
    for distance in range(len(lengths)):
        start, end = end, end + lengths[distance]
        for at in range(end - 1, max(start, end - layout.RECENT_OWNERS) - 1, -1):
            owner = numbers[at]
            if mine[slot_of(mine, own, owner)] >= 0:
                continue
            place, n = insert(table, owners, n, owner)
            if last[place] < distance:
                last[place] = distance
                weights[place] += layout.FADES[distance]
    # Of equals the newest: they were met first.
    best = np.argsort(-weights[:n], kind="mergesort")[:MAX_NEIGHBOURS]
    return owners[best], weights[best]


def nearest_users(takers: Sequence[bytes], own: Sequence[int]) -> tuple[Indexes, Floats]:
    """Numbers of the histories with most of a context's items, and their weights, best first.

    Parameters
    ----------
    takers
        What the store holds as owners of each of the context's items, the newest item's first.
    own
        Numbers of the user's own histories, which do not count.
    """
    numbers = np.frombuffer(bytearray().join(takers), np.uint32)
    lengths = np.array([len(raw) // 4 for raw in takers], np.int64)
    return _nearest(numbers, lengths, np.array(own, np.int64))


def neighbour_items(histories: Sequence[bytes | None], weights: Floats) -> NeighbourItems:
    """The stored events of the histories of `nearest_users`; an absent history holds none."""
    head, size = layout.HEAD.itemsize, layout.ENTRY.itemsize
    entries = bytearray().join([raw[head:] for raw in histories if raw])
    lengths = np.array([(len(raw) - head) // size if raw else 0 for raw in histories], np.int64)
    faded = weights * np.maximum(lengths, 1) ** LENGTH_POWER
    items = np.frombuffer(entries, layout.ENTRY)["item"].astype(np.int64)
    return NeighbourItems(items, np.repeat(faded, lengths))
