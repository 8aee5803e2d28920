"""Items with terms in common with another: how a new item is found before anyone has touched it.

Pure functions on arrays; nothing here reads a store.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import b1, f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import Floats, Indexes, empty_table, insert
from models.machine_code import compiled
from models.retrieval.candidates import best_places
from models.retrieval.user_neighbours import NO_NEIGHBOURS, NeighbourItems
from models.state import layout

MAX_SIMILAR = 40
"""Most items that are kept as similar to one."""


@compiled(Tuple((i8[::1], f8[::1]))(u4[::1], i8[::1], i8, b1, i8))
def _similar(
    words: NDArray[np.uint32], lengths: Indexes, item: int, with_warm: bool, most: int
) -> tuple[Indexes, Floats]:
    items, sums = np.empty(len(words), np.int64), np.zeros(len(words))
    n_terms, table, n, end, total = np.ones(len(words)), empty_table(len(words)), 0, 0, 0.0
    for term in range(len(lengths)):
        start, end = end, end + lengths[term]
        if start == end:
            continue
        weight = 1.0 / np.sqrt(max(np.float64(words[start]), 1.0))
        total += weight
        for at in range(start + 1, end):
            entry = int(words[at])
            other = entry % layout.TERM_COUNT_UNIT
            if other == item or (entry >= layout.TERM_WARM and not with_warm):
                continue
            place, n = insert(table, items, n, other)
            sums[place] += weight
            n_terms[place] = (entry % layout.TERM_WARM) // layout.TERM_COUNT_UNIT
    cosines = sums[:n] * sums[:n] / (max(total, 1e-300) * np.maximum(n_terms[:n], 1.0))
    best = best_places(cosines, most, most)
    return items[best], cosines[best]


def similar_items(
    item: int, term_lists: Sequence[bytes | None], *, with_warm: bool
) -> NeighbourItems:
    """The items that share most with one, each once, at most `MAX_SIMILAR`; about 15 µs.

    A weight is the square of a cosine, of which each shared term is a part by the root of how rare
    it is.

    Parameters
    ----------
    term_lists
        Stored list of each term of the item.
    with_warm
        Whether items that have `layout.COLD_EVENTS` count, too.
    """
    words = np.frombuffer(bytearray().join([raw or b"" for raw in term_lists]), np.uint32)
    lengths = np.array([len(raw or b"") // 4 for raw in term_lists], np.int64)
    return NeighbourItems(*_similar(words, lengths, item, with_warm, MAX_SIMILAR))


def total_weights(similar: NeighbourItems) -> dict[int, float]:
    """Weight of each of these items, the sum where it repeats."""
    totals: dict[int, float] = {}
    for item, weight in zip(similar.items.tolist(), similar.weights.tolist(), strict=True):
        totals[item] = totals.get(item, 0.0) + weight
    return totals


def joined(lists: Sequence[NeighbourItems]) -> NeighbourItems:
    """The similar items of a user's recent ones, newest first, the older ones for less."""
    if not any(len(one.items) for one in lists):
        return NO_NEIGHBOURS
    return NeighbourItems(
        np.concatenate([one.items for one in lists]),
        np.concatenate([one.weights * layout.FADES[at] for at, one in enumerate(lists)]),
    )
