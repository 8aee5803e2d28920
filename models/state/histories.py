"""Histories: the newest events of a user, or of an anonymous session."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

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

NO_EVENTS = np.empty(0, np.int64)
NO_HISTORY = History(0, 0.0, NO_EVENTS, NO_EVENTS, np.empty(0, np.uint8))


def _items(raw: bytes, n: int, flags: int) -> tuple[NDArray[np.int64], int]:
    """Items of a stored history, and the position of what stands behind them."""
    at = HEAD_BYTES + n * HASH_BYTES
    if not flags & layout.HAS_WIDE_ITEMS:
        return np.frombuffer(raw, "<u2", n, at).astype(np.int64), at + 2 * n
    places = np.frombuffer(raw, np.uint8, 3 * n, at).reshape(n, 3).astype(np.int64)
    return places @ np.array([1, 2**8, 2**16]), at + 3 * n


def _times(gaps: bytes, n: int, last: int) -> NDArray[np.int64]:
    """Times of n events, from the codes of the gaps between them."""
    since, times = 0, [0] * min(n, 1)
    left = iter(gaps)
    for first in left:
        if first < layout.TWO_BYTES:
            since += first
        elif first < layout.THREE_BYTES:
            since += layout.FIRST_OF_TWO + (first - layout.TWO_BYTES << 8) + next(left)
        elif first < layout.FIVE_BYTES:
            high = (first - layout.THREE_BYTES << 8) + next(left)
            since += layout.FIRST_OF_THREE + (high << 8) + next(left)
        else:
            since += int.from_bytes(bytes(next(left) for _ in range(4)), "big")
        times.append(since)
    return np.array(times, np.int64) + (last - since)


def unpack_history(raw: bytes | None) -> History:
    """The history in its stored form; an absent one is empty."""
    if not raw:
        return NO_HISTORY
    count, owner, accepted_at, last, n, flags, type_code = layout.HISTORY_HEAD.unpack_from(raw)
    items, at = _items(raw, n, flags)
    if flags & layout.HAS_TYPES:
        types = np.frombuffer(raw, np.uint8, n, at)
        at += n
    else:
        types = np.full(n, type_code, np.uint8)
    if flags & layout.HAS_EFFECTS:
        negative = np.frombuffer(raw, np.uint8, n, at).astype(np.int64)
        items = np.where(negative > 0, -(items + negative * layout.EFFECT_PLACE), items)
        at += n
    times = _times(raw[at:], n, last)
    return History(count, accepted_at, items, times, types, (owner,))


def event_hashes(raw: bytes | None) -> NDArray[np.void]:
    """Hash of the id of each event in a stored history, as `layout.EVENT_HASH`, oldest first."""
    if not raw:
        return np.empty(0, layout.EVENT_HASH)
    n = layout.HISTORY_HEAD.unpack_from(raw)[4]
    return np.frombuffer(raw, layout.EVENT_HASH, count=n, offset=HEAD_BYTES)


def hash_numbers(hashes: NDArray[np.void]) -> NDArray[np.uint64]:
    """Hashes of ids as numbers, as `models.events.event_hash` gives them, ``(n,)``.

    >>> hash_numbers(np.array([b"ab"], layout.EVENT_HASH)).tolist()
    [25185]
    """
    found = np.zeros((len(hashes), 8), np.uint8)
    found[:, :HASH_BYTES] = hashes.view(np.uint8).reshape(len(hashes), HASH_BYTES)
    return found.view("<u8")[:, 0]


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
