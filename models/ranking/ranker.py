"""Rankers: the interface, the listwise ranker that learns online, and the blend it starts from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec
import numpy as np

from models.arrays import Floats
from models.ranking import mixed_experts, returns, similarity
from models.ranking.features import AGAIN, BASE, FEATURES, N_FEATURES, without_user_knn
from models.ranking.folded_weights import (
    HIDDEN_UNITS,
    FoldedWeights,
    layer_scores,
    scores_with_returns,
)

LEARNING_RATE = 0.05
INITIAL_BASE_WEIGHT = 1.0
"""Initial weight of `base`: an untrained ranker orders by the blend, not at random."""

MIN_FORGETTING_RATE = 0.001
"""Least weight of a new example in the running means and variances of the features."""

STATE_VERSION = 3

EPSILON = 1e-9
"""Changes of a hidden unit's input below this have the slope of the end point."""


class Ranker(Protocol):
    """Scores candidates; the order of an answer is that of the scores.

    Implement it, add one line to `RANKERS`, and the ranker is measured on every example (running
    means by rank in `Scoreboard`, metric `recommender_quality`), is a variant of `recommender
    evaluate`, and serves an objective once it leads there (`Scoreboard.champion`).

    When called: once per request, with all candidates of the request as one matrix; once per
    training example; and, for top-list candidates without other evidence, once for each renewal
    of the shared state. It runs on the event loop, so it must neither block nor do I/O.

    Cost: `ListwiseRanker` takes 9 µs at 165 candidates, of some 250 µs of CPU for a request.
    """

    @property
    def uses_user_knn(self) -> bool:
        """True for a ranker that user k-NN evidence is read for: two more reads a request.

        Where False, the `alike_*` features are empty in serving, but not in training examples.
        """

    def scores(self, matrix: Floats) -> Floats:
        """Score every candidate.

        Parameters
        ----------
        matrix
            ``(n, len(FEATURES))``, finite, one row per candidate, columns as in
            `models.ranking.features.FEATURES`; ``n`` may be 0. Shared with others: it must not be
            changed.

        Returns
        -------
        Floats
            ``(n,)``, finite, higher is better. Log-odds: answers show their softmax, and lifts of
            contextual columns are added to them. Equal rows must get equal scores, whatever their
            place in the matrix: candidates with equal scores are then ordered by item id.
        """

    def contributions(self, matrix: Floats) -> Floats:
        """Attribute each score to the features; called only where reasons are wanted.

        Parameters
        ----------
        matrix
            As in `scores`; it must not be changed.

        Returns
        -------
        Floats
            ``(n, len(FEATURES))``; a row sums to the candidate's score less the mean candidate's,
            or, in what own items gain at the beginning of a moment, less the mean gain.
        """


class RankerLayers(NamedTuple):
    """Learned parameters, as views of one vector.

    The score of standardised features `x` is
    ``x @ weights + relu(x @ hidden_weights.T + hidden_bias) @ output_weights``.
    """

    weights: Floats
    hidden_weights: Floats
    hidden_bias: Floats
    output_weights: Floats


BLOCK_SIZES = (N_FEATURES, HIDDEN_UNITS * N_FEATURES, HIDDEN_UNITS, HIDDEN_UNITS)
"""Sizes of the parts of `RankerLayers`."""

N_PARAMETERS = sum(BLOCK_SIZES)
BLOCK_OFFSETS: tuple[int, ...] = tuple(np.cumsum(BLOCK_SIZES[:-1]).tolist())


def layers_of(parameters: Floats) -> RankerLayers:
    """Views of the parts of a ``(N_PARAMETERS,)`` vector."""
    # Slices: `numpy.split` takes ten times as long, twice for each example.
    hidden, bias, output = BLOCK_OFFSETS
    return RankerLayers(
        parameters[:hidden],
        parameters[hidden:bias].reshape(HIDDEN_UNITS, N_FEATURES),
        parameters[bias:output],
        parameters[output:],
    )


def _initial_parameters() -> Floats:
    """Parameters of the blend: random hidden weights, and output weights of zero.

    Later features are drawn last: where they are 0, the ranker learns as if there were none.
    """
    start = np.zeros(N_PARAMETERS)
    parts = layers_of(start)
    parts.weights[BASE] = INITIAL_BASE_WEIGHT
    rng = np.random.default_rng(1)
    of_texts = np.array([name.startswith("text_") for name in FEATURES])
    of_profile = np.array([name.startswith("profile_") for name in FEATURES])
    of_factors = np.array([name.startswith("factors_") for name in FEATURES])
    again = np.array([name == FEATURES[AGAIN] for name in FEATURES])
    first = ~of_texts & ~of_profile & ~again & ~of_factors
    for columns in (first, of_texts, of_profile, again, of_factors):
        drawn = rng.normal(size=(HIDDEN_UNITS, int(columns.sum())))
        parts.hidden_weights[:, columns] = drawn / np.sqrt(first.sum())
    return start


