"""Features: named, finite, and the same for training and serving."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.arrays import Floats
from models.ranking.features import (
    AGAIN,
    BASE,
    FEATURES,
    POPULARITY_CORRECTED,
    features_of,
    request_steps,
    without_trends,
)
from models.retrieval.candidates import Candidates, retrieve
from models.retrieval.profile import profile_of
from models.retrieval.signals import SIGNALS, blend
from models.state import layout
from models.state.histories import NO_HISTORY, History
from tests.models.retrieval.test_candidates import CLICKS, HISTORIES, evidence_of, history, lists_of
from tests.models.state.reference import NOW


@given(HISTORIES, st.integers(0, 99), st.floats(0, 2e9))
def test_features_are_finite_and_pure(events: list[int], seed: int, clock_s: float) -> None:
    """Any state at any clock gives finite half-precision features, the same at each call."""
    rng = np.random.default_rng(seed)
    profile = profile_of(history(*events), CLICKS)
    evidence = evidence_of(profile, lists_of(profile, seed, 300), np.arange(1, 99))
    candidates = retrieve(profile, evidence, NOW)
    stats = np.zeros(len(candidates.items), layout.STAT)
    stats["events"] = rng.integers(0, 2**31, len(stats))
    stats["log2"] = rng.normal(0, 1e5, (len(stats), 4))
    stats["last"] = rng.integers(0, 2**32, len(stats))
    before = stats.tobytes(), candidates.items.tobytes(), candidates.signals.tobytes()

    first = features_of(candidates, profile, stats, np.zeros(5), clock_s)
    second = features_of(candidates, profile, stats, np.zeros(5), clock_s)

    assert first.shape == (len(candidates.items), len(FEATURES))
    assert np.isfinite(first.astype(np.float16)).all()
    assert np.array_equal(first, second)
    assert (stats.tobytes(), candidates.items.tobytes(), candidates.signals.tobytes()) == before


def test_columns_follow_their_definitions() -> None:
    """A small request, feature by feature."""
    clicks = history(9, 5, 6, 5)
    types = np.array([7, 1, 1, 7], np.uint8)
    profile = profile_of(
        History(4, 1.0, clicks.items, clicks.times, types), strong_types=np.arange(256) == 7
    )
    clock_s = float(clicks.times[-1]) + 180
    signals = np.zeros((4, len(SIGNALS)))
    signals[1], signals[2] = 4.0, 2.0
    stats = np.zeros(4, layout.STAT)
    stats["events"] = [8, 2, 0, 1]
    stats["last"] = [clock_s, clock_s - 10, 0, clock_s + 5]
    stats["first"] = [clock_s - 100, clock_s - 10, 0, clock_s + 5]
    stats["log2"] = [[3, 2, 1, 0], [2, 2, 2, 2], [0, 0, -1e30, 0], [3, 2, 2, 2]]
    best = np.array([3.0, 2.0, 2.0, 2.0, 3.0])

    matrix = features_of(
        Candidates(np.array([5, 9, 77, 6]), signals), profile, stats, best, clock_s
    )
    row = {name: matrix[:, n].tolist() for n, name in enumerate(FEATURES)}

    ln2, least = math.log(2), -12.0
    for n, name in enumerate(SIGNALS):
        # Signal 2 of a new item without events, 4 of an own one with two: by the root of count + 1.
        times = 2 / math.sqrt(3) if n in POPULARITY_CORRECTED else 2
        shares = [0, 1 + math.log(times), 1, 0]
        assert row[f"{name}_share"] == pytest.approx(shares)
        assert row[f"{name}_log"] == pytest.approx([math.log(share + 0.003) for share in shares])
    assert row["popular_hour"] == pytest.approx([0, -ln2, -3 * ln2, 0])
    assert row["popular_day"] == pytest.approx([0, 0, -2 * ln2, 0])
    assert row["popular_week"] == pytest.approx([-ln2, 0, least, 0])
    assert row["popular_month"] == pytest.approx([-2 * ln2, 0, -2 * ln2, 0])
    assert row["popular_all"] == pytest.approx([0, -2 * ln2, -15 * ln2, -3 * ln2])
    assert row["trend"] == pytest.approx([2 * ln2, 0, 0, 0])
    assert row["since_last_touch"] == pytest.approx([0, math.log1p(10), math.log1p(clock_s), 0])
    assert row["since_first_touch"] == pytest.approx(
        [math.log1p(100), math.log1p(10), math.log1p(clock_s), 0]
    )
    assert row["in_context"] == [1, 1, 0, 1]
    assert row["position_back"] == [1, 1 / 4, 0, 1 / 2]
    assert row["is_before_last"] == [0, 0, 0, 1]
    assert row["own_count"] == pytest.approx([math.log1p(2), ln2, 0, ln2])
    assert row["own_recency"] == pytest.approx(
        [1 / (1 + math.log1p(minutes)) for minutes in (3, 6)] + [0, 1 / (1 + math.log1p(4))]
    )
    assert row["own_strong"] == [1, 1, 0, 0]
    assert row["own_share"] == [2 / 4, 1 / 4, 0, 1 / 4]
    assert row["own_now"] == [1, 0, 0, 1]
    assert row["own_before"] == pytest.approx([0, ln2, 0, 0])
    # Within a moment of the user's newest event; a test of their own has the others.
    assert row["again"] == [0, 0, 0, 0]
    assert row["own_age"] == pytest.approx([math.log1p(3), math.log1p(6), 0, math.log1p(4)])
    assert row["base"] == row["base_long"] == pytest.approx([0, 1.82 * (1 + ln2), 1.82, 0])
    assert row["base_short"] == row["base_middle"] == [0, 0, 0, 0]
    assert row["length_step"] == [2, 2, 2, 2]
    assert row["gap_step"] == [4, 4, 4, 4]
    assert request_steps(profile, clock_s) == (2, 4)


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
    st.integers(1, 30),
)
def test_new_items_have_the_same_features_whether_own_ones_are_barred(
    seed: int, own: list[int], n: int
) -> None:
    """The ranker is trained on all candidates, and serves without the user's own ones."""
    rng = np.random.default_rng(seed)
    profile = profile_of(history(*own), CLICKS)
    items = np.append(rng.choice(np.arange(1, 41), n, replace=False), 41)
    signals = rng.random((len(items), len(SIGNALS)))
    stats = np.zeros(len(items), layout.STAT)
    stats["events"] = rng.integers(0, 50, len(items))
    new = ~np.isin(items, own)

    def features(kept: NDArray[np.bool_]) -> Floats:
        candidates = Candidates(items[kept], signals[kept])
        return features_of(candidates, profile, stats[kept], np.zeros(5), NOW)

    assert features(np.ones(len(items), bool))[new] == pytest.approx(features(new))
    new_user = profile_of(NO_HISTORY, CLICKS)
    matrix = features_of(Candidates(items, signals), new_user, stats, np.zeros(5), NOW)
    assert matrix[:, BASE] == pytest.approx(blend(signals))


