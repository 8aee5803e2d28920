"""The online ranker: a linear model over named features, learned listwise by a River optimizer."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from models.features import BASE, FEATURES
from models.tables import Floats

Objective = Literal["interactions", "purchases"]
"""What an order aims at: any interaction, or a purchase."""

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

LEARNING_RATE = 0.05
BASE_WEIGHT = 1.0
"""The weight `base` starts with: the first answers are those of the blend, not of chance."""

LEAST_RATE = 0.001
"""Running means and variances never forget slower than this."""

STATE_VERSION = 1

START = np.zeros(len(FEATURES))
START[BASE] = BASE_WEIGHT


@dataclass
class Ranker:
    """Weights of standardised features, learned one choice at a time.

    An example is the item a user chose among the candidates of that moment. The loss is the
    listwise softmax cross-entropy (Cao et al. 2007, "Learning to rank: from pairwise approach to
    listwise approach"); River's AdaGrad makes the step. Scoring is one dot product and changes
    nothing.

    >>> ranker = Ranker()
    >>> rows = np.zeros((2, len(FEATURES))); rows[1, BASE] = 1.0
    >>> bool(ranker.scores(rows)[1] > ranker.scores(rows)[0])
    True
    """

    weights: Floats = field(default_factory=START.copy)
    squares: Floats = field(default_factory=lambda: np.zeros(len(FEATURES)))
    mean: Floats = field(default_factory=lambda: np.zeros(len(FEATURES)))
    variance: Floats = field(default_factory=lambda: np.ones(len(FEATURES)))
    n_examples: int = 0
    _slopes: tuple[Floats, Floats] | None = field(default=None, init=False, repr=False)
    """The weights, and them by the features' spread, which every score takes."""

    @functools.cached_property
    def _optimizer(self) -> Any:  # noqa: ANN401  River is not typed
        # Servers only score: they need not wait a second for River and all it imports.
        from river import optim  # noqa: PLC0415

        optimizer = optim.AdaGrad(LEARNING_RATE)
        # One vector under one name: River's step then works on the whole array at once.
        optimizer.g2["w"] = self.squares
        return optimizer

    def scores(self, matrix: Floats) -> Floats:
        """A score for each row; only their order and differences mean something. Pure."""
        if self._slopes is None or self._slopes[0] is not self.weights:
            self._slopes = self.weights, self.weights / np.sqrt(self.variance + 1e-6)
        scores: Floats = matrix @ self._slopes[1]
        return scores

    def learn_one(self, rows: Floats, chosen: int) -> Ranker:
        """Learn that row `chosen` was taken among `rows`, ``(n, len(FEATURES))``."""
        self.n_examples += 1
        rate = max(LEAST_RATE, 1.0 / self.n_examples)
        centre = rows.mean(axis=0)
        spread = rows.var(axis=0) + (centre - self.mean) ** 2
        self.variance = self.variance + rate * (spread - self.variance)
        self.mean = self.mean + rate * (centre - self.mean)
        scaled = (rows - self.mean) / np.sqrt(self.variance + 1e-6)
        scores = scaled @ self.weights
        odds = np.exp(scores - scores.max())
        gradient = (odds / odds.sum()) @ scaled - scaled[chosen]
        self.weights = self._optimizer.step({"w": self.weights.copy()}, {"w": gradient})["w"]
        self.squares = self._optimizer.g2["w"]
        return self

    def state(self) -> bytes:
        """Everything learned, as JSON of plain numbers."""
        return msgspec.json.encode(
            {
                "version": STATE_VERSION,
                "features": FEATURES,
                "weights": self.weights.tolist(),
                "squares": self.squares.tolist(),
                "mean": self.mean.tolist(),
                "variance": self.variance.tolist(),
                "n_examples": self.n_examples,
            }
        )

    @classmethod
    def from_state(cls, raw: bytes | None) -> Ranker:
        """The ranker that `state` described; a new one where features have changed since."""
        if not raw:
            return cls()
        stored: dict[str, Any] = msgspec.json.decode(raw)
        if stored["version"] != STATE_VERSION or tuple(stored["features"]) != FEATURES:
            return cls()
        arrays = {
            name: np.array(stored[name]) for name in ("weights", "squares", "mean", "variance")
        }
        return cls(**arrays, n_examples=stored["n_examples"])


UNLEARNED = Ranker()
"""Ranks by the blend: what is served until the learned ranker has proved better."""
