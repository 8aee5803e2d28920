"""Diversity of a list: a dial between the order of scores and items that differ from each other.

Maximal marginal relevance (Carbonell and Goldstein 1998, "The use of MMR, diversity-based reranking
for reordering documents and producing summaries").

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import numpy as np
from numba import f8, i8
from numpy.typing import NDArray

from models.arrays import Floats, Indexes
from models.machine_code import compiled
from models.retrieval.covisitation import concatenate, decay_offsets, decode_both, most_pairs


def mmr_order(similarity: Floats, diversity: float, k: int) -> list[int]:
    """Places of a ranked list in a new order, the first k of them chosen; the rest in its order.

    Each next item has the greatest of relevance less similarity, weighted: relevance falls evenly
    from 1 to 0 with the place in the list, whatever its scores; similarity is that to the most
    similar of the items before it.

    Some µs for 50 items and k of 25.

    Parameters
    ----------
    similarity
        ``(n, n)`` in [0, 1], symmetric.
    diversity
        The dial, in [0, 1]: 0 leaves the order as it is, 1 looks at similarity alone.

    Examples
    --------
    >>> alike = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> mmr_order(alike, 0.6, 2), mmr_order(alike, 0.0, 2)
    ([0, 2, 1], [0, 1, 2])
    """
    order: list[int] = _mmr_order(similarity, float(diversity), k).tolist()
    return order


@compiled(i8[::1](f8[:, ::1], f8, i8))
def _mmr_order(similarity: Floats, diversity: float, k: int) -> Indexes:
    n = len(similarity)
    order, nearest, is_left = np.empty(n, np.int64), np.zeros(n), np.ones(n, np.bool_)
    used = 0
    for _ in range(min(k, n)):
        best, greatest = -1, -np.inf
        for place in range(n):
            if is_left[place]:
                marginal = (1.0 - diversity) * (1.0 - place / n) - diversity * nearest[place]
                if marginal > greatest:
                    best, greatest = place, marginal
        is_left[best] = False
        order[used] = best
        used += 1
        for place in range(n):
            nearest[place] = max(nearest[place], similarity[best, place])
    for place in range(n):
        if is_left[place]:
            order[used] = place
            used += 1
    return order


def similarity_of(
    items: Indexes, groups: Sequence[Collection[Hashable]], lists: Sequence[bytes], clock_s: float
) -> Floats:
    """Similarity of each two items: that of their categories, or of who took both if it is greater.

    ``(n, n)`` in [0, 1], symmetric. Some µs an item.

    Parameters
    ----------
    items
        ``(n,)`` distinct indexes.
    groups
        Categories of each item: the share that two have in common of all that they have (Jaccard).
    lists
        Stored neighbour list of each item at the time `clock_s`: the count of the other in it,
        relative to the greatest count.
    """
    n = len(items)
    columns: dict[Hashable, int] = {}
    has = np.zeros((n, sum(map(len, groups))))
    for place, own in enumerate(groups):
        for name in own:
            has[place, columns.setdefault(name, len(columns))] = 1.0
    common, sizes = has @ has.T, has.sum(axis=1)
    found: Floats = common / np.maximum(sizes[:, None] + sizes[None, :] - common, 1.0)
    words, lengths = concatenate(lists)
    _take_greater(found, words, lengths, float(decay_offsets(clock_s)[0]), items, np.argsort(items))
    return found


@compiled("void(f8[:, ::1], u4[::1], i8[::1], f8, i8[::1], i8[::1])")
def _take_greater(
    found: Floats,
    words: NDArray[np.uint32],
    lengths: Indexes,
    offset: float,
    items: Indexes,
    order: Indexes,
) -> None:
    """Raise similarities to relative counts of co-visitation, in both directions; 1 to itself."""
    room = most_pairs(len(words))
    listed, counts = np.empty(room, np.int64), np.empty(room)
    ordered, end = items[order], 0
    for place in range(len(lengths)):
        start, end = end, end + lengths[place]
        used, _ = decode_both(words[start:end], offset, listed, counts)
        greatest = 0.0
        for at in range(used):
            greatest = max(greatest, counts[at])
        if greatest > 0.0:
            for at in range(used):
                near = np.searchsorted(ordered, listed[at])
                if near < len(ordered) and ordered[near] == listed[at]:
                    other, share = order[near], counts[at] / greatest
                    share = max(share, found[place, other])
                    found[place, other] = found[other, place] = share
    for place in range(len(items)):
        found[place, place] = 1.0
