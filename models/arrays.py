"""Arrays of items, and hash tables of them for compiled loops."""

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


@compiled(i8[::1](i8[::1]))
def table_of(items: Indexes) -> Indexes:
    """A table of these items, for `slot_of`; of equal ones it holds the last place."""
    table = empty_table(len(items))
    for place in range(len(items)):
        table[slot_of(table, items, items[place])] = place
    return table


@compiled(UniTuple(i8, 2)(i8[::1], i8[::1], i8, i8))
def insert(table: Indexes, items: Indexes, n: int, item: int) -> tuple[int, int]:
    """The place of an item among the first n, where it comes last if new; and how many are there.

    `table` holds the places of these items; both have room for one more.
    """
    slot = slot_of(table, items, item)
    place = table[slot]
    if place >= 0:
        return place, n
    # By a branch, so that the next item need not wait for what this one turned out to be.
    table[slot], items[n] = n, item
    return n, n + 1
