"""The named features of a candidate: one function, for training and for serving."""

from __future__ import annotations

import math

import numpy as np
from numba import f8, from_dtype, i8, u4, void
from numba.types import UniTuple
from numpy.typing import NDArray

from models.arrays import Floats, Indexes, empty_table, slot_of
from models.machine_code import compiled
from models.retrieval.candidates import (
    ALIKE,
    BLEND_WEIGHTS,
    BLENDED,
    LEAST,
    MOMENT,
    MOMENT_S,
    N_SIGNALS,
    SIGNALS,
    Candidates,
)
from models.retrieval.profile import UserProfile
from models.state import layout

LN2 = math.log(2.0)

FEATURES: tuple[str, ...] = (
    *(f"{name}_share" for name in SIGNALS),
    *(f"{name}_log" for name in SIGNALS),
    "popular_hour",
    "popular_day",
    "popular_week",
    "popular_month",
    "popular_all",
    "trend",
    "purchase_rate",
    "since_last_touch",
    "since_first_touch",
    "in_context",
    "position_back",
    "is_before_last",
    "own_count",
    "own_recency",
    "own_strong",
    "own_share",
    "own_age",
    "own_now",
    "own_before",
    "base_short",
    "base_middle",
    "base_long",
    "base",
    "length_step",
    "gap_step",
)
"""Features in the order of the matrix's columns.

share, log: a signal of retrieval relative to the greatest among candidates that are new to the
user, and its logarithm; those of `LIFTED` by the root of the item's count before. Own items may
have more: of x times as much the share is 1 + ln x. So what new ones have does not depend on
whether own ones are barred.
own_share: of the context's events, those of the item. own_age: log minutes. own_now: touched in
this moment; own_before: own_count where it was not.
popular_*: logarithm of the decayed popularity relative to the most popular item. trend: day
against month. purchase_rate: logarithm of the share of purchases among the item's events. since_*:
log seconds. position_back: 1 / events back. base_*: the blend, in one of three columns by the
length of the context. *_step: of the request, the same for all its candidates, so that only the
ranker's hidden layer makes something of them; see `steps_of`.
"""

N_FEATURES = len(FEATURES)
POPULAR = FEATURES.index("popular_hour")
TREND = FEATURES.index("trend")
OWN = FEATURES.index("in_context")
BASE = FEATURES.index("base")
STEPS = FEATURES.index("length_step")
"""From here on: what all candidates of a request have."""

LIFTED = (MOMENT, ALIKE)
"""Signals that say how much more than by chance: what is popular stands in every list."""

LEAST_SHARE = 0.003
LOG_LEAST_SHARE = math.log(LEAST_SHARE)
LEAST_POPULARITY = -12.0

STATS = from_dtype(layout.STAT)[::1]


@compiled(f8(u4, f8))
def _log_seconds(then: int, clock_s: float) -> float:
    # Not log1p, which takes twice as long to be exact near zero: these are whole seconds.
    return math.log(1.0 + max(clock_s - then, 0.0))


@compiled(f8(f8, f8))
def _popularity(log2: float, best: float) -> float:
    # The greatest was read a little earlier than the counts, and may be behind them.
    return max(min(LN2 * (log2 - best), 0.0), LEAST_POPULARITY)


@compiled(void(f8[:, ::1], i8[::1], i8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8, i8))
def _add_own(
    matrix: Floats,
    candidates: Indexes,
    items: Indexes,
    times: Floats,
    counts: Floats,
    strong: Floats,
    positions: Floats,
    clock_s: float,
    length: int,
) -> None:
    """The features of candidates that the user has seen before, into the matrix."""
    table = empty_table(len(items))
    for place in range(len(items)):
        table[slot_of(table, items, items[place])] = place
    for at in range(len(candidates)):
        place = table[slot_of(table, items, candidates[at])]
        if place < 0:
            continue
        minutes = max(clock_s - times[place], 0.0) / 60.0
        own = matrix[at, OWN:]
        own[0] = 1.0
        own[1] = 1.0 / positions[place]
        own[2] = place == 1
        own[3] = math.log1p(counts[place])
        own[4] = 1.0 / (1.0 + math.log1p(minutes))
        own[5] = strong[place]
        own[6] = counts[place] / length
        own[7] = math.log1p(minutes)
        own[8] = clock_s - times[place] <= MOMENT_S
        own[9] = own[3] * (1.0 - own[8])


@compiled(f8[:, ::1](f8[:, ::1], STATS))
def _by_count(signals: Floats, stats: NDArray[np.void]) -> Floats:
    counted = signals.copy()
    for at in range(len(signals)):
        part = 1.0 / math.sqrt(stats[at].events + 1.0)
        for signal in LIFTED:
            counted[at, signal] *= part
    return counted


@compiled(f8[::1](f8[:, ::1], f8[:, ::1]))
def _greatest(matrix: Floats, signals: Floats) -> Floats:
    """Of each signal, among the new candidates; among own ones where no new one has any."""
    of_new, of_own = np.full(N_SIGNALS, LEAST), np.full(N_SIGNALS, LEAST)
    for at in range(len(signals)):
        greatest = of_own if matrix[at, OWN] else of_new
        for signal in range(N_SIGNALS):
            greatest[signal] = max(greatest[signal], signals[at, signal])
    return np.where(of_new > LEAST, of_new, of_own)


