"""How similar items are ordered is learned from what users took next."""

from __future__ import annotations

import numpy as np
import pytest

from models.ranking.examples import Choice, decode, encode, make_example
from models.ranking.features import FEATURES
from models.ranking.mixed_experts import weights_of
from models.ranking.objectives import learn, load_learners
from models.ranking.prequential import WINDOW
from models.ranking.ranker import ListwiseRanker
from models.ranking.similarity import (
    START,
    WEIGHTINGS,
    SimilarityChances,
    chances_of,
    similarity,
    taught,
)
from models.retrieval.candidates import Candidates
from models.retrieval.signals import BOTH_10, FACTORS, N_SIGNALS, blend

N = 40


def candidates(co_visited: int = 0, near: int = 1) -> Candidates:
    """Items, of which one is co-visited most, and one nearest by its factors."""
    signals = np.zeros((N, N_SIGNALS))
    signals[: N // 2, BOTH_10] = 0.01
    signals[: N // 2, FACTORS] = 0.01
    signals[co_visited, BOTH_10] = 1.0
    signals[near, FACTORS] = 1.0
    return Candidates(np.arange(1, N + 1), signals)


@pytest.mark.parametrize(("taken", "first"), [(1, 0), (2, 1)])
def test_the_better_expert_orders_the_list(taken: int, first: int) -> None:
    """Users who take what was co-visited, and users who take what factors say."""
    found, evidence = candidates(), START
    assert int(np.argmax(similarity(found, evidence))) == 0
    for _ in range(60):
        chances = chances_of(found, taken)
        assert chances is not None
        evidence = taught(evidence, chances)
    assert int(np.argmax(similarity(found, evidence))) == first
    assert (weights_of(evidence, WEIGHTINGS)[0] > 0.5) == (taken == 2)


def test_scores_are_those_of_probabilities() -> None:
    """They sum to 1 over the candidates, and none is impossible."""
    shown = np.exp(similarity(candidates(), START))
    assert shown.sum() == pytest.approx(1.0)
    assert shown.min() > 0.0


def test_without_one_expert_the_other_orders() -> None:
    """A group without factors has the order of co-visitation, and nothing is learned from it."""
    found = candidates()
    for empty, kept in ((FACTORS, BOTH_10), (BOTH_10, FACTORS)):
        alone = Candidates(found.items, found.signals.copy())
        alone.signals[:, empty] = 0.0
        expected = blend(alone.signals) if kept == BOTH_10 else alone.signals[:, FACTORS]
        assert np.array_equal(similarity(alone, START), expected)
        assert chances_of(alone, 1) is None
    assert chances_of(found, N + 1) is None


def test_examples_teach_the_learner_and_its_state_keeps_it() -> None:
    """Whether the item was a candidate of the choice or not; another start of the ranker, too."""
    learners, rng = load_learners(), np.random.default_rng(1)
    matrix = np.zeros((3, len(FEATURES)))
    chances = SimilarityChances(0.5, 0.01)
    for taken in (2, 99):
        before = learners["interactions"].ranker.similarity_evidence
        choice = Choice(np.arange(1, 4), matrix, taken, similarity=chances)
        rankers = {name: learner.ranker for name, learner in learners.items()}
        example = decode(encode(make_example(choice, rankers, rng)))
        assert example is not None
        learn(learners, example)
        after = learners["interactions"].ranker.similarity_evidence
        assert np.array_equal(after, taught(before, chances))
    assert np.array_equal(learners["purchases"].ranker.similarity_evidence, START)

    stored = ListwiseRanker.from_state(learners["interactions"].ranker.state())
    assert np.array_equal(stored.similarity_evidence, after)
    learners["interactions"].scoreboard.losing_streak = WINDOW
    learners["interactions"].scoreboard.n = WINDOW
    learners["interactions"].scoreboard.lead = -1.0
    choice = Choice(np.arange(1, 4), matrix, 2)
    learn(learners, make_example(choice, {"interactions": stored}, rng))
    assert learners["interactions"].ranker.n_examples == 1
    assert np.array_equal(learners["interactions"].ranker.similarity_evidence, after)


def test_an_example_with_impossible_chances_is_none() -> None:
    """It came from elsewhere."""
    choice = Choice(
        np.arange(1, 4), np.zeros((3, len(FEATURES))), 2, similarity=SimilarityChances(1.5, 0.1)
    )
    example = make_example(choice, {"interactions": ListwiseRanker()}, np.random.default_rng(1))
    with pytest.raises(ValueError, match="not a probability"):
        decode(encode(example))
