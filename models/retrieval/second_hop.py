"""Second hops: what was seen together with what was seen together with a context's items.

Where little was seen together with them, that is most of what can be said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import f4, f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes, empty_table, insert
from models.machine_code import compiled
from models.retrieval.covisitation import (
    BOTH,
    N_CHANNELS,
    concatenate,
    decay_offsets,
    decode_shares,
)
from models.state import layout

MIN_FIRST_ORDER = 60
"""Items seen together with a context from which on nothing further is looked for."""

HOPS = 10
"""Items from which it is looked further: those seen together most with the context."""

FULL_LIST_BYTES = (MIN_FIRST_ORDER + layout.SPARE_PAIRS) * layout.PAIR.itemsize
"""A stored list of so many bytes holds `MIN_FIRST_ORDER` items, and free places beside them."""


class SecondHops(NamedTuple):
    """Items from which to look further.

    Attributes
    ----------
    items, weights
        ``(n,)`` distinct item indexes, and the sum of their faded shares in the context's lists.
    lists
        What the store holds as their neighbours.
    """

    items: Indexes
    weights: Floats
    lists: Sequence[bytes]


NO_SECOND_HOPS = SecondHops(NO_ITEMS, np.empty(0), ())


@compiled(Tuple((i8[::1], f8[::1]))(u4[:, ::1], f4[:, ::1], i8[::1], f8[::1]))
def _strongest(
    words: NDArray[np.uint32], logs: NDArray[np.float32], lengths: Indexes, lost: Floats
) -> tuple[Indexes, Floats]:
    items, weights = np.empty(len(words), np.int64), np.zeros(len(words))
    shares = np.empty((len(words), N_CHANNELS + 1))
    table, n, end = empty_table(len(words)), 0, 0
    for distance in range(len(lengths)):
        start, end = end, end + lengths[distance]
        used, _ = decode_shares(words[start:end], logs[start:end], lost, shares)
        for at in range(used):
            place, n = insert(table, items, n, words[start + at, 0])
            weights[place] += layout.FADES[distance] * shares[at, BOTH]
        if n >= MIN_FIRST_ORDER:
            return items[:0].copy(), weights[:0].copy()
    # Of equals the one met first.
    best = np.argsort(-weights[:n], kind="mergesort")[:HOPS]
    return items[best], weights[best]


def hop_sources(lists: Sequence[bytes], clock_s: float) -> tuple[Indexes, Floats]:
    """The items most seen together with a context's, best first, and their weights.

    None where that many were seen together with them that there is no need to look further.

    Parameters
    ----------
    lists
        What the store holds as neighbours of the context's recent items, in that order.
    """
    if max(map(len, lists), default=0) >= FULL_LIST_BYTES:
        return NO_SECOND_HOPS[:2]
    return _strongest(*concatenate(lists), decay_offsets(clock_s))
