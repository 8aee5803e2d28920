"""The package's ranker as a classifier of River, for pipelines and comparisons of one's own."""

from __future__ import annotations

import math

import numpy as np
from river import base

from models.arrays import Floats
from models.ranking.features import FEATURES
from models.ranking.ranker import ListwiseRanker

PLACES = {name: place for place, name in enumerate(FEATURES)}


class CandidateClassifier(base.Classifier):  # type: ignore[misc]
    """Classifier of candidates, taken or not, by `ListwiseRanker` on their named features.

    One candidate at a time: each is compared with the mean of those before, and taken or not taken
    means that it is the better or the worse of the two. So the loss is the logistic one on the
    difference of two scores, what the ranker's listwise loss is for two candidates. Of `FEATURES`
    those that a row lacks are 0; other names are not used.

    >>> from river import preprocessing
    >>> model = preprocessing.StandardScaler() | CandidateClassifier()
    >>> for _ in range(20):
    ...     model.learn_one({"own_recency": 1.0}, True)
    ...     model.learn_one({"own_recency": 0.0}, False)
    >>> model.predict_one({"own_recency": 1.0}), model.predict_one({"own_recency": 0.0})
    (True, False)
    """

    def __init__(self) -> None:
        self._ranker = ListwiseRanker()
        self._mean = np.zeros(len(FEATURES))
        self._n_seen = 0

    @property
    def _multiclass(self) -> bool:
        return False

    def learn_one(self, x: dict[str, float], y: bool) -> None:
        """Learn whether a candidate with the features `x` was taken."""
        row = _row(x)
        self._n_seen += 1
        self._mean += (row - self._mean) / self._n_seen
        self._ranker.learn_one(np.array([row, self._mean]), 0 if y else 1)

    def predict_proba_one(self, x: dict[str, float]) -> dict[bool, float]:
        """Probability that the candidate is not taken, and that it is."""
        candidate, mean = self._ranker.learned_scores(np.array([_row(x), self._mean])).tolist()
        taken = 1.0 / (1.0 + math.exp(min(max(mean - candidate, -700.0), 700.0)))
        return {False: 1.0 - taken, True: taken}


def _row(x: dict[str, float]) -> Floats:
    row = np.zeros(len(FEATURES))
    for name, value in x.items():
        place = PLACES.get(name)
        if place is not None:
            row[place] = value
    return row
