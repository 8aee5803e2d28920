"""The package's ranker among River's estimators, by River's own checks."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable

import numpy as np
import pytest
from river import checks, metrics, preprocessing

from models.ranking.features import FEATURES
from models.ranking.river_estimator import CandidateClassifier

pytestmark = pytest.mark.unit


def checks_of_river() -> list[Callable[[CandidateClassifier], None]]:
    """River's checks; those of classifiers load scikit-learn, and use nothing of it."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("sklearn") is None:
            empty = types.ModuleType("sklearn")
            empty.datasets = types.ModuleType("sklearn.datasets")  # type: ignore[attr-defined]
            patch.setitem(sys.modules, "sklearn", empty)
        model = CandidateClassifier()
        return [
            check for check in checks.yield_checks(model)
            if check.__name__ not in model._unit_test_skips()
        ]  # fmt: skip


@pytest.mark.parametrize("check", checks_of_river(), ids=lambda check: check.__name__)
def test_checks_of_river(check: Callable[[CandidateClassifier], None]) -> None:
    """All that River asks of a classifier."""
    check(CandidateClassifier())


def test_in_a_pipeline() -> None:
    """Behind a scaler it learns what is told apart by one named feature."""
    chance = np.random.default_rng(1)
    model = preprocessing.StandardScaler() | CandidateClassifier()
    measured = metrics.ROCAUC()
    for _ in range(1000):
        row = dict(zip(FEATURES, chance.normal(size=len(FEATURES)).tolist(), strict=True))
        is_taken = row["own_recency"] + 0.3 * chance.normal() > 1.0
        measured.update(is_taken, model.predict_proba_one(row).get(True, 0.5))
        model.learn_one(row, is_taken)
    assert measured.get() > 0.8, measured
