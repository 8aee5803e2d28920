"""Features of candidates: one function computes them, in training and in serving."""

from __future__ import annotations

import math

import numpy as np
from numba import b1, f8, from_dtype, i8, u4, void
from numba.types import UniTuple
from numpy.typing import NDArray

from models.arrays import Floats, Indexes, empty_table, slot_of
from models.machine_code import compiled
from models.retrieval.candidates import Candidates
from models.retrieval.profile import MOMENT_S, UserProfile
from models.retrieval.signals import (
    ALIKE,
    BLEND_WEIGHTS,
    BLENDED_SIGNALS,
    MOMENT,
    N_SIGNALS,
    PROFILE,
    SIGNALS,
    TINY,
)
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
    "again",
    "base_short",
    "base_middle",
    "base_long",
    "base",
    "length_step",
    "gap_step",
)
"""Features in the order of the matrix's columns.

share, log: a signal relative to its greatest value among candidates that are new to the user, and
its logarithm; signals in `POPULARITY_CORRECTED` are first divided by the root of the item's count.
Own items can exceed that greatest value: x times as much has the share 1 + ln x. So the features of
new candidates do not depend on whether own items are barred.
own_share: share of the item in the events of the history. own_age: log minutes. own_now: touched
within `MOMENT_S`; own_before: own_count if not.
again: of own items where the request begins a moment, 0 elsewhere: how often they were taken, older
moments fading, relative to the most frequent one, times the root `AGAIN_POPULARITY` of their
popularity of the week; see `models.ranking.returns`.
popular_*: logarithm of the decayed popularity relative to the most popular item. trend: day
against month. purchase_rate: logarithm of the share of purchases in the item's events. since_*:
log seconds. position_back: 1 / events back. base_*: the blend, in one of three columns by the
length of the history. *_step: properties of the request, equal for all its candidates, so that only
the hidden layer of the ranker uses them; see `request_steps`.
"""

N_FEATURES = len(FEATURES)
(
    POPULAR_HOUR, POPULAR_DAY, POPULAR_WEEK, POPULAR_MONTH, POPULAR_ALL, TREND, PURCHASE_RATE,
    SINCE_LAST_TOUCH, SINCE_FIRST_TOUCH, IN_CONTEXT, POSITION_BACK, IS_BEFORE_LAST, OWN_COUNT,
    OWN_RECENCY, OWN_STRONG, OWN_SHARE, OWN_AGE, OWN_NOW, OWN_BEFORE, AGAIN,
    BASE_SHORT, BASE_MIDDLE, BASE_LONG, BASE, LENGTH_STEP, GAP_STEP,
) = map(
    FEATURES.index,
    (
        "popular_hour", "popular_day", "popular_week", "popular_month", "popular_all", "trend",
        "purchase_rate", "since_last_touch", "since_first_touch", "in_context", "position_back",
        "is_before_last",
        "own_count", "own_recency", "own_strong", "own_share", "own_age", "own_now", "own_before",
        "again",
        "base_short", "base_middle", "base_long", "base", "length_step", "gap_step",
    ),
)  # fmt: skip
SIGNAL_SHARES = FEATURES.index(f"{SIGNALS[0]}_share")
SIGNAL_LOGS = FEATURES.index(f"{SIGNALS[0]}_log")
"""First columns of the signals' shares and logarithms; they follow in the order of `SIGNALS`."""

N_HALF_LIVES = len(layout.POPULARITY_HALF_LIVES_S)
"""Popularity columns from `POPULAR_HOUR` on, in the order of `layout.POPULARITY_HALF_LIVES_S`."""

POPULARITY_CORRECTED = (MOMENT, ALIKE, PROFILE)
"""Signals that measure association beyond chance: popular items occur in every list."""

AGAIN_POPULARITY = 0.5
"""Power of an own item's popularity beside how often its owner took it."""

MIN_SHARE = 0.003
LOG_MIN_SHARE = math.log(MIN_SHARE)
MIN_LOG_POPULARITY = -12.0

STATS = from_dtype(layout.STAT)[::1]


@compiled(f8(u4, f8))
def _log_seconds(then: int, clock_s: float) -> float:
    # Not log1p, whose precision near zero costs twice the time: these are whole seconds.
    return math.log(1.0 + max(clock_s - then, 0.0))


@compiled(f8(f8, f8))
def _relative_popularity(log2: float, max_log2: float) -> float:
    # The maximum was read a little earlier than the counts, and may be below them.
    return max(min(LN2 * (log2 - max_log2), 0.0), MIN_LOG_POPULARITY)


