"""What a recommendation starts from: a user's recent events, distilled."""

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


TYPES = Array(u1, 1, "A", readonly=True)
"""Types of events, as they stand in what was read."""


@compiled(Tuple((i8[::1], f8[:, ::1], i8))(i8[::1], i8[::1], TYPES, b1[::1]))
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
    """The context that a history gives; O(events).

    Parameters
    ----------
    strong_types
        ``(256,)``, whether events of a type code weigh more than a click.
    """
    items, columns, length = _distilled(history.items, history.times, history.types, strong_types)
    times, counts, strong, positions = columns
    return UserProfile(items[: layout.WINDOW], items, times, counts, strong, positions, length)
