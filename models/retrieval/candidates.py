"""Candidates of a request, merged from the evidence of all candidate sources.

Pure functions on arrays of item indexes; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numba import f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes, empty_table, slot_of, table_of
from models.machine_code import compiled
from models.retrieval.covisitation import (
    NO_SECOND_HOPS,
    RATES,
    SecondHops,
    concatenate,
    decay_offsets,
)
from models.retrieval.item_factors import NO_FACTORS, ItemFactors, user_factors
from models.retrieval.profile import UserProfile
from models.retrieval.signals import (
    ALIKE,
    FACTORS,
    N_SIGNALS,
    PROFILE,
    TEXT,
    TINY,
    blend,
    summed_signals,
)
from models.retrieval.user_neighbours import NO_NEIGHBOURS, NeighbourItems
from models.state import layout

MAX_CO_VISITED = 120
"""Candidates with signals: the best co-visited items."""

TOP_LIST_SIZES = {"recent": 100, "week": 30, "new": 20}
"""Candidates from each top list. Other lists' items are among these, or never the taken ones."""

MAX_REPEAT_ITEMS = 150
"""Distinct own items, newest first, that are candidates again."""

MAX_SIMILAR_TEXTS = 30
"""Candidates for their texts, beside those that were co-visited."""

MAX_OF_PROFILE = 40
"""Candidates of `profile`, beside the best co-visited ones."""

USER_KNN_RECALL_WEIGHT = 1e-3
"""Weight of `alike` in the choice of candidates: it fills up where few items were co-visited."""


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """Everything that the candidate sources found for one request.

    Attributes
    ----------
    neighbour_lists
        Stored neighbour list of each recent item of the profile, in that order.
    older_lists
        The same of the profile's items before those, up to `PROFILE_ITEMS` in all.
    recent_owners
        Stored numbers of the histories that had each recent item last, in that order.
    user_knn
        Items of the nearest users.
    similar_texts
        Items with texts like those of recent items.
    factors
        Factors of the group's items.
    second_hops
        Intermediate items of second-order co-visitation, with their stored lists.
    own_items
        Items of the user's history, newest first; candidates are the first `MAX_REPEAT_ITEMS`.
    listed_items
        Candidates without signals of their own, such as those of top lists. They keep the signals
        that they have from other evidence. Items may repeat.
    max_unseen
        Most `listed_items` that become candidates without being co-visited or own; the first ones.
        None for all.
    """

    neighbour_lists: Sequence[bytes] = ()
    older_lists: Sequence[bytes] = ()
    recent_owners: Sequence[bytes] = ()
    user_knn: NeighbourItems = NO_NEIGHBOURS
    second_hops: SecondHops = NO_SECOND_HOPS
    similar_texts: NeighbourItems = NO_NEIGHBOURS
    factors: ItemFactors = NO_FACTORS
    own_items: Indexes = NO_ITEMS
    listed_items: Indexes = NO_ITEMS
    max_unseen: int | None = None


NO_EVIDENCE = Evidence()


class Candidates(msgspec.Struct, frozen=True, gc=False):
    """Items that may be recommended in one answer, with their signals.

    Attributes
    ----------
    items
        ``(n,)`` distinct item indexes.
    signals
        ``(n, len(SIGNALS))``, 0 where there is no evidence.
    """

    items: Indexes
    signals: Floats


@compiled(i8[::1](f8[::1], i8, i8))
def best_places(scores: Floats, k: int, most: int) -> Indexes:
    """Places of the k best scores and of ties with the k-th, up to `most` in all.

    In no order, since most callers sort them anyway. Minus infinity is never among them.
    """
    least = -np.inf
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
    places, n = np.empty(min(most, len(scores)), np.int64), 0
    for better in (True, False):
        for place in range(len(scores)):
            wanted = scores[place] > least if better else scores[place] == least > -np.inf
            if wanted and n < len(places):
                places[n] = place
                n += 1
    return places[:n]


@compiled(i8[::1](f8[:, ::1], i8, f8[::1], i8))
def _best_by(signals: Floats, signal: int, scores: Floats, k: int) -> Indexes:
    """Places of the k items with most of one signal, of those with a finite score."""
    values = np.full(len(signals), -np.inf)
    for place in range(len(signals)):
        if signals[place, signal] > 0.0 and scores[place] > -np.inf:
            values[place] = signals[place, signal]
    return best_places(values, k, k)


@compiled(
    Tuple((i8[::1], f8[:, ::1]))(
        i8[::1], i8[::1], i8, i8[::1], i8[::1], i8[::1], f8[:, ::1], i8[::1],
    )
)  # fmt: skip
def _merged(
    best: Indexes,
    listed: Indexes,
    max_unseen: int,
    own: Indexes,
    barred: Indexes,
    found: Indexes,
    found_signals: Floats,
    found_table: Indexes,
) -> tuple[Indexes, Floats]:
    """Found items at the best places, then listed ones, then own ones; each once, with signals.

    Without barred items. Of listed items that are neither found nor own, only the first
    `max_unseen`.
    """
    repeats = own[:MAX_REPEAT_ITEMS]
    size = len(best) + len(listed) + len(repeats)
    items, signals = np.empty(size, np.int64), np.zeros((size, N_SIGNALS))
    table, n, barred_table, own_table = empty_table(size), 0, table_of(barred), table_of(own)
    for at in range(size):
        if at < len(best):
            place = best[at]
            item = found[place]
        else:
            at_list = at - len(best)
            item = listed[at_list] if at_list < len(listed) else repeats[at_list - len(listed)]
            if barred_table[slot_of(barred_table, barred, item)] >= 0:
                continue
            # It may be co-visited without being among the best, and keeps its signals.
            place = found_table[slot_of(found_table, found, item)]
        slot = slot_of(table, items, item)
        if table[slot] >= 0:
            continue
        if place < 0 and own_table[slot_of(own_table, own, item)] < 0:
            if max_unseen == 0:
                continue
            max_unseen -= 1
        table[slot], items[n] = n, item
        if place >= 0:
            for signal in range(N_SIGNALS):
                signals[n, signal] = found_signals[place, signal]
        n += 1
    return items[:n], signals[:n]


