"""Training examples: the taken item first, distinct negatives, and decoding of untrusted bytes."""

from __future__ import annotations

import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.arrays import Floats
from models.ranking.champions import Objective
from models.ranking.examples import (
    MAX_NEGATIVES,
    Choice,
    Example,
    compared_orders,
    decode,
    encode,
    make_example,
)
from models.ranking.features import AGAIN, BASE, FEATURES
from models.ranking.objectives import learn, load_learners
from models.ranking.ranker import ListwiseRanker
from models.ranking.returns import Chances

pytestmark = pytest.mark.unit

RANKERS: dict[Objective, ListwiseRanker] = {"interactions": ListwiseRanker()}
RANKS: dict[Objective, dict[str, int]] = {"interactions": dict.fromkeys(compared_orders(), 1)}


def matrix_of(n: int, seed: int = 6) -> Floats:
    """Random features of n candidates."""
    return np.random.default_rng(seed).random((n, len(FEATURES)))


def made(n: int, chosen: int, seed: int = 0) -> Example:
    """An example of n candidates, the items 1 to n."""
    rng = np.random.default_rng(seed)
    return make_example(Choice(np.arange(1, n + 1), matrix_of(n), chosen), RANKERS, rng)


@pytest.mark.parametrize("n", [1, 2, MAX_NEGATIVES + 1, MAX_NEGATIVES + 2, 300])
def test_examples_have_the_taken_item_first(n: int) -> None:
    """An example has the taken row and distinct others, up to a limit."""
    matrix, chosen = matrix_of(n), 1 + n // 2

    example = decode(encode(made(n, chosen)))

    assert example == made(n, chosen)
    rows = example.matrix()
    assert rows.shape == (min(n, 1 + MAX_NEGATIVES), len(FEATURES))
    assert rows[0] == pytest.approx(matrix[chosen - 1], abs=1e-3)
    known = {row.tobytes() for row in matrix.astype(np.float16).astype(np.float64)}
    assert len({row.tobytes() for row in rows} & known) == len(rows)


def test_examples_name_the_sources_of_the_taken_item() -> None:
    """Those whose feature it has, the lists where none has, and no source if it was missed."""
    matrix = np.zeros((3, len(FEATURES)))
    matrix[1, [FEATURES.index("day_10_share"), FEATURES.index("alike_share")]] = 0.4
    matrix[2, FEATURES.index("own_count")] = 0.7

    def sources(chosen: int) -> list[str]:
        choice = Choice(np.arange(1, 4), matrix, chosen)
        example = decode(encode(make_example(choice, RANKERS, np.random.default_rng(1))))
        assert example is not None
        return example.sources()

    assert sources(1) == ["lists"]
    assert sources(2) == ["event", "alike"]
    assert sources(3) == ["history"]
    assert sources(9) == []


def test_examples_have_a_rank_in_every_order() -> None:
    """Ranks count from 1, ties against the taken item; 0 if it was no candidate."""
    matrix = matrix_of(5)
    matrix[:, BASE] = [0.3, 0.9, 0.3, 0.1, 0.3]
    matrix[:, FEATURES.index("since_last_touch")] = [1, 2, 3, 4, 5]
    # Within a moment: at its beginning own items have a weight of their own.
    matrix[:, AGAIN] = 0.0

    ranks = [
        make_example(
            Choice(np.arange(1, 6), matrix, chosen), RANKERS, np.random.default_rng(1)
        ).ranks["interactions"]
        for chosen in range(1, 6)
    ]

    assert [one["blend"] for one in ranks] == [4, 1, 4, 5, 4]
    assert [one["ranker"] for one in ranks] == [4, 1, 4, 5, 4]
    assert [one["recent"] for one in ranks] == [1, 2, 3, 4, 5]
    missed = made(100, chosen=999)
    assert (missed.rows, missed.ranks) == (
        b"",
        {"interactions": dict.fromkeys(compared_orders(), 0)},
    )
    assert missed.matrix().shape == (0, len(FEATURES))
    assert decode(encode(missed)) == missed


def test_examples_tell_how_likely_the_taken_item_was_as_an_own_one() -> None:
    """At the beginning of a moment, of items that were candidates and have a rank."""
    matrix, items, rng = np.zeros((4, len(FEATURES))), np.arange(1, 5), np.random.default_rng(1)

    def chances(chosen: int, last: int = 0) -> dict[Objective, Chances]:
        example = make_example(Choice(items, matrix, chosen, last=last), RANKERS, rng)
        assert decode(encode(example)) == example
        return example.chances

    assert chances(2) == {}
    matrix[1:3, AGAIN] = [0.3, 0.9]
    assert chances(2)["interactions"] == pytest.approx((0.25, 0.25))
    assert chances(3)["interactions"] == pytest.approx((0.75, 0.25))
    assert chances(1)["interactions"] == pytest.approx((0.0, 0.25))
    assert chances(9) == {}
    assert chances(3, last=3) == {}

    matrix[:, BASE] = [0.3, 0.0, 0.0, 0.0]
    learners = load_learners()
    ranker = learners["interactions"].ranker
    assert ranker.scores(matrix).argmax() == 2
    for _ in range(30):
        learn(learners, make_example(Choice(items, matrix, 1), RANKERS, rng))
    # Nobody takes anything again; among themselves new items are as learned, whatever the weight.
    scores, learned = ranker.scores(matrix), ranker.learned_scores(matrix)
    assert scores.argmax() == 0
    assert scores[0] - scores[3] == pytest.approx(learned[0] - learned[3])


