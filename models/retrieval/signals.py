"""Signals of candidates: what the evidence of each candidate source says of an item.

Pure functions on arrays of item indexes; nothing here reads a store or a clock.
"""

from __future__ import annotations

import math

import numpy as np
from numba import f8, i8, u4
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import Floats, Indexes, empty_table, insert, slot_of
from models.machine_code import compiled
from models.retrieval.covisitation import (
    BOTH,
    DAY,
    MONTH,
    N_CHANNELS,
    decode_both,
    decode_shares,
    most_pairs,
)
from models.retrieval.profile import MOMENT_S
from models.state import layout

SIGNALS = (
    "next_1", "after_1", "before_1", "day_1", "month_1",
    "both_10", "day_10", "month_10", "root_10", "moment", "alike", "hop",
    "text", "profile", "factors",
)  # fmt: skip
"""Signals of an item, 0 where there is no evidence:

*_1: co-visitation share with the newest item, by channel. both_10, day_10, month_10: sums of the
shares with the last 10 items, decayed by position. root_10: sum of square roots of shares, which
rewards agreement of several items. moment: shares with items within `MOMENT_S` of the newest event,
without decay. profile: cosines of co-visitation with the last `PROFILE_ITEMS` items, decayed by
`PROFILE_FADE`; of items before the last 10, only pairs of at least their list's mean bring an item.
alike: user k-NN. hop: second-order co-visitation.
text: similarity of texts with those of recent items, for items with few events; see
`models.serving.cached.cached_texts`.
factors: of new items, how far their factors go with those of the last items, see
`models.retrieval.item_factors`; it is added to what else is found.
"""

N_SIGNALS = len(SIGNALS)
BLENDED_SIGNALS = tuple(
    SIGNALS.index(name) for name in ("both_10", "next_1", "day_1", "hop", "text")
)
BLEND_WEIGHTS = np.array([1.0, 0.5, 0.2, 0.02, 0.1])
(
    BOTH_10, DAY_10, MONTH_10, ROOT_10, MOMENT, ALIKE, HOP, TEXT, PROFILE, FACTORS
) = range(N_CHANNELS, N_SIGNALS)  # fmt: skip
TINY = 1e-300
"""Denominator in place of 0, so that 0 divided by it is 0."""

PROFILE_ITEMS = 50
"""Distinct items of a profile, newest first, whose neighbours count."""

PROFILE_FADE = 0.97
"""Weight in `profile` of an item's neighbours beside those of the item after it."""


@compiled(i8(i8[::1], i8[::1], f8[:, ::1], i8, i8[::1], f8[::1], i8))
def _add_weighted(
    table: Indexes,
    items: Indexes,
    signals: Floats,
    n: int,
    found: Indexes,
    weights: Floats,
    signal: int,
) -> int:
    """Add the weights of found items to a signal of the first n; returns the new n."""
    for at in range(len(found)):
        if found[at] > 0:
            place, n = insert(table, items, n, found[at])
            signals[place, signal] += weights[at]
    return n


@compiled(i8(u4[::1], i8[::1], f8, f8, i8[::1], i8[::1], f8[:, ::1], i8))
def _add_older(
    words: NDArray[np.uint32],
    lengths: Indexes,
    offset: float,
    fade: float,
    table: Indexes,
    items: Indexes,
    signals: Floats,
    n: int,
) -> int:
    """Add the lists of a profile's older items to `profile` of the first n; returns the new n."""
    room, end = most_pairs(len(words)), 0
    listed, counts = np.empty(room, np.int64), np.empty(room)
    for length in lengths:
        start, end = end, end + length
        used, total = decode_both(words[start:end], offset, listed, counts)
        weight, fade = fade / math.sqrt(total), fade * PROFILE_FADE
        for at in range(used):
            # Weak pairs count, but bring no items: most pairs of a full list are weak.
            if counts[at] * used >= total:
                place, n = insert(table, items, n, listed[at])
            else:
                place = table[slot_of(table, items, listed[at])]
            if place >= 0:
                signals[place, PROFILE] += weight * counts[at]
    return n


@compiled(
    Tuple((i8[::1], f8[:, ::1], i8[::1]))(
        u4[::1], i8[::1], i8, f8[::1], f8[::1], i8[::1], f8[::1], u4[::1], i8[::1], f8[::1],
        i8[::1], f8[::1], i8[::1], f8[::1],
    )
)  # fmt: skip
def summed_signals(
    words: NDArray[np.uint32],
    lengths: Indexes,
    n_recent: int,
    times: Floats,
    offsets: Floats,
    knn_items: Indexes,
    knn_weights: Floats,
    hop_words: NDArray[np.uint32],
    hop_lengths: Indexes,
    hop_weights: Floats,
    text_items: Indexes,
    text_weights: Floats,
    factor_items: Indexes,
    factor_weights: Floats,
) -> tuple[Indexes, Floats, Indexes]:
    """All items of the evidence, their signals, and a hash table of the items' places."""
    room = max(most_pairs(len(words)), most_pairs(len(hop_words)))
    size = most_pairs(len(words)) + len(knn_items) + most_pairs(len(hop_words)) + len(text_items)
    size += len(factor_items)
    items, signals = np.empty(size, np.int64), np.zeros((size, N_SIGNALS))
    listed, shares = np.empty(room, np.int64), np.empty((room, N_CHANNELS + 1))
    table, n, end = empty_table(size), 0, 0
    profile_fade = 1.0
    for distance in range(n_recent):
        start, end = end, end + lengths[distance]
        used, total = decode_shares(words[start:end], offsets, listed, shares)
        fade, root = layout.FADES[distance], math.sqrt(total)
        profile_root, profile_fade = profile_fade * root, profile_fade * PROFILE_FADE
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
            # Count by root of the sum: one half of a cosine, the features have the other.
            signals[place, PROFILE] += profile_root * shares[at, BOTH]
            if is_of_moment:
                signals[place, MOMENT] += root * shares[at, BOTH]
    n = _add_older(
        words[end:], lengths[n_recent:], offsets[0], profile_fade, table, items, signals, n
    )
    n = _add_weighted(table, items, signals, n, knn_items, knn_weights, ALIKE)
    end = 0
    for hop in range(len(hop_lengths)):
        start, end = end, end + hop_lengths[hop]
        used, _ = decode_shares(hop_words[start:end], offsets, listed, shares)
        for at in range(used):
            place, n = insert(table, items, n, listed[at])
            signals[place, HOP] += hop_weights[hop] * shares[at, BOTH]
    n = _add_weighted(table, items, signals, n, text_items, text_weights, TEXT)
    n = _add_weighted(table, items, signals, n, factor_items, factor_weights, FACTORS)
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
