"""Candidates of a request, merged from the evidence of all candidate sources.

Pure functions on arrays of item indexes; nothing here reads a store or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numba import f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes, empty_table, insert, slot_of, table_of
from models.machine_code import compiled
from models.retrieval.covisitation import (
    BOTH,
    DAY,
    MONTH,
    N_CHANNELS,
    NO_SECOND_HOPS,
    RATES,
    SecondHops,
    concatenate,
    decay_offsets,
    decode_shares,
    most_pairs,
)
from models.retrieval.profile import UserProfile
from models.retrieval.user_neighbours import NO_NEIGHBOURS, NeighbourItems
from models.state import layout

SIGNALS = (
    "next_1", "after_1", "before_1", "day_1", "month_1",
    "both_10", "day_10", "month_10", "root_10", "moment", "alike", "hop",
)  # fmt: skip
"""Signals of an item, 0 where there is no evidence:

*_1: co-visitation share with the newest item, by channel. both_10, day_10, month_10: sums of the
shares with the last 10 items, decayed by position. root_10: sum of square roots of shares, which
rewards agreement of several items. moment: shares with items within `MOMENT_S` of the newest event,
without decay. alike: user k-NN. hop: second-order co-visitation.
"""

N_SIGNALS = len(SIGNALS)
BLENDED_SIGNALS = tuple(SIGNALS.index(name) for name in ("both_10", "next_1", "day_1", "hop"))
BLEND_WEIGHTS = np.array([1.0, 0.5, 0.2, 0.02])
BOTH_10, DAY_10, MONTH_10, ROOT_10, MOMENT, ALIKE, HOP = range(N_CHANNELS, N_SIGNALS)
TINY = 1e-300
"""Denominator in place of 0, so that 0 divided by it is 0."""

MOMENT_S = 300.0
"""Events this close to the user's newest are of one moment: their order carries no information."""

MAX_CO_VISITED = 120
"""Candidates with signals: the best co-visited items."""

TOP_LIST_SIZES = {"recent": 100, "week": 30, "new": 20}
"""Candidates from each top list. Other lists' items are among these, or never the taken ones."""

MAX_REPEAT_ITEMS = 150
"""Distinct own items, newest first, that are candidates again."""

USER_KNN_RECALL_WEIGHT = 1e-3
"""Weight of `alike` in the choice of candidates: it fills up where few items were co-visited."""


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """Everything that the candidate sources found for one request.

    Attributes
    ----------
    neighbour_lists
        Stored neighbour list of each recent item of the profile, in that order.
    recent_owners
        Stored numbers of the histories that had each recent item last, in that order.
    user_knn
        Items of the nearest users.
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
    recent_owners: Sequence[bytes] = ()
    user_knn: NeighbourItems = NO_NEIGHBOURS
    second_hops: SecondHops = NO_SECOND_HOPS
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


@compiled(
    Tuple((i8[::1], f8[:, ::1], i8[::1]))(
        u4[::1], i8[::1], f8[::1], f8[::1], i8[::1], f8[::1], u4[::1], i8[::1], f8[::1],
    )
)  # fmt: skip
def _summed(
    words: NDArray[np.uint32],
    lengths: Indexes,
    times: Floats,
    offsets: Floats,
    knn_items: Indexes,
    knn_weights: Floats,
    hop_words: NDArray[np.uint32],
    hop_lengths: Indexes,
    hop_weights: Floats,
) -> tuple[Indexes, Floats, Indexes]:
    """All items of the evidence, their signals, and a hash table of the items' places."""
    room = max(most_pairs(len(words)), most_pairs(len(hop_words)))
    size = most_pairs(len(words)) + len(knn_items) + most_pairs(len(hop_words))
    items, signals = np.empty(size, np.int64), np.zeros((size, N_SIGNALS))
    listed, shares = np.empty(room, np.int64), np.empty((room, N_CHANNELS + 1))
    table, n, end = empty_table(size), 0, 0
    for distance in range(len(lengths)):
        start, end = end, end + lengths[distance]
        used, total = decode_shares(words[start:end], offsets, listed, shares)
        fade, root = layout.FADES[distance], math.sqrt(total)
        is_of_moment = times[0] - times[distance] <= MOMENT_S
        for at in range(used):
            place, n = insert(table, items, n, listed[at])
            if distance == 0:
                for channel in range(N_CHANNELS):
                    signals[place, channel] = shares[at, channel]
            signals[place, BOTH_10] += fade * shares[at, BOTH]
            signals[place, DAY_10] += fade * shares[at, DAY]
            signals[place, MONTH_10] += fade * shares[at, MONTH]
            signals[place, ROOT_10] += fade * math.sqrt(shares[at, BOTH])
            if is_of_moment:
                # Count by root of the sum: one half of a cosine, the features have the other.
                signals[place, MOMENT] += root * shares[at, BOTH]
    for at in range(len(knn_items)):
        if knn_items[at] != 0:
            place, n = insert(table, items, n, knn_items[at])
            signals[place, ALIKE] += knn_weights[at]
    end = 0
    for hop in range(len(hop_lengths)):
        start, end = end, end + hop_lengths[hop]
        used, _ = decode_shares(hop_words[start:end], offsets, listed, shares)
        for at in range(used):
            place, n = insert(table, items, n, listed[at])
            signals[place, HOP] += hop_weights[hop] * shares[at, BOTH]
    return items[:n], signals[:n], table