def test_the_last_item_is_learned_but_not_ranked() -> None:
    """It is barred from answers: no rank counts it, and taking it again is not measured."""
    matrix, rng = np.zeros((3, len(FEATURES))), np.random.default_rng(1)
    matrix[:, BASE] = [0.5, 0.9, 0.7]
    items = np.array([1, 2, 3])

    other = make_example(Choice(items, matrix, 1, last=2), RANKERS, rng)
    assert other.ranks["interactions"]["ranker"] == 2
    assert sorted(other.matrix()[:, BASE].tolist()) == pytest.approx([0.5, 0.7, 0.9], abs=1e-3)

    again = make_example(Choice(items, matrix, 2, last=2), RANKERS, rng)
    assert again.ranks == {"interactions": {}}
    assert again.matrix()[0, BASE] == pytest.approx(0.9, abs=1e-3)
    assert decode(encode(again)) == again
    learner = load_learners()
    learn(learner, again)
    assert learner["interactions"].ranker.n_examples == 1
    assert learner["interactions"].scoreboard.n == 0


def test_making_an_example_changes_nothing() -> None:
    """Neither ranker nor features change, and equal seeds give equal examples."""
    matrix, ranker = matrix_of(100), ListwiseRanker()
    state, before = ranker.state(), matrix.copy()

    make_example(
        Choice(np.arange(1, 101), matrix, 42), {"interactions": ranker}, np.random.default_rng(1)
    )

    assert ranker.state() == state
    assert np.array_equal(matrix, before)
    assert made(100, 42, seed=1) == made(100, 42, seed=1)
    assert made(100, 42, seed=1) != made(100, 42, seed=2)


def test_likely_candidates_are_sampled_more_often() -> None:
    """A candidate with a higher score is more likely to be a negative."""
    matrix = np.zeros((101, len(FEATURES)))
    matrix[:, BASE] = np.arange(101) / 10
    rng, drawn = np.random.default_rng(3), np.zeros(101)
    for _ in range(50):
        example = make_example(Choice(np.arange(1, 102), matrix, 1), RANKERS, rng)
        kept = np.rint(example.matrix()[1:, BASE] * 10).astype(np.int64)
        np.add.at(drawn, kept, 1)

    assert drawn.sum() == 50 * MAX_NEGATIVES
    assert drawn[81:].sum() > 5 * drawn[1:21].sum()


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected(raw: bytes) -> None:
    """Bytes are an example, an outdated one, or one of `DECODE_ERRORS`."""
    with contextlib.suppress(msgspec.MsgspecError, ValueError):
        decode(raw)


@given(st.data())
def test_damaged_examples_are_rejected(data: st.DataObject) -> None:
    """An example with bytes cut or changed is rejected, or can be learned."""
    raw = bytearray(encode(made(30, 3)))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(msgspec.MsgspecError, ValueError):
        example = decode(bytes(raw))
        if example is not None and example.rows:
            ranker = ListwiseRanker().learn_one(example.matrix(), 0)
            assert np.isfinite(ranker.parameters).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_rejected(poison: float) -> None:
    """One such row would spoil the ranker's weights for ever."""
    rows = np.zeros((2, len(FEATURES)), np.float16)
    rows[1, 5] = poison
    with pytest.raises(ValueError, match="finite"):
        decode(encode(Example(len(FEATURES), RANKS, rows.tobytes())))


def test_incomplete_rows_are_rejected() -> None:
    """The rows must be a whole number of feature vectors."""
    with pytest.raises(ValueError, match="cut short"):
        decode(encode(Example(len(FEATURES), RANKS, b"\0\0")))


@pytest.mark.parametrize(
    ("n_features", "names"),
    [
        (len(FEATURES) + 1, compared_orders()),
        (0, compared_orders()),
        (len(FEATURES), compared_orders()[1:]),
        (len(FEATURES), "xyz"),
    ],
)
def test_examples_of_another_version_are_skipped(n_features: int, names: tuple[str, ...]) -> None:
    """Examples with other features or orders can be neither learned nor compared."""
    assert decode(encode(Example(n_features, {"interactions": dict.fromkeys(names, 1)}))) is None
