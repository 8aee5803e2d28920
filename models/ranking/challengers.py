"""Challengers: rankers of others, that learn and are measured beside those of the package."""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from models.arrays import Floats, Indexes
from models.errors import CannotStart
from models.ranking.champions import BUILT_IN_CHOICES, Objective, challenger_name
from models.ranking.examples import Example, compared_orders
from models.ranking.features import FEATURES
from models.ranking.ranker import Ranker

LOG = logging.getLogger(__name__)

ITEM, LAST_ITEM = "item", "last_item"

NamedFeatures = Mapping[str, Floats]
"""A column ``(n,)`` of each of `models.ranking.features.FEATURES`, a row for each candidate.

And the numbers of the candidates, `ITEM`, and of the user's last item, `LAST_ITEM`, which are names
rather than quantities: 0 is none.
"""


class Context(NamedTuple):
    """Indexes of the candidates, and of the user's last item, 0 for none."""

    items: Indexes
    last_item: int


Factory = Callable[[], "Challenger"]


class Challenger(Protocol):
    """A model that orders candidates by their named features, and learns which of them was taken.

    `RECOMMENDER_CHALLENGERS=package.module:factory` runs what `factory()` gives: an object with
    these two methods, or a classifier or regressor of River, which `RiverChallenger` adapts. It is
    measured on examples before it learns them, beside the built-in champion, and serves while it
    leads that one significantly (`ChallengerMeasures.update`).

    A class with a rule of its own, which learns how long ago items that are taken were last
    touched::

        class Recency:
            def __init__(self):
                self.sign = 0.0

            def learn_one(self, features, taken):
                ages = features["since_last_touch"]
                self.sign += np.sign(ages.mean() - ages[taken])

            def score_many(self, features):
                return -self.sign * features["since_last_touch"]
    """

    def learn_one(self, features: NamedFeatures, taken: int) -> object:
        """Learn that the candidate in row `taken` was taken among these, about twenty."""

    def score_many(self, features: NamedFeatures) -> Floats:
        """Scores of the candidates, ``(n,)`` finite, higher is better; it must not learn.

        Equal rows must get equal scores. Called for each answer, with some hundred candidates.
        """


def named_features(matrix: Floats, context: Context) -> NamedFeatures:
    """The columns of a matrix of features by their names.

    >>> named = named_features(np.zeros((2, len(FEATURES))), Context(np.array([7, 9]), 3))
    >>> named["item"].tolist(), named["last_item"].tolist(), named["base"].tolist()
    ([7.0, 9.0], [3.0, 3.0], [0.0, 0.0])
    """
    named = dict(zip(FEATURES, matrix.T, strict=True))
    named[ITEM] = context.items.astype(np.float64)
    named[LAST_ITEM] = np.full(len(matrix), float(context.last_item))
    return named


def challenger_factories(named: Iterable[str]) -> dict[str, Factory]:
    """Factories of ``package.module:factory``, by the factory's own name.

    >>> list(challenger_factories(["river.naive_bayes:GaussianNB"]))
    ['GaussianNB']

    Raises
    ------
    CannotStart
        There is no such module or factory, what it makes can neither rank nor be adapted, or two
        have one name.
    """
    found: dict[str, Factory] = {}
    for text in named:
        module, _, path = text.partition(":")
        name = challenger_name(text)
        if not path:
            raise CannotStart(f"RECOMMENDER_CHALLENGERS: {text} is not package.module:factory")
        if name in found or name in (*compared_orders(), *BUILT_IN_CHOICES):
            raise CannotStart(f"RECOMMENDER_CHALLENGERS: the name {name} is taken")
        try:
            made: Any = importlib.import_module(module)
            for part in path.split("."):
                made = getattr(made, part)
            factory = _adapting(made)
            factory()
        except CannotStart as error:
            raise CannotStart(f"RECOMMENDER_CHALLENGERS: {text} {error}") from error
        except Exception as error:
            raise CannotStart(f"RECOMMENDER_CHALLENGERS: {text}: {error!r}") from error
        found[name] = factory
    return found


def _adapting(make: Callable[[], Any]) -> Factory:
    def factory() -> Challenger:
        made = make()
        if hasattr(made, "score_many") and hasattr(made, "learn_one"):
            challenger: Challenger = made
            return challenger
        # River takes a second to load.
        from models.ranking.river_challenger import RiverChallenger  # noqa: PLC0415

        return RiverChallenger(made)

    return factory