def test_own_items_at_the_beginning_of_a_moment() -> None:
    """How often they were taken before and how popular they are, once the last moment is over."""
    times = np.array([0, 1000, 1000, 2000, 2010], np.int64)
    past = History(5, 1.0, np.array([1, 1, 2, 1, 3], np.int64), times, np.zeros(5, np.uint8))
    profile = profile_of(past, CLICKS)
    stats = np.zeros(4, layout.STAT)
    stats["log2"] = -1.0
    candidates = Candidates(np.array([1, 2, 3, 9]), np.zeros((4, len(SIGNALS))))

    def again(clock_s: float) -> list[float]:
        matrix = features_of(candidates, profile, stats, np.zeros(5), clock_s)
        column: list[float] = matrix[:, AGAIN].tolist()
        return column

    assert again(2310.0) == [0, 0, 0, 0]
    most = 1 + 0.95 + 0.95**2
    # Half as popular in the week as the most popular item, to the power of a half.
    popular = 2**-0.5
    assert again(2311.0) == pytest.approx([popular, popular * 0.95 / most, popular / most, 0])
    # In all time, each item has had no event at all.
    matrix = features_of(candidates, profile, stats, np.zeros(5), 2311.0)
    rare = math.exp(0.5 * matrix[0, FEATURES.index("popular_all")])
    expected = [rare, rare * 0.95 / most, rare / most, 0]
    assert without_trends(matrix)[:, AGAIN] == pytest.approx(expected)


def test_own_items_are_scaled_among_themselves_without_new_ones() -> None:
    """Without new candidates, signals are relative to the greatest of own ones."""
    profile = profile_of(history(1, 2), CLICKS)
    signals = np.full((2, len(SIGNALS)), [[4.0], [2.0]])

    matrix = features_of(
        Candidates(np.array([1, 2]), signals), profile, np.zeros(2, layout.STAT), np.zeros(5), NOW
    )

    assert matrix[:, : len(SIGNALS)].tolist() == [[1.0] * len(SIGNALS), [0.5] * len(SIGNALS)]


@pytest.mark.parametrize(
    ("events", "column"),
    [(1, "base_short"), (2, "base_middle"), (3, "base_middle"), (4, "base_long")],
)
def test_base_has_a_column_by_length(events: int, column: str) -> None:
    """The blend is in one of three columns, by the length of the history."""
    profile = profile_of(history(*range(1, events + 1)), CLICKS)
    signals = np.ones((1, len(SIGNALS)))
    stats = np.zeros(1, layout.STAT)

    matrix = features_of(Candidates(np.array([9]), signals), profile, stats, np.zeros(5), 0.0)

    lengths = ("base_short", "base_middle", "base_long")
    filled = [name for name in lengths if matrix[0, FEATURES.index(name)]]
    assert filled == [column]


def test_counts_above_the_maximum_count_as_the_maximum() -> None:
    """Popularity features stay 0 if the maximum was read before the counts."""
    stats = np.zeros(1, layout.STAT)
    stats["events"], stats["log2"] = 5, 60_000.0
    candidates = Candidates(np.array([1]), np.zeros((1, len(SIGNALS))))

    matrix = features_of(candidates, profile_of(history(1), CLICKS), stats, np.zeros(5), 0.0)

    popular = [n for n, name in enumerate(FEATURES) if name.startswith("popular_")]
    assert matrix[0, popular].tolist() == [0.0] * 5


def test_no_candidates_give_an_empty_matrix() -> None:
    """Without candidates the matrix has no rows and all columns."""
    nothing = Candidates(np.empty(0, np.int64), np.empty((0, len(SIGNALS))))

    matrix = features_of(
        nothing, profile_of(history(1), CLICKS), np.zeros(0, layout.STAT), np.zeros(5), 0.0
    )

    assert matrix.shape == (0, len(FEATURES))