@compiled(void(f8[:, ::1], i8[::1], i8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8[::1], f8, i8))
def _add_own(
    matrix: Floats,
    candidates: Indexes,
    items: Indexes,
    times: Floats,
    counts: Floats,
    strong: Floats,
    positions: Floats,
    frequencies: Floats,
    clock_s: float,
    length: int,
) -> None:
    """Write the features of candidates in the user's history into the matrix."""
    table, most_frequent = empty_table(len(items)), TINY
    for place in range(len(items)):
        table[slot_of(table, items, items[place])] = place
        most_frequent = max(most_frequent, frequencies[place])
    begins_moment = len(times) > 0 and clock_s - times[0] > MOMENT_S
    for at in range(len(candidates)):
        place = table[slot_of(table, items, candidates[at])]
        if place < 0:
            continue
        minutes = max(clock_s - times[place], 0.0) / 60.0
        matrix[at, IN_CONTEXT] = 1.0
        matrix[at, POSITION_BACK] = 1.0 / positions[place]
        matrix[at, IS_BEFORE_LAST] = place == 1
        matrix[at, OWN_COUNT] = math.log1p(counts[place])
        matrix[at, OWN_RECENCY] = 1.0 / (1.0 + math.log1p(minutes))
        matrix[at, OWN_STRONG] = strong[place]
        matrix[at, OWN_SHARE] = counts[place] / length
        matrix[at, OWN_AGE] = math.log1p(minutes)
        matrix[at, OWN_NOW] = clock_s - times[place] <= MOMENT_S
        if begins_moment:
            matrix[at, AGAIN] = frequencies[place] / most_frequent
        matrix[at, OWN_BEFORE] = matrix[at, OWN_COUNT] * (1.0 - matrix[at, OWN_NOW])


@compiled(f8[:, ::1](f8[:, ::1], STATS))
def _popularity_corrected(signals: Floats, stats: NDArray[np.void]) -> Floats:
    """Signals, with those in `POPULARITY_CORRECTED` divided by the root of the item's count."""
    corrected = signals.copy()
    for at in range(len(signals)):
        part = 1.0 / math.sqrt(stats[at].events + 1.0)
        for signal in POPULARITY_CORRECTED:
            corrected[at, signal] *= part
    return corrected


@compiled(f8[::1](f8[:, ::1], f8[:, ::1]))
def _largest_signals(matrix: Floats, signals: Floats) -> Floats:
    """Maximum of each signal over new candidates; over own ones if no new one has the signal."""
    of_new, of_own = np.full(N_SIGNALS, TINY), np.full(N_SIGNALS, TINY)
    for at in range(len(signals)):
        largest = of_own if matrix[at, IN_CONTEXT] else of_new
        for signal in range(N_SIGNALS):
            largest[signal] = max(largest[signal], signals[at, signal])
    return np.where(of_new > TINY, of_new, of_own)


@compiled(void(f8[:, ::1], f8[:, ::1], i8))
def _add_shares(matrix: Floats, signals: Floats, length: int) -> None:
    """Write the signals and their blend into a matrix that has the own features already."""
    largest = _largest_signals(matrix, signals)
    base_of_length = BASE_SHORT if length <= 1 else BASE_MIDDLE if length <= 3 else BASE_LONG
    for at in range(len(signals)):
        for signal in range(N_SIGNALS):
            matrix[at, SIGNAL_LOGS + signal] = LOG_MIN_SHARE
            if signals[at, signal] > 0.0:
                share = signals[at, signal] / largest[signal]
                if share > 1.0:
                    share = 1.0 + math.log(share)
                matrix[at, SIGNAL_SHARES + signal] = share
                matrix[at, SIGNAL_LOGS + signal] = math.log(share + MIN_SHARE)
        base = 0.0
        for part in range(len(BLENDED_SIGNALS)):
            base += BLEND_WEIGHTS[part] * matrix[at, SIGNAL_SHARES + BLENDED_SIGNALS[part]]
        matrix[at, BASE] = base
        matrix[at, base_of_length] = base


@compiled(void(f8[:, ::1], STATS, f8[::1], f8))
def _add_popularity(
    matrix: Floats, stats: NDArray[np.void], max_log2: Floats, clock_s: float
) -> None:
    for at in range(len(matrix)):
        # Elements, not rows: making a view for each candidate costs as much as its numbers.
        stat = stats[at]
        for half_life in range(N_HALF_LIVES):
            matrix[at, POPULAR_HOUR + half_life] = _relative_popularity(
                stat.log2[half_life], max_log2[half_life]
            )
        log2_events = math.log2(max(stat.events, 2.0**-12))
        matrix[at, POPULAR_ALL] = _relative_popularity(log2_events, max_log2[N_HALF_LIVES])
        if matrix[at, AGAIN] > 0.0:
            matrix[at, AGAIN] *= math.exp(AGAIN_POPULARITY * matrix[at, POPULAR_WEEK])
        matrix[at, TREND] = matrix[at, POPULAR_DAY] - matrix[at, POPULAR_MONTH]
        matrix[at, PURCHASE_RATE] = math.log((stat.purchases + 0.5) / (stat.events + 1.0))
        matrix[at, SINCE_LAST_TOUCH] = _log_seconds(stat.last, clock_s)
        matrix[at, SINCE_FIRST_TOUCH] = _log_seconds(stat.first, clock_s)


