"""The listwise ranker: starts as the blend, learns from examples, and restores its state."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from models.arrays import Floats
from models.ranking.features import AGAIN, BASE, FEATURES
from models.ranking.ranker import (
    INITIAL_BASE_WEIGHT,
    INITIAL_PARAMETERS,
    LEARNING_RATE,
    N_PARAMETERS,
    ListwiseRanker,
    layers_of,
)
from models.ranking.returns import Chances

pytestmark = pytest.mark.unit

POPULAR = FEATURES.index("popular_week")


def choices(n: int, seed: int) -> list[tuple[Floats, int]]:
    """Examples whose taken item depends on the week's popularity only."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        rows = rng.random((30, len(FEATURES)))
        wanted = rows[:, POPULAR] * 8 + rng.gumbel(size=30) * 0.3
        made.append((rows, int(wanted.argmax())))
    return made


def taught(n: int, seed: int = 4) -> ListwiseRanker:
    """A ranker that has learned n examples."""
    ranker = ListwiseRanker()
    for rows, chosen in choices(n, seed):
        ranker.learn_one(rows, chosen)
    return ranker


def mean_rank(ranker: ListwiseRanker) -> float:
    """Mean reciprocal rank on new examples."""
    total = 0.0
    for rows, chosen in choices(200, seed=2):
        scores = ranker.scores(rows)
        total += 1 / int((scores >= scores[chosen]).sum())
    return total / 200


def test_ranker_learns_the_informative_feature() -> None:
    """The informative feature gains weight, and the mean reciprocal rank rises."""
    ranker = taught(600, seed=1)

    assert mean_rank(ranker) > mean_rank(ListwiseRanker()) + 0.3
    assert int(np.argmax(layers_of(ranker.parameters).weights)) == POPULAR


def test_fresh_ranker_orders_as_the_blend_does() -> None:
    """Before it has learned, the ranker scores as the blend does, with ties."""
    rows = np.random.default_rng(3).random((50, len(FEATURES)))
    rows[10:20, BASE] = rows[0, BASE]
    rows[:, AGAIN] = 0.0

    scores = ListwiseRanker().scores(rows)

    assert np.array_equal(np.argsort(scores), np.argsort(rows[:, BASE]))
    assert len(set(scores[10:20].tolist())) == 1


def test_own_items_count_by_how_often_they_are_taken_again() -> None:
    """The weight of own items follows the choices, whatever it was; scores stay finite."""
    rows = np.zeros((3, len(FEATURES)))
    rows[0, BASE] = 800.0
    rows[1:, AGAIN] = [1.0, 0.1]
    ranker = ListwiseRanker()

    def share() -> float:
        return float(np.exp(ranker.scores(rows)[1:]).sum())

    before = share()
    for _ in range(100):
        ranker.weigh_returns(Chances(0.0, 0.1))
    assert share() < 0.01 < before
    for _ in range(200):
        ranker.weigh_returns(Chances(0.5, 0.01))
    assert share() > 0.45
    assert np.isfinite(ranker.scores(rows)).all()
    contributions = ranker.contributions(rows)[:, AGAIN]
    assert contributions[1] > contributions[2] > contributions[0]


def test_state_round_trip_is_exact() -> None:
    """A restored ranker scores and learns exactly as the original."""
    ranker = taught(20)
    ranker.weigh_returns(Chances(0.5, 0.1))
    copy = ListwiseRanker.from_state(ranker.state())
    rows, chosen = choices(1, seed=5)[0]
    assert np.array_equal(ranker.scores(rows), copy.scores(rows))

    ranker.learn_one(rows, chosen)
    copy.learn_one(rows, chosen)

    assert copy.state() == ranker.state()
    assert copy.n_examples == 21


def test_state_is_plain_numbers() -> None:
    """The state is JSON of finite numbers, with the names of the features."""
    stored = msgspec.json.decode(taught(20).state())

    assert stored["features"] == list(FEATURES)
    sizes = {"parameters": N_PARAMETERS, "squares": N_PARAMETERS}
    for name, size in (sizes | {"mean": len(FEATURES), "variance": len(FEATURES)}).items():
        assert len(stored[name]) == size
        assert all(math.isfinite(number) for number in stored[name])


@pytest.mark.parametrize("change", [{"features": ["other"]}, {"version": 0}])
def test_state_of_other_features_is_ignored(change: dict[str, object]) -> None:
    """A state with other features or of another version gives a new ranker."""
    other = msgspec.json.encode(msgspec.json.decode(taught(5).state()) | change)

    for state in (other, b"", None):
        assert ListwiseRanker.from_state(state).state() == ListwiseRanker().state()


