"""Rankers drawn from the posterior of the learned one."""

from __future__ import annotations

import numpy as np

from models.ranking.features import BASE, N_FEATURES
from models.ranking.ranker import ListwiseRanker
from models.ranking.uncertainty import HEADS, drawn_heads, votes


def taught(n: int) -> ListwiseRanker:
    """A ranker that saw n choices among six candidates, likelier the greater the base."""
    rng, ranker = np.random.default_rng(7), ListwiseRanker()
    for _ in range(n):
        rows = rng.normal(size=(6, N_FEATURES))
        odds = np.exp(rows[:, BASE])
        ranker.learn_one(rows, int(rng.choice(6, p=odds / odds.sum())))
    return ranker


def test_drawn_rankers_agree_the_more_the_more_was_learned() -> None:
    """Votes spread over candidates that are alike at first, and fall on the best one later."""
    rng = np.random.default_rng(1)
    matrix = 0.3 * rng.normal(size=(8, N_FEATURES))
    spreads, firsts = [], []
    for ranker in (taught(3), taught(300)):
        heads = drawn_heads(ranker, np.random.default_rng(2), 400)
        spreads.append(float(heads.deviations(matrix).std(axis=1).mean()))
        firsts.append(int(votes(heads, matrix, ranker.scores(matrix)).max()))

    assert spreads[1] < spreads[0] / 2
    assert firsts[1] > firsts[0]


def test_deviations_are_those_of_rankers_with_other_last_layers() -> None:
    """A head's scores are the ranker's with its drawn weights, up to a number of all rows."""
    ranker, matrix = taught(20), np.random.default_rng(3).normal(size=(5, N_FEATURES))
    heads = drawn_heads(ranker, np.random.default_rng(4))
    assert len(heads.linear) == HEADS

    folded = ranker.folded_weights
    for head, deviations in enumerate(heads.deviations(matrix).T):
        drawn = ListwiseRanker()
        weights = folded.input_weights.copy()
        weights[-1] += heads.linear[head]
        drawn._folded = folded._replace(
            input_weights=weights, output_weights=folded.output_weights + heads.output[head]
        )
        change = drawn.learned_scores(matrix) - ranker.learned_scores(matrix)
        np.testing.assert_allclose(change - change[0], deviations - deviations[0], atol=1e-9)


def test_every_head_has_one_vote() -> None:
    """Where what was added to the scores decides, all votes fall on one candidate."""
    ranker, matrix = taught(5), np.zeros((3, N_FEATURES))
    heads = drawn_heads(ranker, np.random.default_rng(5))

    assert votes(heads, matrix, np.array([0.0, 2.0, 1.0])).tolist() == [0, HEADS, 0]