INITIAL_PARAMETERS = _initial_parameters()


@dataclass
class ListwiseRanker:
    """A linear model with a hidden layer on standardised features, trained one example at a time.

    An example is the item that a user took among the candidates of that moment. The loss is the
    listwise softmax cross-entropy (Cao et al. 2007, "Learning to rank: from pairwise approach to
    listwise approach"); River's AdaGrad makes the step. The hidden layer of rectified linear units
    captures interactions of features, such as popularity after a pause. Where a request begins a
    moment, own items have a second expert beside the layers, see `models.ranking.returns`.

    >>> ranker = ListwiseRanker()
    >>> rows = np.zeros((2, len(FEATURES))); rows[1, BASE] = 1.0
    >>> bool(ranker.scores(rows)[1] > ranker.scores(rows)[0])
    True
    """

    parameters: Floats = field(default_factory=INITIAL_PARAMETERS.copy)
    squared_gradients: Floats = field(default_factory=lambda: np.zeros(N_PARAMETERS))
    mean: Floats = field(default_factory=lambda: np.zeros(N_FEATURES))
    variance: Floats = field(default_factory=lambda: np.ones(N_FEATURES))
    n_examples: int = 0
    evidence: Floats = field(default_factory=lambda: np.zeros(len(returns.WEIGHTINGS)))
    """Of the weight that own items have at the beginning of a moment, see `returns`."""
    similarity_evidence: Floats = field(default_factory=similarity.START.copy)
    """Of the weights in lists of similar items, see `similarity`."""
    uses_user_knn: ClassVar[bool] = True
    _folded: FoldedWeights | None = field(default=None, init=False, repr=False)  # Cache.
    _share: tuple[Floats, float] | None = field(default=None, init=False, repr=False)  # Cache.

    @functools.cached_property
    def _optimizer(self) -> Any:  # noqa: ANN401  River is not typed
        # Servers only score: they save the second that River and its imports take.
        from river import optim  # noqa: PLC0415

        optimizer = optim.AdaGrad(LEARNING_RATE)
        # One vector under one name: River's step then works on the whole array at once.
        optimizer.g2["w"] = self.squared_gradients
        return optimizer

    def deviation(self) -> Floats:
        """Standard deviation of each feature among the candidates of examples."""
        deviation: Floats = np.sqrt(self.variance + 1e-6)
        return deviation

    @property
    def folded_weights(self) -> FoldedWeights:
        """Weights for raw features; computed once after each learned example."""
        if self._folded is None:
            parts = layers_of(self.parameters)
            weights = np.vstack([parts.hidden_weights, parts.weights]) / self.deviation()
            bias = parts.hidden_bias - weights[:HIDDEN_UNITS] @ self.mean
            self._folded = FoldedWeights(weights, bias, parts.output_weights)
        return self._folded

    def scores(self, matrix: Floats) -> Floats:
        """Scores of candidates, see `Ranker.scores`; about 9 µs at 165 candidates."""
        if self._share is None or self._share[0] is not self.evidence:
            self._share = self.evidence, returns.share_of(self.evidence)
        scores: Floats = scores_with_returns(matrix, *self.folded_weights, self._share[1])
        return scores

    def learned_scores(self, matrix: Floats) -> Floats:
        """Scores by the layers alone, ``(n,)``: own items count as all features do."""
        scores: Floats = layer_scores(matrix, *self.folded_weights)
        return scores

    def chances(self, matrix: Floats, place: int) -> returns.Chances | None:
        """Evidence of a choice about own items; None where no row is one."""
        if not matrix[:, AGAIN].any():
            return None
        return returns.chances_of(self.learned_scores(matrix), matrix[:, AGAIN], place)

    def contributions(self, matrix: Floats) -> Floats:
        """Contributions of features to scores, see `Ranker.contributions`.

        Integrated gradients (Sundararajan et al. 2017, "Axiomatic attribution for deep networks")
        from the mean candidate. On the way the input of a hidden unit changes linearly, so its
        mean slope is the change of its output divided by that of its input.
        """
        input_weights, bias, output_weights = self.folded_weights
        mean = matrix.mean(axis=0)
        start, end = (rows @ input_weights[:HIDDEN_UNITS].T + bias for rows in (mean, matrix))
        change = end - start
        is_still = np.abs(change) < EPSILON
        output_change = np.maximum(end, 0.0) - np.maximum(start, 0.0)
        slope = np.where(is_still, end > 0.0, output_change / np.where(is_still, 1.0, change))
        gradients = (slope * output_weights) @ input_weights[:HIDDEN_UNITS]
        contributions: Floats = (matrix - mean) * (gradients + input_weights[HIDDEN_UNITS])
        if matrix[:, AGAIN].any():
            gained = self.scores(matrix) - self.learned_scores(matrix)
            contributions[:, AGAIN] += gained - gained.mean()
        return contributions

    def weigh_returns(self, chances: returns.Chances) -> None:
        """Learn the weight of own items from the `chances` of one choice."""
        self.evidence = mixed_experts.weighed(self.evidence, returns.WEIGHTINGS, chances)

    def learn_one(self, rows: Floats, chosen: int) -> ListwiseRanker:
        """Learn that row `chosen` was taken among `rows`, ``(n, len(FEATURES))``."""
        self.n_examples += 1
        rate = max(MIN_FORGETTING_RATE, 1.0 / self.n_examples)
        centre = rows.mean(axis=0)
        spread = rows.var(axis=0) + (centre - self.mean) ** 2
        self.variance = self.variance + rate * (spread - self.variance)
        self.mean = self.mean + rate * (centre - self.mean)
        scaled = (rows - self.mean) / self.deviation()
        gradient = _gradient(layers_of(self.parameters), scaled, chosen)
        step = self._optimizer.step({"w": self.parameters.copy()}, {"w": gradient})
        self.parameters, self.squared_gradients = step["w"], self._optimizer.g2["w"]
        self._folded = None
        return self

    def state(self) -> bytes:
        """Everything learned, as JSON of plain numbers."""
        return msgspec.json.encode(
            {
                "version": STATE_VERSION,
                "features": FEATURES,
                "parameters": self.parameters.tolist(),
                "squares": self.squared_gradients.tolist(),
                "mean": self.mean.tolist(),
                "variance": self.variance.tolist(),
                "n_examples": self.n_examples,
                "evidence": self.evidence.tolist(),
                "similarity": self.similarity_evidence.tolist(),
            }
        )

    @classmethod
    def from_state(cls, raw: bytes | None) -> ListwiseRanker:
        """The ranker of a stored `state`; a new one if the features have changed since."""
        if not raw:
            return cls()
        stored: dict[str, Any] = msgspec.json.decode(raw)
        if stored["version"] != STATE_VERSION or tuple(stored["features"]) != FEATURES:
            return cls()
        stored.setdefault("similarity", similarity.START)
        parameters, squares, mean, variance, evidence, of_similar = (
            np.array(stored[name])
            for name in ("parameters", "squares", "mean", "variance", "evidence", "similarity")
        )
        counted = stored["n_examples"]
        return cls(parameters, squares, mean, variance, counted, evidence, of_similar)


