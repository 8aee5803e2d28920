"""User profiles: histories distilled for scoring."""

from __future__ import annotations

import msgspec
import numpy as np
from numba import b1, f8, i8, u1
from numba.types import Array, Tuple
from numpy.typing import NDArray

from models.arrays import Floats, Indexes, empty_table, slot_of
from models.machine_code import compiled
from models.state import layout
from models.state.histories import History


class UserProfile(msgspec.Struct, frozen=True, gc=False):
    """A user's history, distilled for scoring.

    Attributes
    ----------
    recent
        ``(n,)`` distinct items, newest first, at most `layout.WINDOW`.
    items, times, counts, strong, positions
        ``(m,)``, for every distinct item of the history, newest first: item index, Unix seconds of
        its last event, its number of events, 1 if its last event is of a strong type, and events
        back to it (1 for the newest).
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


EVENT_TYPES = Array(u1, 1, "A", readonly=True)
"""Numba type of the event types in a stored history: strided and read-only."""


@compiled(Tuple((i8[::1], f8[:, ::1], i8))(i8[::1], i8[::1], EVENT_TYPES, b1[::1]))
def _distilled(
    items: Indexes, times: Indexes, types: NDArray[np.uint8], strong_types: NDArray[np.bool_]
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
            columns[2, n], columns[3, n] = strong_types[types[at]], back
            n += 1
        columns[1, table[slot]] += 1.0
    return distinct[:n].copy(), columns[:, :n].copy(), back


def profile_of(history: History, strong_types: NDArray[np.bool_]) -> UserProfile:
    """Profile of a history; O(events).

    Parameters
    ----------
    strong_types
        ``(256,)`` whether events of a type code weigh more than a click.
    """
    items, columns, length = _distilled(history.items, history.times, history.types, strong_types)
    times, counts, strong, positions = columns
    return UserProfile(items[: layout.WINDOW], items, times, counts, strong, positions, length)