@compiled(void(f8[:, ::1], f8[:, ::1], i8))
def _add_shares(matrix: Floats, signals: Floats, length: int) -> None:
    """The signals and the blend of them, into a matrix that has the own features."""
    greatest = _greatest(matrix, signals)
    base_of_length = BASE - 3 + (0 if length <= 1 else 1 if length <= 3 else 2)
    for at in range(len(signals)):
        for signal in range(N_SIGNALS):
            matrix[at, N_SIGNALS + signal] = LOG_LEAST_SHARE
            if signals[at, signal] > 0.0:
                share = signals[at, signal] / greatest[signal]
                if share > 1.0:
                    share = 1.0 + math.log(share)
                matrix[at, signal] = share
                matrix[at, N_SIGNALS + signal] = math.log(share + LEAST_SHARE)
        base = 0.0
        for part in range(len(BLENDED)):
            base += BLEND_WEIGHTS[part] * matrix[at, BLENDED[part]]
        matrix[at, BASE] = base
        matrix[at, base_of_length] = base


@compiled(void(f8[:, ::1], STATS, f8[::1], f8))
def _add_popularity(matrix: Floats, stats: NDArray[np.void], best: Floats, clock_s: float) -> None:
    for at in range(len(matrix)):
        # Elements, not rows: a view made for each candidate would take as long as its numbers.
        stat = stats[at]
        for half_life in range(4):
            matrix[at, POPULAR + half_life] = _popularity(stat.log2[half_life], best[half_life])
        matrix[at, POPULAR + 4] = _popularity(math.log2(max(stat.events, 2.0**-12)), best[4])
        matrix[at, TREND] = matrix[at, POPULAR + 1] - matrix[at, POPULAR + 3]
        matrix[at, TREND + 1] = math.log((stat.purchases + 0.5) / (stat.events + 1.0))
        matrix[at, TREND + 2] = _log_seconds(stat.last, clock_s)
        matrix[at, TREND + 3] = _log_seconds(stat.first, clock_s)


@compiled(UniTuple(f8, 2)(f8[::1], i8, f8))
def _steps(times: Floats, length: int, clock_s: float) -> tuple[float, float]:
    if length == 0:
        return 0.0, 0.0
    gap_s = max(clock_s - times[0], 0.0)
    return round(math.log2(length)), round(0.5 * math.log2(1.0 + gap_s))


def steps_of(context: UserProfile, clock_s: float) -> tuple[float, float]:
    """`length_step`: octaves of the context's length; `gap_step`: how long ago its newest event is.

    The latter in steps of four times, from a second on. Few values: orders can be kept for each.
    """
    steps: tuple[float, float] = _steps(context.times, context.length, clock_s)
    return steps


def without_alike(matrix: Floats) -> Floats:
    """The matrix as it would be if nobody alike were known; ``(n, len(FEATURES))``."""
    left = matrix.copy()
    left[:, ALIKE] = 0.0
    left[:, N_SIGNALS + ALIKE] = LOG_LEAST_SHARE
    return left


@compiled(
    f8[:, ::1](
        f8[:, ::1], STATS, f8[::1], f8, i8, i8[::1], i8[::1], f8[::1], f8[::1], f8[::1], f8[::1]
    )
)
def _features(
    signals: Floats,
    stats: NDArray[np.void],
    best: Floats,
    clock_s: float,
    length: int,
    candidates: Indexes,
    items: Indexes,
    times: Floats,
    counts: Floats,
    strong: Floats,
    positions: Floats,
) -> Floats:
    """`features_of` as one piece of machine code."""
    matrix = np.zeros((len(signals), N_FEATURES))
    _add_own(matrix, candidates, items, times, counts, strong, positions, clock_s, length)
    _add_shares(matrix, _by_count(signals, stats), length)
    _add_popularity(matrix, stats, best, clock_s)
    steps = _steps(times, length, clock_s)
    for at in range(len(matrix)):
        matrix[at, STEPS], matrix[at, STEPS + 1] = steps
    return matrix


def features_of(
    candidates: Candidates,
    context: UserProfile,
    stats: NDArray[np.void],
    best: Floats,
    clock_s: float,
) -> Floats:
    """The feature matrix of candidates for a context at a time; changes nothing.

    Parameters
    ----------
    stats
        ``(n,)`` of `layout.STAT`, one for each candidate.
    best
        ``(5,)`` greatest log2 popularity by hour, day, week, month, and log2 of the greatest
        count, over all items.
    clock_s
        Time of the newest event, Unix seconds.

    Returns
    -------
    Floats
        ``(n, len(FEATURES))``. About 40 µs at 300 candidates.
    """
    return _features(
        candidates.signals, stats, best, clock_s, context.length, candidates.items, context.items,
        context.times, context.counts, context.strong, context.positions,
    )  # fmt: skip
