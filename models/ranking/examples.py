"""Training examples: what a user chose, among what the recommender could have shown just before."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.arrays import Floats, Indexes
from models.ranking.features import FEATURES, without_alike
from models.ranking.ranker import Objective, Ranker

NEGATIVES = 20
"""Candidates kept beside the chosen one, drawn by how likely they looked."""

COMPARED = ("ranker", "ranker-alone", "blend", "co-visited", "popular", "recent")
"""Whose ranks every example carries: the learned order, the same without those alike, and the plain
ones it has to beat."""

INVALID = (msgspec.MsgspecError, ValueError, RecursionError)
"""What `decode` raises for bytes that are no example."""


class Example(msgspec.Struct, frozen=True):
    """One choice.

    Attributes
    ----------
    ranks
        Of each objective that the choice counts for, the rank of the chosen item by each of
        `COMPARED`, counted from 1, ties against it; 0: missed. None of them for a repetition: the
        last item is barred from answers, so that a choice of it is learned but not measured.
    rows
        ``(n, len(FEATURES))`` half-precision features, the chosen item first; empty if missed.
    """

    n_features: int
    ranks: dict[Objective, dict[str, int]]
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
    ValueError, RecursionError
        The bytes are no example; see `INVALID`.
    """
    example = msgspec.msgpack.decode(raw, type=Example)
    rivals = [set(ranks) for ranks in example.ranks.values() if ranks]
    if example.n_features != len(FEATURES) or any(names != set(COMPARED) for names in rivals):
        return None
    if len(example.rows) % (2 * example.n_features):
        raise ValueError("rows are cut short")
    if not np.isfinite(example.matrix()).all():
        raise ValueError("a feature is not finite")
    return example


def is_example(raw: bytes) -> bool:
    """Whether `decode` takes the bytes."""
    try:
        decode(raw)
    except INVALID:
        return False
    return True


def make_example(
    items: Indexes,
    matrix: Floats,
    chosen: int,
    rankers: Mapping[Objective, Ranker],
    rng: np.random.Generator,
    last: int = 0,
) -> Example:
    """The example that a choice gives; changes nothing but `rng`.

    Parameters
    ----------
    items, matrix
        The candidates of that moment and their features.
    chosen
        Index of the item the user took.
    rankers
        Of each objective that the choice counts for; the first draws the rows to learn from.
    last
        Index of the user's last item, 0 for none. It takes no rank; it is learned how likely it is
        to come again, for those who do not bar it.
    """
    places = np.flatnonzero(items == chosen)
    if not len(places):
        missed = {objective: dict.fromkeys(COMPARED, 0) for objective in rankers}
        return Example(len(FEATURES), missed)
    place = int(places[0])
    ranked = items != last
    ranks: dict[Objective, dict[str, int]] = {
        name: _ranks(matrix, place, ranked, ranker) if ranked[place] else {}
        for name, ranker in rankers.items()
    }
    others = np.delete(np.arange(len(items)), place)
    if len(others) > NEGATIVES:
        # Gumbel's trick: a draw without replacement, by the odds softmax(score).
        learned = next(iter(rankers.values())).scores(matrix)
        keys = learned[others] + rng.gumbel(size=len(others))
        others = others[np.argpartition(-keys, NEGATIVES)[:NEGATIVES]]
    rows = matrix[np.concatenate(([place], others))].astype(np.float16)
    return Example(len(FEATURES), ranks, rows.tobytes())


def _ranks(matrix: Floats, place: int, ranked: NDArray[np.bool_], ranker: Ranker) -> dict[str, int]:
    """Of the row at the place by each rival, among those that take a rank."""
    orders = {
        "ranker": ranker.scores(matrix),
        "ranker-alone": ranker.scores(without_alike(matrix)),
        "blend": matrix[:, FEATURES.index("base")],
        "co-visited": matrix[:, FEATURES.index("both_10_share")],
        "popular": matrix[:, FEATURES.index("popular_week")],
        "recent": -matrix[:, FEATURES.index("since_last_touch")],
    }
    return {
        name: int((ranked & (scores >= scores[place])).sum()) for name, scores in orders.items()
    }
