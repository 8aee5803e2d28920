"""Histories: the newest events of a user, or of an anonymous session."""

from __future__ import annotations

import msgspec
import numpy as np
from numba import i8, u1
from numba.types import Array, Tuple
from numpy.typing import NDArray

from models.arrays import Indexes
from models.machine_code import compiled
from models.state import layout


class History(msgspec.Struct, frozen=True, gc=False):
    """The newest events of a user or session, oldest first.

    Attributes
    ----------
    count
        Events ever applied, trimmed ones included.
    accepted_at
        When the newest applied event was accepted, Unix seconds; 0 without one.
    items, times, types
        ``(n,)`` arrays of item index, Unix seconds and type code. An item of 0 is none; one below 0
        is of a negative event, see `layout.EFFECT_PLACE` and `item_indexes`.
    numbers
        Numbers by which items remember the owner.
    """

    count: int
    accepted_at: float
    items: NDArray[np.int64]
    times: NDArray[np.int64]
    types: NDArray[np.uint8]
    numbers: tuple[int, ...] = ()


HEAD_BYTES = layout.HISTORY_HEAD.size
HASH_BYTES = layout.EVENT_HASH.itemsize

RAW = Array(u1, 1, "C", readonly=True)
"""Numba type of stored bytes."""

NO_EVENTS = np.empty(0, np.int64)
NO_HISTORY = History(0, 0.0, NO_EVENTS, NO_EVENTS, np.empty(0, np.uint8))


@compiled(i8(RAW, i8, i8, i8, i8[::1]))
def write_items(raw: NDArray[np.uint8], start: int, n: int, flags: int, items: Indexes) -> int:
    """Write the items of a history that starts in `raw`; returns the position of its types.

    Its effects stand behind its types, if it has any: items of negative events are below 0.
    """
    width = 3 if flags & layout.HAS_WIDE_ITEMS else 2
    at = start + HEAD_BYTES + n * HASH_BYTES
    types_at = at + n * width
    for k in range(n):
        items[k] = raw[at] | raw[at + 1] << 8
        if width == 3:
            items[k] |= raw[at + 2] << 16
        at += width
    if flags & layout.HAS_EFFECTS:
        effects_at = types_at + (n if flags & layout.HAS_TYPES else 0)
        for k in range(n):
            if raw[effects_at + k]:
                items[k] = -(items[k] + raw[effects_at + k] * layout.EFFECT_PLACE)
    return types_at


@compiled(Tuple((i8[::1], i8[::1], u1[::1]))(RAW, i8, i8, i8, i8))
def _events(
    raw: NDArray[np.uint8], n: int, flags: int, type_code: int, last: int
) -> tuple[Indexes, Indexes, NDArray[np.uint8]]:
    items, times = np.empty(n, np.int64), np.empty(n, np.int64)
    types = np.full(n, type_code, np.uint8)
    at = write_items(raw, 0, n, flags, items)
    if flags & layout.HAS_TYPES:
        types[:] = raw[at : at + n]
        at += n
    if flags & layout.HAS_EFFECTS:
        at += n
    since = np.int64(0)
    for k in range(n):
        if k:
            first = np.int64(raw[at])
            if first < layout.TWO_BYTES:
                since += first
                at += 1
            elif first < layout.THREE_BYTES:
                since += layout.FIRST_OF_TWO + (first - layout.TWO_BYTES << 8) + raw[at + 1]
                at += 2
            elif first < layout.FIVE_BYTES:
                since += layout.FIRST_OF_THREE + (first - layout.THREE_BYTES << 16)
                since += (raw[at + 1] << 8) + raw[at + 2]
                at += 3
            else:
                for place in range(1, 5):
                    first = first << 8 | raw[at + place]
                since += first & 0xFFFFFFFF
                at += 5
        times[k] = since
    times += last - since
    return items, times, types


def unpack_history(raw: bytes | None) -> History:
    """The history in its stored form; an absent one is empty."""
    if not raw:
        return NO_HISTORY
    count, owner, accepted_at, last, n, flags, type_code = layout.HISTORY_HEAD.unpack_from(raw)
    items, times, types = _events(np.frombuffer(raw, np.uint8), n, flags, type_code, last)
    return History(count, accepted_at, items, times, types, (owner,))


def event_hashes(raw: bytes | None) -> NDArray[np.uint32]:
    """Hash of the id of each event in a stored history, oldest first, ``(n,)``."""
    if not raw:
        return np.empty(0, layout.EVENT_HASH)
    n = layout.HISTORY_HEAD.unpack_from(raw)[4]
    return np.frombuffer(raw, layout.EVENT_HASH, count=n, offset=HEAD_BYTES)


def item_indexes(history: History) -> NDArray[np.int64]:
    """Index of the item of each event, negative ones included; 0 for none, ``(n,)``.

    >>> disliked = layout.HIDES * layout.EFFECT_PLACE + 7
    >>> items, none = np.array([3, -disliked]), np.zeros(2)
    >>> item_indexes(History(2, 0.0, items, none, none.astype(np.uint8))).tolist()
    [3, 7]
    """
    return np.abs(history.items) % layout.EFFECT_PLACE


def last_item(history: History) -> NDArray[np.int64]:
    """Item of the newest event that has one and is not negative, ``(1,)``; ``(0,)`` without one.

    >>> items, none = np.array([3, -layout.EFFECT_PLACE - 7, 0]), np.zeros(3)
    >>> last_item(History(3, 0.0, items, none, none.astype(np.uint8))).tolist()
    [3]
    """
    return history.items[history.items > 0][-1:]


def effects(history: History) -> NDArray[np.int64]:
    """Effect of each event, ``(n,)``; 0 for those that are not negative."""
    found: NDArray[np.int64] = np.maximum(-history.items, 0) // layout.EFFECT_PLACE
    return found


def merge_histories(one: History, other: History) -> History:
    """Events of both, by time: of a user, and of a session that has not been joined to it yet."""
    if not len(other.items):
        return one
    if not len(one.items):
        return other
    times = np.concatenate([one.times, other.times])
    order = np.argsort(times, kind="stable")
    return History(
        one.count + other.count,
        max(one.accepted_at, other.accepted_at),
        np.concatenate([one.items, other.items])[order],
        times[order],
        np.concatenate([one.types, other.types])[order],
        one.numbers + other.numbers,
    )