@compiled(UniTuple(f8, 2)(f8[::1], i8, f8))
def _steps(times: Floats, length: int, clock_s: float) -> tuple[float, float]:
    if length == 0:
        return 0.0, 0.0
    gap_s = max(clock_s - times[0], 0.0)
    return round(math.log2(length)), round(0.5 * math.log2(1.0 + gap_s))


def request_steps(profile: UserProfile, clock_s: float) -> tuple[float, float]:
    """`length_step` and `gap_step` of a request: its features that all candidates share.

    The length of the history in octaves, and the age of its newest event in factors of four from
    a second on. They take few values, so that orders can be cached for each pair.
    """
    steps: tuple[float, float] = _steps(profile.times, profile.length, clock_s)
    return steps


def with_request_steps(matrix: Floats, steps: tuple[float, float]) -> Floats:
    """A copy of the matrix with other `request_steps`."""
    changed = matrix.copy()
    changed[:, LENGTH_STEP], changed[:, GAP_STEP] = steps
    return changed


@compiled(b1(f8[:, ::1]))
def _has_user_knn(matrix: Floats) -> bool:
    return bool(np.any(matrix[:, SIGNAL_SHARES + ALIKE] != 0.0))


def without_user_knn(matrix: Floats) -> Floats:
    """The matrix without user k-NN evidence; the same array if it has none."""
    if not _has_user_knn(matrix):
        return matrix
    changed = matrix.copy()
    changed[:, SIGNAL_SHARES + ALIKE] = 0.0
    changed[:, SIGNAL_LOGS + ALIKE] = LOG_MIN_SHARE
    return changed


@compiled(
    f8[:, ::1](
        f8[:, ::1], STATS, f8[::1], f8, i8, i8[::1], i8[::1], f8[::1], f8[::1], f8[::1], f8[::1],
        f8[::1],
    )
)  # fmt: skip
def _features(
    signals: Floats,
    stats: NDArray[np.void],
    max_log2: Floats,
    clock_s: float,
    length: int,
    candidates: Indexes,
    items: Indexes,
    times: Floats,
    counts: Floats,
    strong: Floats,
    positions: Floats,
    frequencies: Floats,
) -> Floats:
    """`features_of` as one piece of machine code."""
    matrix = np.zeros((len(signals), N_FEATURES))
    _add_own(
        matrix, candidates, items, times, counts, strong, positions, frequencies, clock_s, length
    )
    _add_shares(matrix, _popularity_corrected(signals, stats), length)
    _add_popularity(matrix, stats, max_log2, clock_s)
    length_step, gap_step = _steps(times, length, clock_s)
    for at in range(len(matrix)):
        matrix[at, LENGTH_STEP], matrix[at, GAP_STEP] = length_step, gap_step
    return matrix


def features_of(
    candidates: Candidates,
    profile: UserProfile,
    stats: NDArray[np.void],
    max_log_popularity: Floats,
    clock_s: float,
) -> Floats:
    """Feature matrix of candidates for a user profile at a time; changes nothing.

    Parameters
    ----------
    stats
        ``(n,)`` of `layout.STAT`, one for each candidate.
    max_log_popularity
        ``(5,)`` maxima over all items: log2 popularity by hour, day, week and month, and log2 of
        the count.
    clock_s
        Time of the newest event, Unix seconds.

    Returns
    -------
    Floats
        ``(n, len(FEATURES))``. About 40 µs at 300 candidates.
    """
    return _features(
        candidates.signals, stats, max_log_popularity, clock_s, profile.length, candidates.items,
        profile.items, profile.times, profile.counts, profile.strong, profile.positions,
        profile.frequencies,
    )  # fmt: skip


def without_trends(matrix: Floats) -> Floats:
    """The features with an item's popularity of all time in place of that of late, and no trend."""
    changed = matrix.copy()
    changed[:, POPULAR_HOUR : POPULAR_HOUR + N_HALF_LIVES] = matrix[:, POPULAR_ALL, np.newaxis]
    longer = AGAIN_POPULARITY * (matrix[:, POPULAR_ALL] - matrix[:, POPULAR_WEEK])
    changed[:, AGAIN] *= np.exp(longer)
    changed[:, TREND] = 0.0
    return changed
