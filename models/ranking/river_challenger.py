"""River's classifiers, regressors and recommenders as challengers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from river import base, reco

from models.arrays import Floats
from models.errors import CannotStart
from models.ranking.challengers import ITEM, LAST_ITEM, NamedFeatures

LEAST_ODDS = 1e-9
"""Probabilities are kept this far from 0 and 1."""


class RiverChallenger:
    """A model of River as a `Challenger`: a classifier, a regressor, one of `river.reco`.

    Pipelines that end in one are. Of each example it learns the candidates one by one: whether each
    was taken, for regressors 1 or 0. Scores are the log-odds of that, or what is predicted. Models
    of `river.reco` know users and items by names: an item's is its number, and the user is the
    last item, for examples do not say who took something.

    >>> from river import naive_bayes
    >>> one = RiverChallenger(naive_bayes.GaussianNB())
    >>> shown = {"base": np.array([0.0, 1.0, 0.1])}
    >>> for _ in range(5):
    ...     one.learn_one(shown, taken=1)
    >>> int(np.argmax(one.score_many(shown)))
    1

    Raises
    ------
    CannotStart
        The model is of another kind.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401  River's types are loose
        self._learn: Callable[[Any, bool], None]
        self._score: Callable[[Any], float]
        self._rows: Callable[[NamedFeatures], Iterator[Any]] = _rows
        if isinstance(model, base.Classifier):
            self._learn, self._score = model.learn_one, _log_odds(model)
        elif isinstance(model, reco.base.Ranker):
            self._rows = _pairs
            self._learn = lambda pair, is_taken: model.learn_one(*pair, float(is_taken))
            self._score = lambda pair: model.predict_one(*pair)
        elif isinstance(model, base.Regressor):
            self._learn = lambda row, is_taken: model.learn_one(row, float(is_taken))
            self._score = model.predict_one
        else:
            raise CannotStart(
                "gives neither a classifier, regressor or recommender of River nor an object with "
                "learn_one and score_many"
            )

    def learn_one(self, features: NamedFeatures, taken: int) -> None:
        """Learn each candidate, see `Challenger.learn_one`."""
        for at, row in enumerate(self._rows(features)):
            self._learn(row, at == taken)

    def score_many(self, features: NamedFeatures) -> Floats:
        """Scores of the candidates, see `Challenger.score_many`."""
        return np.array([self._score(row) for row in self._rows(features)], np.float64)


def _log_odds(model: Any) -> Callable[[Any], float]:  # noqa: ANN401  River's types are loose
    def log_odds(row: dict[str, float]) -> float:
        try:
            odds = model.predict_proba_one(row).get(True, 0.0)
        except NotImplementedError:
            # Some classifiers only decide.
            return float(bool(model.predict_one(row)))
        odds = min(max(odds, LEAST_ODDS), 1.0 - LEAST_ODDS)
        return math.log(odds / (1.0 - odds))

    return log_odds


def _rows(features: NamedFeatures) -> Iterator[dict[str, float]]:
    names = [name for name in features if name not in {ITEM, LAST_ITEM}]
    columns = [features[name].tolist() for name in names]
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _pairs(features: NamedFeatures) -> Iterator[tuple[int, int]]:
    numbers = (features[name].astype(int).tolist() for name in (LAST_ITEM, ITEM))
    return zip(*numbers, strict=True)
