"""Challengers: made by the settings, measured beside the built-in rankers, served in the lead."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import anomaly, base, forest, linear_model, naive_bayes, preprocessing, reco

from models.errors import CannotStart
from models.ranking import examples
from models.ranking.challenger_learner import (
    ChallengerLearner,
    challenger_fields,
    learn_as_challengers,
    new_learners,
)
from models.ranking.challenger_measures import ChallengerMeasures
from models.ranking.challengers import (
    ChallengerRanker,
    Context,
    RunningChallenger,
    challenger_factories,
    named_features,
    ranks_of,
)
from models.ranking.champions import OBJECTIVES, Objective, stored_champions
from models.ranking.examples import Choice, Example, compared_orders, make_example
from models.ranking.features import FEATURES
from models.ranking.prequential import MIN_EXAMPLES_TO_SERVE
from models.ranking.ranker import BLEND, ListwiseRanker
from models.ranking.river_challenger import RiverChallenger
from tests.models.ranking.challenger_classes import Failing, NextNumber, Recency

pytestmark = pytest.mark.unit

HERE = "tests.models.ranking.challenger_classes"
LAST = 7
TELLING = FEATURES.index("since_last_touch")


def example(seed: int = 1, *, taken: int = LAST + 1, for_challengers: bool = True) -> Example:
    """One with 30 candidates of random features, the last item among them."""
    chance = np.random.default_rng(seed)
    matrix = chance.random((30, len(FEATURES)))
    # What is taken was touched before all others.
    matrix[taken - 1, TELLING] = 2.0
    choice = Choice(np.arange(1, 31), matrix, taken, LAST)
    rankers: dict[Objective, ListwiseRanker] = {"interactions": ListwiseRanker()}
    return make_example(choice, rankers, chance, for_challengers=for_challengers)


def test_an_example_has_all_candidates_that_have_a_rank() -> None:
    """In single precision, the taken first; the last item, which answers bar, is not among them."""
    one = example()
    read = examples.decode(examples.encode(one))
    assert read == one
    assert read.all_candidates().shape == (29, len(FEATURES))
    items = np.frombuffer(read.ranked_items, np.uint32)
    assert items[0] == LAST + 1
    assert sorted([*items.tolist(), LAST]) == list(range(1, 31))
    assert np.array_equal(read.matrix()[0], read.all_candidates()[0].astype(np.float16))
    plain = example(for_challengers=False)
    assert plain.ranks == one.ranks
    assert plain.rows == one.rows
    assert len(examples.encode(plain)) < len(examples.encode(one)) / 2


@pytest.mark.parametrize(
    "broken",
    [
        {"ranked": b"\0\0\0\0"},
        {"ranked_items": b""},
        {"row_items": b"\1\0\0\0"},
        {"ranked": np.full((29, len(FEATURES)), np.nan, np.float32).tobytes()},
    ],
    ids=["cut short", "no items", "too few items", "not finite"],
)
def test_a_damaged_example_is_none(broken: dict[str, bytes]) -> None:
    """It becomes a dead letter."""
    damaged = msgspec.structs.replace(example(), **broken)
    with pytest.raises(ValueError, match=r"cut short|has an item|not finite"):
        examples.decode(examples.encode(damaged))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("river.naive_bayes", "is not package.module:factory"),
        ("no.such:thing", "No module named"),
        ("river.naive_bayes:Nothing", "no attribute 'Nothing'"),
        (f"{HERE}:not_callable", "not callable"),
        ("river.preprocessing:StandardScaler", "gives neither a classifier"),
        ("builtins:dict", "gives neither a classifier"),
    ],
)
def test_what_is_no_challenger_is_refused(named: str, said: str) -> None:
    """In one sentence that names the setting."""
    with pytest.raises(CannotStart, match=f"RECOMMENDER_CHALLENGERS: .*{said}"):
        challenger_factories([named])


def test_names_are_distinct() -> None:
    """They stand in measures and metrics, beside those of the built-in rankers."""
    twice = [f"{HERE}:Recency"] * 2
    with pytest.raises(CannotStart, match="the name Recency is taken"):
        challenger_factories(twice)


@pytest.mark.parametrize(
    "model",
    [
        lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
        lambda: preprocessing.StandardScaler() | linear_model.LinearRegression(),
        linear_model.Perceptron,
        naive_bayes.GaussianNB,
        lambda: forest.ARFClassifier(n_models=2, seed=1, grace_period=20),
    ],
    ids=["logistic", "linear", "perceptron", "bayes", "forest"],
)
def test_models_of_river_learn(model: Callable[[], base.Estimator]) -> None:
    """After some examples the taken item is among the first."""
    one = RunningChallenger("model", RiverChallenger(model()))
    learner = ChallengerLearner([one])
    for seed in range(60):
        found = example(seed)
        learner.learn(found, found.ranks["interactions"], "blend")
    assert not one.has_failed
    # By chance it would be the fifteenth.
    assert np.mean([ranks_of([one], example(100 + n))["model"] for n in range(10)]) < 10


def test_recommenders_of_river_learn_items_behind_items() -> None:
    """The last item is the user."""
    one = RunningChallenger("model", RiverChallenger(reco.BiasedMF(seed=1)))
    learner = ChallengerLearner([one])
    for seed in range(60):
        found = example(seed)
        learner.learn(found, found.ranks["interactions"], "blend")
    assert ranks_of([one], example(100))["model"] == 1


def test_anomaly_detectors_are_refused() -> None:
    """They do not learn what is taken."""
    with pytest.raises(CannotStart, match="gives neither"):
        RiverChallenger(anomaly.HalfSpaceTrees())


def test_the_documented_examples() -> None:
    """Python of docs/challengers.md: a challenger learns in which direction age counts; a loss."""
    text = (Path(__file__).parents[3] / "docs" / "challengers.md").read_text()
    own, estimator = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found: dict[str, Any] = {}
    exec(own, found)  # noqa: S102
    exec(estimator, {})  # noqa: S102
    one = RunningChallenger("Recency", found["Recency"]())
    learner = ChallengerLearner([one])
    for seed in range(5):
        made = example(seed)
        learner.learn(made, made.ranks["interactions"], "blend")
    assert ranks_of([one], example(100)) == {"Recency": 1}


def test_the_shipped_models_can_be_made() -> None:
    """Six of River."""
    names = ("logistic", "linear", "bayes", "hoeffding", "trees", "factors")
    made = new_learners(challenger_factories(f"models.ranking.river_models:{n}" for n in names))
    assert [one.name for one in made["purchases"].running] == list(names)


def ranks(champion: int) -> dict[str, int]:
    """Ranks of all built-in orders."""
    return dict.fromkeys(compared_orders(), champion)


def test_a_challenger_serves_while_it_leads() -> None:
    """It begins after enough examples, and ends when it falls behind."""
    measures = ChallengerMeasures()
    for n in range(MIN_EXAMPLES_TO_SERVE - 1):
        measures.update(ranks(2), {"a": 1, "b": 3}, "ranker")
        assert measures.serving == "", n
    measures.update(ranks(2), {"a": 1, "b": 3}, "ranker")
    assert measures.serving == "a"
    assert measures.means["a"]["mrr"] == pytest.approx(1.0)
    n_until = 0
    while measures.serving:
        measures.update(ranks(1), {"a": 5, "b": 5}, "ranker")
        n_until += 1
    assert n_until < MIN_EXAMPLES_TO_SERVE
    stored = msgspec.json.decode(msgspec.json.encode(measures), type=ChallengerMeasures)
    assert stored == measures


@settings(max_examples=20)
@given(st.lists(st.integers(0, 30), min_size=MIN_EXAMPLES_TO_SERVE, max_size=310))
def test_equal_ranks_are_no_lead(taken: list[int]) -> None:
    """Whatever they are, a challenger that ranks as the champion does never serves."""
    measures = ChallengerMeasures()
    for rank in taken:
        measures.update(ranks(rank), {"a": rank}, "ranker")
        assert measures.serving == ""


def test_chance_is_no_lead() -> None:
    """Of forty challengers with ranks by chance hardly one ever serves."""
    chance = np.random.default_rng(1)
    measures = ChallengerMeasures()
    n_served = 0
    for _ in range(1000):
        drawn = chance.integers(1, 20, 41).tolist()
        found = {f"c{n}": rank for n, rank in enumerate(drawn[1:])}
        measures.update(ranks(drawn[0]), found, "ranker")
        n_served += bool(measures.serving)
    assert n_served < 100


def test_a_better_one_takes_over() -> None:
    """From a challenger that serves already, when it leads more."""
    measures = ChallengerMeasures()
    for n in range(MIN_EXAMPLES_TO_SERVE):
        measures.update(ranks(10), {"a": 2 + n % 2, "b": 10}, "ranker")
    assert measures.serving == "a"
    for n in range(2 * MIN_EXAMPLES_TO_SERVE):
        measures.update(ranks(10), {"a": 2 + n % 2, "b": 1}, "ranker")
    assert measures.serving == "b"


def test_one_that_fails_is_out(caplog: pytest.LogCaptureFixture) -> None:
    """The others go on; it is told once, and the built-in ranker scores in its place."""
    factories = challenger_factories([f"{HERE}:Failing", f"{HERE}:NextNumber"])
    learners = new_learners(factories)
    with caplog.at_level(logging.ERROR):
        for seed in range(MIN_EXAMPLES_TO_SERVE):
            learn_as_challengers(learners, example(seed), dict.fromkeys(OBJECTIVES, "blend"))
    failed = learners["interactions"].of("Failing")
    assert failed is not None
    assert failed.has_failed
    assert len(caplog.records) == 1
    champions = stored_champions(challenger_fields(learners))
    assert champions["interactions"].name == "NextNumber"
    assert champions["purchases"].name == "blend"
    assert "Failing" not in champions["interactions"].measures.means
    matrix = np.random.default_rng(1).random((5, len(FEATURES)))
    stands_in = ChallengerRanker(failed, BLEND)
    assert np.array_equal(stands_in.scores(matrix), BLEND.scores(matrix))


def test_a_miss_counts_for_all() -> None:
    """What was no candidate has no rank by anybody."""
    learner = ChallengerLearner([RunningChallenger("next", NextNumber())])
    chance = np.random.default_rng(1)
    choice = Choice(np.arange(1, 5), np.zeros((4, len(FEATURES))), 99, LAST)
    rankers: dict[Objective, ListwiseRanker] = {"interactions": ListwiseRanker()}
    missed = make_example(choice, rankers, chance, for_challengers=True)
    read = examples.decode(examples.encode(missed))
    assert read is not None
    learner.learn(read, read.ranks["interactions"], "blend")
    assert learner.measures.means["next"]["hr"] == 0.0
    assert learner.measures.n == 1


def recency_ranker() -> ChallengerRanker:
    """A ranker by a challenger that scores by one feature."""
    model = Recency()
    model.sign = 1.0
    return ChallengerRanker(RunningChallenger("Recency", model), BLEND)


def test_contributions_add_up() -> None:
    """To the score less the mean; nearly all of it is the one feature's that counts."""
    matrix = np.random.default_rng(1).random((200, len(FEATURES)))
    ranker = recency_ranker()
    parts = ranker.contributions(matrix)
    scores = ranker.scores(matrix)
    assert np.allclose(parts.sum(axis=1), scores - scores.mean())
    sizes = np.abs(parts).mean(axis=0)
    assert sizes.argmax() == TELLING
    assert sizes[TELLING] > 0.9 * sizes.sum()
    assert ranker.contributions(matrix[:0]).shape == (0, len(FEATURES))
    assert ranker.contributions(matrix[:1]).tolist() == [[0.0] * len(FEATURES)]


def test_features_have_names() -> None:
    """Each column, and what the items are."""
    matrix = np.arange(2.0 * len(FEATURES)).reshape(2, -1)
    named = named_features(matrix, Context(np.array([3, 4]), 9))
    assert list(named) == [*FEATURES, "item", "last_item"]
    assert named["popular_day"].tolist() == matrix[:, FEATURES.index("popular_day")].tolist()
    assert Failing().score_many(named).shape == (2,)
