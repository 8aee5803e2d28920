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
    items, times, counts, strong, positions, frequencies
        ``(m,)``, for every distinct item of the history, newest first: item index, Unix seconds of
        its last event, its number of events, 1 if its last event is of a strong type, events back
        to it (1 for the newest), and moments that have it, each `MOMENT_FADE` of the one after it.
    length
        Events in the history that are not negative.
    n_negative
        The others: see `models.retrieval.negative_feedback`.
    """

    recent: Indexes
    items: Indexes
    times: Floats
    counts: Floats
    strong: Floats
    positions: Floats
    frequencies: Floats
    length: int
    n_negative: int = 0

    @property
    def last_item(self) -> int:
        """Index of the newest item; 0 for none."""
        return int(self.recent[0]) if len(self.recent) else 0


MOMENT_S = 300.0
"""Events of a user this close to the next one are of one moment, such as a basket: their order
carries no information."""

MOMENT_FADE = 0.95
"""Weight in `frequencies` of a moment beside the one after it."""

EVENT_TYPES = Array(u1, 1, "A", readonly=True)
"""Numba type of the event types in a stored history: strided and read-only."""


@compiled(Tuple((i8[::1], f8[:, ::1], i8, i8))(i8[::1], i8[::1], EVENT_TYPES, b1[::1]))
def _distilled(
    items: Indexes, times: Indexes, types: NDArray[np.uint8], strong_types: NDArray[np.bool_]
) -> tuple[Indexes, Floats, int, int]:
    distinct, columns = np.empty(len(items), np.int64), np.empty((5, len(items)))
    moments, moment, fade, later = np.empty(len(items), np.int64), 0, 1.0, 0
    table, n, back, n_negative = empty_table(len(items)), 0, 0, 0
    for at in range(len(items) - 1, -1, -1):
        if items[at] <= 0:
            n_negative += items[at] < 0
            continue
        if back and later - times[at] > MOMENT_S:
            moment, fade = moment + 1, fade * MOMENT_FADE
        later = times[at]
        back += 1
        slot = slot_of(table, distinct, items[at])
        if table[slot] < 0:
            table[slot], distinct[n] = n, items[at]
            columns[0, n], columns[1, n] = times[at], 0.0
            columns[2, n], columns[3, n] = strong_types[types[at]], back
            columns[4, n], moments[n] = 0.0, -1
            n += 1
        place = table[slot]
        columns[1, place] += 1.0
        if moments[place] != moment:
            columns[4, place] += fade
            moments[place] = moment
    return distinct[:n].copy(), columns[:, :n].copy(), back, n_negative


def profile_of(history: History, strong_types: NDArray[np.bool_]) -> UserProfile:
    """Profile of a history; O(events).

    Parameters
    ----------
    strong_types
        ``(256,)`` whether events of a type code weigh more than a click.
    """
    items, columns, length, n_negative = _distilled(
        history.items, history.times, history.types, strong_types
    )
    times, counts, strong, positions, frequencies = columns
    return UserProfile(
        items[: layout.WINDOW], items, times, counts, strong, positions, frequencies, length,
        n_negative,
    )  # fmt: skip
