"""Training examples: what a user chose, among what the recommender could have shown just before."""

from __future__ import annotations

import msgspec
import numpy as np

from models.features import FEATURES, without_alike
from models.ranking import Ranker
from models.retrieval import Floats, Indexes

NEGATIVES = 20
"""Candidates kept beside the chosen one, drawn by how likely they looked."""

RIVALS = ("ranker", "ranker-alone", "blend", "co-visited", "popular", "recent")
"""Whose ranks every example carries: the learned order, the same without those alike, and the plain
ones it has to beat."""


class Example(msgspec.Struct, frozen=True):
    """One choice.

    Attributes
    ----------
    ranks
        Rank of the chosen item by each of `RIVALS`, counted from 1, ties against it; 0: missed.
    rows
        ``(n, len(FEATURES))`` half-precision features, the chosen item first; empty if missed.
    """

    n_features: int
    ranks: dict[str, int]
    rows: bytes = b""

    def matrix(self) -> Floats:
        """The rows as numbers, the chosen item's first."""
        return np.frombuffer(self.rows, np.float16).reshape(-1, self.n_features).astype(np.float64)


def encode(example: Example) -> bytes:
    """The example as MessagePack."""
    return msgspec.msgpack.encode(example)


def decode(raw: bytes) -> Example | None:
    """The example, or None if it was made with other features or rivals than today's.

    Raises
    ------
    ValueError
        The bytes are no example.
    """
    example = msgspec.msgpack.decode(raw, type=Example)
    if example.n_features != len(FEATURES) or set(example.ranks) != set(RIVALS):
        return None
    if len(example.rows) % (2 * example.n_features):
        raise ValueError("rows are cut short")
    if not np.isfinite(example.matrix()).all():
        raise ValueError("a feature is not finite")
    return example


def make_example(
    items: Indexes, matrix: Floats, chosen: int, ranker: Ranker, rng: np.random.Generator
) -> Example:
    """The example that a choice gives; changes nothing but `rng`.

    Parameters
    ----------
    items, matrix
        The candidates of that moment, without the barred ones, and their features.
    chosen
        Index of the item the user took.
    """
    places = np.flatnonzero(items == chosen)
    if not len(places):
        return Example(len(FEATURES), dict.fromkeys(RIVALS, 0))
    place = int(places[0])
    learned = ranker.scores(matrix)
    orders = {
        "ranker": learned,
        "ranker-alone": ranker.scores(without_alike(matrix)),
        "blend": matrix[:, FEATURES.index("base")],
        "co-visited": matrix[:, FEATURES.index("both_10_share")],
        "popular": matrix[:, FEATURES.index("popular_week")],
        "recent": -matrix[:, FEATURES.index("since_last_touch")],
    }
    ranks = {name: int((scores >= scores[place]).sum()) for name, scores in orders.items()}
    others = np.delete(np.arange(len(items)), place)
    if len(others) > NEGATIVES:
        # Gumbel's trick: a draw without replacement, by the odds softmax(score / 2).
        keys = 0.5 * learned[others] + rng.gumbel(size=len(others))
        others = others[np.argpartition(-keys, NEGATIVES)[:NEGATIVES]]
    rows = matrix[np.concatenate(([place], others))].astype(np.float16)
    return Example(len(FEATURES), ranks, rows.tobytes())