def test_scoring_is_pure() -> None:
    """Scoring changes neither the ranker nor the rows, and learning leaves the rows alone."""
    ranker = taught(20)
    rows, chosen = choices(1, seed=6)[0]
    state, before = ranker.state(), rows.copy()

    assert np.array_equal(ranker.scores(rows), ranker.scores(rows))
    assert ranker.state() == state
    ranker.learn_one(rows, chosen)
    assert np.array_equal(rows, before)


def test_learning_leaves_other_rankers_alone() -> None:
    """Rankers share no arrays, not even the initial parameters."""
    fresh = ListwiseRanker().state()

    taught(5)

    assert ListwiseRanker().state() == fresh


@pytest.mark.parametrize("seed", [None, 3])
def test_first_step_is_the_softmax_gradient(seed: int | None) -> None:
    """The first step is AdaGrad's, by the listwise loss of standardised features.

    From the initial parameters, where the hidden layer has no output, and from random ones.
    """
    rows, chosen = choices(1, seed=7)[0]
    deviation = np.sqrt(rows.var(axis=0) + rows.mean(axis=0) ** 2 + 1e-6)
    scaled = (rows - rows.mean(axis=0)) / deviation

    def loss(parameters: Floats) -> float:
        parts = layers_of(parameters)
        hidden = np.maximum(scaled @ parts.hidden_weights.T + parts.hidden_bias, 0.0)
        scores = scaled @ parts.weights + hidden @ parts.output_weights
        return float(np.log(np.exp(scores).sum()) - scores[chosen])

    start = (
        INITIAL_PARAMETERS
        if seed is None
        else np.random.default_rng(seed).normal(size=N_PARAMETERS)
    )
    gradient = np.array(
        [(loss(start + step) - loss(start - step)) / 2e-6 for step in 1e-6 * np.eye(N_PARAMETERS)]
    )

    ranker = ListwiseRanker(start.copy()).learn_one(rows, chosen)

    assert ranker.squared_gradients == pytest.approx(gradient**2, rel=1e-4, abs=1e-9)
    moved = ranker.parameters - start
    clear = np.abs(gradient) > 1e-3
    assert clear.sum() > len(FEATURES) / 2
    # River divides by the root of the squared gradients plus 1e-8.
    step = LEARNING_RATE * gradient / np.sqrt(gradient**2 + 1e-8)
    assert moved[clear] == pytest.approx(-step[clear], rel=1e-3)
    assert layers_of(INITIAL_PARAMETERS).weights[BASE] == INITIAL_BASE_WEIGHT


def test_equal_rows_have_equal_scores() -> None:
    """Whatever their place in the matrix: ties are ordered by item id."""
    rng = np.random.default_rng(9)
    ranker = ListwiseRanker(rng.normal(size=N_PARAMETERS))
    for n in range(1, 70):
        matrix = np.repeat(rng.normal(size=(1, len(FEATURES))), n, axis=0)
        assert len(set(ranker.scores(matrix).tolist())) == 1, n


def test_ranker_learns_interactions_of_features() -> None:
    """The most popular item is taken or, after a pause, the least: no linear weight is right."""
    rng = np.random.default_rng(11)

    def choice(ranker: ListwiseRanker) -> float:
        rows = rng.random((20, len(FEATURES)))
        rows[:, -1] = pause = float(rng.integers(2))
        chosen = int((rows[:, POPULAR] * (1 - 2 * pause)).argmax())
        scores = ranker.scores(rows)
        ranker.learn_one(rows, chosen)
        return 1 / int((scores >= scores[chosen]).sum())

    ranker = ListwiseRanker()
    ranks = [choice(ranker) for _ in range(3000)]

    assert np.mean(ranks[-500:]) > 0.6
    assert np.mean(ranks[-500:]) > np.mean(ranks[:100]) + 0.3


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((1, len(FEATURES))),
        np.ones((5, len(FEATURES))),
        np.full((5, len(FEATURES)), 65504.0) * np.array([[1], [-1], [0], [1], [1]]),
    ],
)
def test_weights_stay_finite(rows: Floats) -> None:
    """With a single row, equal rows and the largest half-precision numbers."""
    ranker = taught(3)
    for _ in range(20):
        ranker.learn_one(rows, 0)

    heavy = ListwiseRanker(np.full(N_PARAMETERS, 1e4)).learn_one(rows, 0)

    for one in (ranker, heavy):
        assert np.isfinite(one.parameters).all()
        assert np.isfinite(one.scores(rows)).all()
