"""Batch methods that are compared, trained again every so many events."""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import Any

import numpy as np

from models.arrays import Floats, Indexes
from models.evaluation.protocol import Scores
from models.extras import require_extra
from models.state.users.interactions import Interaction

EVERY = 10_000
"""Events between two trainings."""

CONTEXT = 50
"""Last events of a user that count."""

MAX_ITEMS = 4000
"""Items of EASE, the most popular ones: training takes time by their third power."""

RIDGE = 100.0
"""Regularisation of EASE."""

NONE = Scores(np.empty(0, np.int64), np.empty(0))


class BatchMethod:
    """Counts of users and items, from which `_train` makes a model."""

    def __init__(self, every: int = EVERY) -> None:
        self._every = every
        self._users: list[int] = []
        self._items: list[int] = []
        self._pasts: dict[int, list[int]] = defaultdict(list)
        self._model: Any = None

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of the items known at the last training."""
        if self._model is None:
            return NONE
        scores = np.asarray(self._scores(user, self._pasts[user][-CONTEXT:]))
        return Scores(np.arange(len(scores)), np.where(scores != 0.0, scores, -np.inf))

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Keep the event, and train again when it is due."""
        self._users.append(user)
        self._items.append(item)
        self.observe(user, item, event)
        if len(self._items) % self._every == 0:
            self._train()

    def observe(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Add the item to the user's history."""
        self._pasts[user].append(item)

    def _counts(self) -> Any:  # noqa: ANN401  SciPy is not typed
        from scipy.sparse import csr_matrix  # noqa: PLC0415

        return csr_matrix((np.ones(len(self._items)), (self._users, self._items)))

    def _train(self) -> None:
        raise NotImplementedError

    def _scores(self, user: int, past: list[int]) -> Floats:
        raise NotImplementedError


class ItemNeighbours(BatchMethod):
    """`implicit`'s BM25 item neighbours."""

    def _train(self) -> None:
        require_extra("implicit", "evaluation", "a comparison with a batch system")
        from implicit.nearest_neighbours import BM25Recommender  # noqa: PLC0415

        model = BM25Recommender(K=100, num_threads=1)
        with warnings.catch_warnings():
            # It converts the matrix while weighting it, and then warns about the format.
            warnings.simplefilter("ignore")
            model.fit(self._counts(), show_progress=False)
        self._model = model.similarity.tocsr()

    def _scores(self, user: int, past: list[int]) -> Floats:  # noqa: ARG002
        known = [item for item in past if item < self._model.shape[0]]
        scores: Floats = np.asarray(self._model[known].sum(axis=0)).ravel()
        return scores


class MatrixFactors(BatchMethod):
    """`implicit`'s matrix factorisation: ALS, or BPR, with 64 factors."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def _train(self) -> None:
        require_extra("implicit", "evaluation", "a comparison with a batch system")
        from implicit.als import AlternatingLeastSquares  # noqa: PLC0415
        from implicit.bpr import BayesianPersonalizedRanking  # noqa: PLC0415

        made = AlternatingLeastSquares if self._kind == "als" else BayesianPersonalizedRanking
        with warnings.catch_warnings():
            # It would have the threads of NumPy's algebra set for the whole process.
            warnings.simplefilter("ignore")
            model = made(factors=64, num_threads=1, random_state=7)
            model.fit(self._counts(), show_progress=False)
        self._model = model

    def _scores(self, user: int, past: list[int]) -> Floats:
        if user >= len(self._model.user_factors):
            # A user since the last training: the mean of the items' factors.
            known = [item for item in past if item < len(self._model.item_factors)]
            factors = self._model.item_factors[known].sum(axis=0)
        else:
            factors = self._model.user_factors[user]
        scores: Floats = self._model.item_factors @ factors
        return scores


class Ease(BatchMethod):
    """EASE (Steck 2019): a linear model of each item by all others, in closed form."""

    def _train(self) -> None:
        counts = (self._counts() > 0).astype(np.float64)
        popularity = np.asarray(counts.sum(axis=0)).ravel()
        chosen = np.sort(np.argsort(-popularity, kind="stable")[:MAX_ITEMS])
        gram = (counts[:, chosen].T @ counts[:, chosen]).toarray()
        gram[np.diag_indices_from(gram)] += RIDGE
        inverse = np.linalg.inv(gram)
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        self._model = chosen, weights, len(popularity)

    def _scores(self, user: int, past: list[int]) -> Floats:  # noqa: ARG002
        chosen, weights, n = self._model
        scores = np.zeros(n)
        own = np.flatnonzero(np.isin(chosen, past))
        scores[chosen] = weights[own].sum(axis=0)
        return scores