@dataclass
class RunningChallenger:
    """A challenger under way: one that fails is told once in the log, and asked no more.

    Safe for a thread that learns and another that scores.
    """

    name: str
    model: Challenger
    has_failed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def learn(self, features: NamedFeatures, taken: int) -> None:
        """Learn an example."""
        self._guarded(lambda: self.model.learn_one(features, taken))

    def scores(self, features: NamedFeatures) -> Floats | None:
        """Scores of the rows; None if it fails, now or before."""
        found: Floats | None = self._guarded(lambda: self._checked(features))
        return None if self.has_failed else found

    def rank(self, features: NamedFeatures) -> int:
        """Rank of the first row, from 1, ties counted against it; 0 if it fails."""
        scores = self.scores(features)
        return 0 if scores is None else int((scores >= scores[0]).sum())

    def _checked(self, features: NamedFeatures) -> Floats:
        scores: Floats = np.asarray(self.model.score_many(features), np.float64)
        if scores.shape != features[ITEM].shape or not np.isfinite(scores).all():
            raise ValueError("score_many must give a finite number for each candidate")
        return scores

    def _guarded(self, call: Callable[[], Any]) -> Any:  # noqa: ANN401  what the call gives
        if self.has_failed:
            return None
        try:
            with self._lock:
                return call()
        except Exception:
            self.has_failed = True
            LOG.exception(
                "the challenger %s has failed, and is out until the next start", self.name
            )
            return None


ChallengerNames = Mapping[Objective, frozenset[str]]
"""Names of challengers by objective."""

ReadyChallengers = Mapping[Objective, Mapping[str, RunningChallenger]]
"""Challengers by objective and name."""


class ServingChallengers(Protocol):
    """Challengers that a process learns in order to answer by them."""

    def ready(self, wanted: ChallengerNames) -> ReadyChallengers:
        """Those of the wanted challengers that have learned enough here.

        Called whenever the shared state is read; it begins to learn those that are lacking.
        """


@dataclass(frozen=True)
class ChallengerRanker:
    """A challenger in a ranker's place; the built-in ranker stands in where it fails.

    `context` is that of the matrices; None: items without a number.
    """

    running: RunningChallenger
    built_in: Ranker
    context: Context | None = None
    uses_user_knn: ClassVar[bool] = True

    def scores(self, matrix: Floats) -> Floats:
        """Scores of candidates, see `Ranker.scores`."""
        if not len(matrix):
            return np.zeros(0)
        context = self.context or Context(np.zeros(len(matrix), np.int64), 0)
        found = self.running.scores(named_features(matrix, context))
        return self.built_in.scores(matrix) if found is None else found

    def contributions(self, matrix: Floats) -> Floats:
        """Contributions of features to scores, see `Ranker.contributions`.

        Those of a linear model of the scores around these candidates (Ribeiro et al. 2016, "Why
        should I trust you?"), fitted by ridge regression; what it leaves over is shared out in
        proportion, so that rows add up to the candidate's score less the mean one.
        """
        if not len(matrix):
            return matrix
        scores = self.scores(matrix)
        centred = matrix - matrix.mean(axis=0)
        spread = centred.std(axis=0)
        scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0.0)
        wanted = scores - scores.mean()
        weights = np.linalg.solve(scaled.T @ scaled + np.eye(matrix.shape[1]), scaled.T @ wanted)
        parts: Floats = scaled * weights
        sizes = np.abs(parts)
        total = sizes.sum(axis=1, keepdims=True)
        shares = np.divide(sizes, total, out=np.zeros_like(sizes), where=total > 0.0)
        whole: Floats = parts + shares * (wanted - parts.sum(axis=1))[:, np.newaxis]
        return whole


def ranks_of(running: Iterable[RunningChallenger], example: Example) -> dict[str, int]:
    """Rank of the taken item by each challenger among all candidates of an example."""
    if not example.ranked:
        return {one.name: 0 for one in running}
    items = np.frombuffer(example.ranked_items, np.uint32).astype(np.int64)
    features = named_features(example.all_candidates(), Context(items, example.last_item))
    return {one.name: one.rank(features) for one in running}


def learned_features(example: Example) -> NamedFeatures:
    """Features by which challengers learn an example: its sampled rows, the taken item's first."""
    items = np.frombuffer(example.row_items, np.uint32).astype(np.int64)
    return named_features(example.matrix(), Context(items, example.last_item))
