"""Histories: the newest events of a user, or of an anonymous session."""

from __future__ import annotations

import struct

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
        is of a negative event, see `layout.ENTRY` and `item_indexes`.
    numbers
        Numbers by which items remember the owner.
    """

    count: int
    accepted_at: float
    items: NDArray[np.int64]
    times: NDArray[np.int64]
    types: NDArray[np.uint8]
    numbers: tuple[int, ...] = ()


HEAD = struct.Struct("<IId")
"""`layout.HEAD`, to unpack a single one."""

NO_EVENTS = np.empty(0, np.int64)
NO_HISTORY = History(0, 0.0, NO_EVENTS, NO_EVENTS, np.empty(0, np.uint8))


def unpack_history(raw: bytes | None) -> History:
    """The history in its stored form; an absent one is empty."""
    if not raw:
        return NO_HISTORY
    count, owner, accepted_at = HEAD.unpack_from(raw)
    entries = np.frombuffer(raw, layout.ENTRY, offset=HEAD.size)
    return History(
        count,
        accepted_at,
        entries["item"].astype(np.int64),
        entries["time"].astype(np.int64),
        entries["type"],
        (owner,),
    )


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