@compiled(f8[::1](f8[:, ::1]))
def blend(signals: Floats) -> Floats:
    """Scores without learning: a weighted sum of `BLENDED_SIGNALS`, ``(n,)``.

    Each signal counts relative to its greatest value among the candidates.
    """
    largest, scores = np.full(len(BLENDED_SIGNALS), TINY), np.zeros(len(signals))
    for at in range(len(signals)):
        for part in range(len(BLENDED_SIGNALS)):
            largest[part] = max(largest[part], signals[at, BLENDED_SIGNALS[part]])
    weights = BLEND_WEIGHTS / largest
    for at in range(len(signals)):
        for part in range(len(BLENDED_SIGNALS)):
            scores[at] += weights[part] * signals[at, BLENDED_SIGNALS[part]]
    return scores


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
        u4[::1], i8[::1], f8[::1], f8, i8[::1], f8[::1],
        u4[::1], i8[::1], f8[::1], i8[::1], i8, i8[::1], i8[::1],
    )
)  # fmt: skip
def _retrieved(
    words: NDArray[np.uint32],
    lengths: Indexes,
    times: Floats,
    clock_s: float,
    knn_items: Indexes,
    knn_weights: Floats,
    hop_words: NDArray[np.uint32],
    hop_lengths: Indexes,
    hop_weights: Floats,
    listed: Indexes,
    max_unseen: int,
    own: Indexes,
    barred: Indexes,
) -> tuple[Indexes, Floats]:
    """`retrieve` as one piece of machine code: each call from Python costs microseconds."""
    offsets = (clock_s - layout.EPOCH) * RATES
    items, signals, table = _summed(
        words, lengths, times, offsets, knn_items, knn_weights, hop_words, hop_lengths, hop_weights,
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
        At most `MAX_CO_VISITED` + `MAX_REPEAT_ITEMS` items, and the listed ones.
    """
    knn, hops, listed = evidence.user_knn, evidence.second_hops, evidence.listed_items
    hop_words, hop_lengths = concatenate(hops.lists)
    max_unseen = len(listed) if evidence.max_unseen is None else evidence.max_unseen
    return Candidates(
        *_retrieved(
            *concatenate(evidence.neighbour_lists), profile.times, clock_s, knn.items, knn.weights,
            hop_words, hop_lengths, hops.weights, listed, max_unseen,
            evidence.own_items, barred,
        )
    )  # fmt: skip


def signals_of(
    items: Indexes, profile: UserProfile, evidence: Evidence, clock_s: float
) -> Candidates:
    """The given items as candidates, in their order, with their signals."""
    knn, hops = evidence.user_knn, evidence.second_hops
    found = _summed(
        *concatenate(evidence.neighbour_lists), profile.times, decay_offsets(clock_s), knn.items,
        knn.weights, *concatenate(hops.lists), hops.weights,
    )  # fmt: skip
    return Candidates(*_merged(NO_ITEMS, items, len(items), NO_ITEMS, NO_ITEMS, *found))