@compiled(
    Tuple((i8[::1], f8[:, ::1]))(
        u4[::1], i8[::1], i8, f8[::1], f8, i8[::1], f8[::1],
        u4[::1], i8[::1], f8[::1], i8[::1], f8[::1], i8[::1], f8[::1], i8[::1], i8, i8[::1],
        i8[::1],
    )
)  # fmt: skip
def _retrieved(
    words: NDArray[np.uint32],
    lengths: Indexes,
    n_recent: int,
    times: Floats,
    clock_s: float,
    knn_items: Indexes,
    knn_weights: Floats,
    hop_words: NDArray[np.uint32],
    hop_lengths: Indexes,
    hop_weights: Floats,
    text_items: Indexes,
    text_weights: Floats,
    factor_items: Indexes,
    factor_weights: Floats,
    listed: Indexes,
    max_unseen: int,
    own: Indexes,
    barred: Indexes,
) -> tuple[Indexes, Floats]:
    """`retrieve` as one piece of machine code: each call from Python costs microseconds."""
    offsets = (clock_s - layout.EPOCH) * RATES
    items, signals, table = summed_signals(
        words, lengths, n_recent, times, offsets, knn_items, knn_weights, hop_words, hop_lengths,
        hop_weights, text_items, text_weights, factor_items, factor_weights,
    )  # fmt: skip
    scores = blend(signals)
    if len(knn_items):
        filling = USER_KNN_RECALL_WEIGHT / max(signals[:, ALIKE].max(), TINY)
        for at in range(len(scores)):
            scores[at] += filling * signals[at, ALIKE]
    for item in barred:
        place = table[slot_of(table, items, item)]
        if place >= 0:
            scores[place] = -np.inf
    best = best_places(scores, MAX_CO_VISITED, MAX_CO_VISITED)
    if len(text_items):
        best = np.concatenate((best, _best_by(signals, TEXT, scores, MAX_SIMILAR_TEXTS)))
    if len(factor_items):
        best = np.concatenate((best, _best_by(signals, FACTORS, scores, len(factor_items))))
    if len(lengths) > n_recent:
        best = np.concatenate((best, _best_by(signals, PROFILE, scores, MAX_OF_PROFILE)))
    return _merged(best, listed, max_unseen, own, barred, items, signals, table)


def top_list_candidates(
    top_lists: Mapping[str, Indexes], sizes: Mapping[str, int] = TOP_LIST_SIZES
) -> Indexes:
    """First items of each top list, best first, one list after another."""
    return np.concatenate(
        [NO_ITEMS, *(top_lists[name][:n] for name, n in sizes.items() if name in top_lists)]
    )


def retrieve(
    profile: UserProfile, evidence: Evidence, clock_s: float, barred: Indexes = NO_ITEMS
) -> Candidates:
    """Candidates of a request: the best co-visited items, listed items and own items; each once.

    Parameters
    ----------
    clock_s
        Time of the newest event, Unix seconds.
    barred
        Items that are no candidates; they take no other item's place.

    Returns
    -------
    Candidates
        At most `MAX_CO_VISITED` + `MAX_SIMILAR_TEXTS` + `MAX_OF_PROFILE` + `MAX_OF_FACTORS` +
        `MAX_REPEAT_ITEMS` items, and the listed ones.
    """
    knn, hops, listed = evidence.user_knn, evidence.second_hops, evidence.listed_items
    texts = evidence.similar_texts
    hop_words, hop_lengths = concatenate(hops.lists)
    max_unseen = len(listed) if evidence.max_unseen is None else evidence.max_unseen
    user = user_factors(profile.items, evidence.factors)
    near = user.nearest(barred)
    found = Candidates(
        *_retrieved(
            *concatenate([*evidence.neighbour_lists, *evidence.older_lists]),
            len(evidence.neighbour_lists), profile.times, clock_s, knn.items, knn.weights,
            hop_words, hop_lengths, hops.weights, texts.items, texts.weights, near.items,
            near.weights, listed, max_unseen, evidence.own_items, barred,
        )
    )  # fmt: skip
    # Not of what only a list has: without signals, its order is the same for many requests.
    user.add_to(found.items, found.signals, FACTORS, with_unseen=False)
    return found


def signals_of(
    items: Indexes, profile: UserProfile, evidence: Evidence, clock_s: float
) -> Candidates:
    """The given items as candidates, in their order, with their signals."""
    knn, hops, texts = evidence.user_knn, evidence.second_hops, evidence.similar_texts
    sums = summed_signals(
        *concatenate([*evidence.neighbour_lists, *evidence.older_lists]),
        len(evidence.neighbour_lists), profile.times, decay_offsets(clock_s), knn.items,
        knn.weights, *concatenate(hops.lists), hops.weights, texts.items, texts.weights,
        NO_ITEMS, np.empty(0),
    )  # fmt: skip
    found = Candidates(*_merged(NO_ITEMS, items, len(items), NO_ITEMS, NO_ITEMS, *sums))
    user = user_factors(profile.items, evidence.factors)
    user.add_to(found.items, found.signals, FACTORS, with_unseen=True)
    return found
