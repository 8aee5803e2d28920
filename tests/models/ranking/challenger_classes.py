"""Challengers for tests, by rules of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.arrays import Floats
from models.ranking.challengers import NamedFeatures


class NextNumber:
    """The item whose number follows the last one's comes first; it has nothing to learn."""

    def learn_one(self, features: NamedFeatures, taken: int) -> None:
        """Learn nothing."""

    def score_many(self, features: NamedFeatures) -> Floats:
        """1 for that item, else 0."""
        follows: Any = features["item"] == features["last_item"] + 1
        return np.asarray(follows, np.float64)


class Recency:
    """As the docstring of `Challenger` has it: it learns how old what is taken is."""

    def __init__(self) -> None:
        self.sign = 0.0

    def learn_one(self, features: NamedFeatures, taken: int) -> None:
        """Learn whether the taken item is younger than the mean one."""
        ages = features["since_last_touch"]
        self.sign += float(np.sign(ages.mean() - ages[taken]))

    def score_many(self, features: NamedFeatures) -> Floats:
        """By age, in the direction that was learned."""
        return -self.sign * features["since_last_touch"]


class Failing(NextNumber):
    """Fails from the first example on that it learns."""

    has_learned = False

    def learn_one(self, features: NamedFeatures, taken: int) -> None:  # noqa: ARG002
        """Break the scores."""
        self.has_learned = True

    def score_many(self, features: NamedFeatures) -> Floats:
        """What is no finite number for each candidate."""
        return np.array([np.nan]) if self.has_learned else super().score_many(features)


not_callable = 5
