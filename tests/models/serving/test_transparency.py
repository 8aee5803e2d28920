"""What decides about recommendations, told of the model that serves."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from models.ranking.explanations import SOURCES
from models.ranking.features import FEATURES, N_FEATURES
from models.ranking.ranker import BLEND, ListwiseRanker, WithoutUserKnn
from models.serving.cached.shared_state import SharedState
from models.serving.transparency import WORDS, Transparency, measured_weights, transparency
from models.settings import Settings
from tests.models.state.reference import NOW

pytestmark = pytest.mark.unit


def learned(*names: str) -> ListwiseRanker:
    """A ranker of choices that only these features decide."""
    ranker, chance = ListwiseRanker(), np.random.default_rng(3)
    columns = [FEATURES.index(name) for name in names]
    for _ in range(300):
        rows = chance.normal(size=(8, N_FEATURES))
        best = int(rows[:, columns].sum(axis=1).argmax())
        ranker.learn_one(rows[[best, *(n for n in range(8) if n != best)]], 0)
    return ranker


def test_every_parameter_has_words() -> None:
    """Plain ones, without the names of features."""
    assert set(WORDS) == set(SOURCES.tolist())
    assert not any(name in text for text in WORDS.values() for name in FEATURES)


def test_weights_are_those_of_the_model() -> None:
    """What decides about choices has the greatest weight, and all sum to one."""
    for name, source in (
        ("popular_week", "popular"),
        ("trend", "trending"),
        ("own_age", "history"),
    ):
        ranker = learned(name)
        weights = measured_weights(ranker, ranker)
        assert next(iter(weights)) == source
        assert sum(weights.values()) == pytest.approx(1, abs=0.01)
        assert measured_weights(ranker, ranker) == weights
    alike = learned("alike_share", "alike_log", "popular_week")
    assert measured_weights(alike, alike)["alike"] > 0.2
    assert measured_weights(WithoutUserKnn(alike), alike)["alike"] == 0
    assert measured_weights(BLEND, alike)["event"] == 1


def test_of_a_new_group_and_of_one_that_has_learned() -> None:
    """The blend, until the model is champion."""
    new = transparency(Settings(), SharedState(), [], now_s=NOW)
    ranker = learned("popular_week")
    shared = SharedState(
        rankers={"interactions": ranker, "purchases": ListwiseRanker()},
        champions={"interactions": "ranker", "purchases": "blend"},
    )
    old = transparency(Settings(), shared, [], now_s=NOW)

    assert [[one.name for one in each.parameters] for each in new.objectives] == [["event"]] * 2
    assert "fixed sum" in new.objectives[0].order
    interactions, purchases = old.objectives
    assert (interactions.learned_examples, purchases.learned_examples) == (300, 0)
    assert "learns from what people chose" in interactions.order
    assert interactions.parameters[0].name == "popular"
    assert [one.name for one in purchases.parameters] == ["event"]
    assert "profiling=off" in old.without_profiling
    assert msgspec.json.decode(msgspec.json.encode(old), type=Transparency) == old


def test_rules_are_those_of_the_settings() -> None:
    """What is off is not told."""
    settings = Settings(exploration_share=0, popular_share=0.5, category_share=0.25)
    text = " ".join(transparency(settings, SharedState(), ["device"], now_s=NOW).rules)
    assert "50% of a list are of the week's most popular" in text
    assert "25% of a list are of one category" in text
    assert "circumstances of a request rank higher: device." in text
    assert "drawn at random" not in text
    plain = " ".join(transparency(Settings(), SharedState(), [], now_s=NOW).rules)
    assert "On average 4% of a longer list are new items" in plain
    assert "circumstances" not in plain
