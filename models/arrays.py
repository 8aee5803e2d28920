"""Arrays of item indexes, and hash tables of them for compiled loops."""

from __future__ import annotations

import numpy as np
from numba import i8
from numba.types import UniTuple
from numpy.typing import NDArray

from models.machine_code import compiled

Indexes = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_ITEMS: Indexes = np.empty(0, np.int64)


@compiled(i8(i8[::1], i8[::1], i8))
def slot_of(table: Indexes, items: Indexes, item: int) -> int:
    """Slot of `item` in a hash table of places in `items`; the table holds -1 there if absent."""
    mask = len(table) - 1
    # Knuth's multiplicative hash: indexes that follow each other go to slots apart.
    slot = ((item * 2654435761) >> 8) & mask
    while table[slot] >= 0 and items[table[slot]] != item:
        slot = (slot + 1) & mask
    return slot


@compiled(i8[::1](i8))
def empty_table(n: int) -> Indexes:
    """Empty hash table for `n` items, at most half full."""
    size = 4
    while size < 2 * n:
        size *= 2
    return np.full(size, -1)


@compiled(i8[::1](i8[::1]))
def table_of(items: Indexes) -> Indexes:
    """Hash table of these items for `slot_of`; for equal items it holds the last place."""
    table = empty_table(len(items))
    for place in range(len(items)):
        table[slot_of(table, items, items[place])] = place
    return table


@compiled(UniTuple(i8, 2)(i8[::1], i8[::1], i8, i8))
def insert(table: Indexes, items: Indexes, n: int, item: int) -> tuple[int, int]:
    """Find an item among the first n, or append it; returns its place and the new n.

    `table` holds the places of these items; both arrays have room for one more.
    """
    slot = slot_of(table, items, item)
    place = table[slot]
    if place >= 0:
        return place, n
    # A branch, so that the processor can start on the next item before this lookup has ended.
    table[slot], items[n] = n, item
    return n, n + 1