def _gradient(parts: RankerLayers, scaled: Floats, chosen: int) -> Floats:
    """Gradient of the loss by every parameter, in the order of `RankerLayers`."""
    inputs = scaled @ parts.hidden_weights.T + parts.hidden_bias
    hidden = np.maximum(inputs, 0.0)
    scores = scaled @ parts.weights + hidden @ parts.output_weights
    odds = np.exp(scores - scores.max())
    odds /= odds.sum()
    odds[chosen] -= 1.0
    by_input = (inputs > 0.0) * np.outer(odds, parts.output_weights)
    return np.concatenate(
        [odds @ scaled, (by_input.T @ scaled).ravel(), by_input.sum(axis=0), odds @ hidden]
    )


class BlendRanker:
    """The blend of co-visitation signals, without learning.

    `ListwiseRanker` starts as this, but for own items at the beginning of a moment (`returns`). It
    serves until the learned ranker leads, and is the baseline that it is measured against.
    """

    uses_user_knn: ClassVar[bool] = False

    def __init__(self) -> None:
        # The folded weight of an untrained `ListwiseRanker`: scores are equal to the last digit.
        self._weight = float(ListwiseRanker().folded_weights.input_weights[HIDDEN_UNITS, BASE])

    def scores(self, matrix: Floats) -> Floats:
        """Scores of candidates, see `Ranker.scores`."""
        scores: Floats = matrix[:, BASE] * self._weight
        return scores

    def contributions(self, matrix: Floats) -> Floats:
        """Contributions of features to scores: of `base` alone, see `Ranker.contributions`."""
        contributions = np.zeros_like(matrix)
        contributions[:, BASE] = (matrix[:, BASE] - matrix[:, BASE].mean()) * self._weight
        return contributions


@dataclass(frozen=True)
class WithoutUserKnn:
    """A ranker on features without user k-NN, which then need not be read."""

    ranker: Ranker
    uses_user_knn: ClassVar[bool] = False

    def scores(self, matrix: Floats) -> Floats:
        """Scores of candidates, see `Ranker.scores`."""
        return self.ranker.scores(without_user_knn(matrix))

    def contributions(self, matrix: Floats) -> Floats:
        """Contributions of features to scores, see `Ranker.contributions`."""
        return self.ranker.contributions(without_user_knn(matrix))


BLEND = BlendRanker()

RANKERS: dict[str, Callable[[ListwiseRanker], Ranker]] = {
    "ranker": lambda learned: learned,
    "ranker-alone": WithoutUserKnn,
    "blend": lambda _: BLEND,
}
"""Rankers by name, each made from the learned ranker of the objective. A line here registers one.

The names stand in stored scoreboards, training examples and metrics. Examples without a rank for
every name are dropped, so a new line makes those that are under way outdated.
"""
