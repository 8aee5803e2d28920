"""Training examples: an item that a user took, among the candidates of that moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.arrays import Floats, Indexes
from models.ranking.champions import Objective
from models.ranking.features import FEATURES
from models.ranking.ranker import RANKERS, ListwiseRanker
from models.ranking.returns import Chances
from models.ranking.similarity import SimilarityChances
from models.retrieval.signals import ALIKE, SIGNALS

MAX_NEGATIVES = 20
"""Candidates kept beside the taken item, sampled by their probability of being taken."""

BASELINE_ORDERS = {
    "co-visited": (FEATURES.index("both_10_share"), 1.0),
    "popular": (FEATURES.index("popular_week"), 1.0),
    "recent": (FEATURES.index("since_last_touch"), -1.0),
}
"""Orders by one feature that rankers are compared with: its column and sign."""

DECODE_ERRORS = (msgspec.MsgspecError, ValueError, RecursionError)
"""Errors of `decode` for bytes that are not an example."""


def compared_orders() -> tuple[str, ...]:
    """Names of the orders in every example: all `RANKERS` and `BASELINE_ORDERS`."""
    return (*RANKERS, *BASELINE_ORDERS)


SOURCE_COLUMNS = {
    "event": [FEATURES.index(f"{name}_share") for name in SIGNALS[:ALIKE]],
    "hop": [FEATURES.index("hop_share")],
    "alike": [FEATURES.index("alike_share")],
    "text": [FEATURES.index("text_share")],
    "history": [FEATURES.index("own_count")],
}
"""Features that are above 0 where a candidate source had the item."""

LISTS = "lists"
"""Source of a candidate that no other source had: the lists of popular, recent and new items."""


class Example(msgspec.Struct, frozen=True, omit_defaults=True):
    """One training example.

    Attributes
    ----------
    ranks
        By objective that the example counts for, the rank of the taken item in each of
        `compared_orders`, from 1, ties counted against it; 0 if it was no candidate. Empty for a
        repetition: the last item is barred from answers, so that it is learned but not measured.
    rows
        ``(n, len(FEATURES))`` half-precision features, the taken item's first; empty if it was no
        candidate.
    chances
        By objective, what the choice says about own items (`ListwiseRanker.chances`); empty where
        the request does not begin a moment of a user with own items, and where the taken item was
        no candidate: it is of candidates that either expert has probabilities.
    similarity
        What the choice says about lists of similar items; see `Choice`.
    for_challengers, ranked
        True if challengers are measured on it; then all candidates that have a rank, as `rows` but
        in single precision: among the few in `rows`, which the learned ranker has chosen, a
        challenger would not meet the items that it mistakes for the best.
    row_items, ranked_items, last_item
        For challengers: indexes of the items in `rows` and in `ranked`, four bytes each, and of the
        user's last item.
    """

    n_features: int
    ranks: dict[Objective, dict[str, int]]
    rows: bytes = b""
    chances: dict[Objective, Chances] = {}
    similarity: SimilarityChances | None = None
    for_challengers: bool = False
    ranked: bytes = b""
    row_items: bytes = b""
    ranked_items: bytes = b""
    last_item: int = 0

    def all_candidates(self) -> Floats:
        """Features of all candidates that have a rank, the taken item's row first; or none."""
        rows = np.frombuffer(self.ranked, np.float32).reshape(-1, self.n_features)
        return rows.astype(np.float64)

    def matrix(self) -> Floats:
        """Feature matrix, the taken item's row first."""
        return np.frombuffer(self.rows, np.float16).reshape(-1, self.n_features).astype(np.float64)

    def sources(self) -> list[str]:
        """Candidate sources that had the taken item; empty if none had."""
        if not self.rows:
            return []
        taken = np.frombuffer(self.rows, np.float16, self.n_features)
        found = [name for name, columns in SOURCE_COLUMNS.items() if (taken[columns] > 0).any()]
        return found or [LISTS]


class Choice(NamedTuple):
    """An item that a user took among the candidates of that moment: source of an example.

    Attributes
    ----------
    items, matrix
        Candidates of that moment and their features.
    taken
        Index of the item that the user took.
    last
        Index of the user's last item, 0 for none. It has no rank, since answers bar it; how likely
        it is taken again is learned for requests that do not.
    similarity
        What the choice says about the items similar to the last one, where it was asked.
    """

    items: Indexes
    matrix: Floats
    taken: int
    last: int = 0
    similarity: SimilarityChances | None = None


def encode(example: Example) -> bytes:
    """The example as MessagePack."""
    return msgspec.msgpack.encode(example)


def decode(raw: bytes) -> Example | None:
    """The example, or None if it was made with other features or orders than today's.

    Raises
    ------
    ValueError, RecursionError
        The bytes are not an example; see `DECODE_ERRORS`.
    """
    example = msgspec.msgpack.decode(raw, type=Example)
    names, measured = set(compared_orders()), [ranks for ranks in example.ranks.values() if ranks]
    if example.n_features != len(FEATURES) or any(ranks.keys() != names for ranks in measured):
        return None
    if len(example.rows) % (2 * example.n_features):
        raise ValueError("rows are cut short")
    if len(example.ranked) != example.n_features * len(example.ranked_items):
        raise ValueError("candidates are cut short")
    if example.for_challengers and len(example.rows) * 2 != (
        example.n_features * len(example.row_items)
    ):
        raise ValueError("not every row has an item")
    if not (np.isfinite(example.matrix()).all() and np.isfinite(example.all_candidates()).all()):
        raise ValueError("a feature is not finite")
    told = [*example.chances.values(), example.similarity or ()]
    if not all(0.0 <= chance <= 1.0 for pair in told for chance in pair):
        raise ValueError("a chance is not a probability")
    return example


def is_example(raw: bytes) -> bool:
    """True if `decode` accepts the bytes."""
    try:
        decode(raw)
    except DECODE_ERRORS:
        return False
    return True


def make_example(
    choice: Choice,
    rankers: Mapping[Objective, ListwiseRanker],
    rng: np.random.Generator,
    *,
    for_challengers: bool = False,
) -> Example:
    """Training example of one choice; changes nothing but `rng`.

    Parameters
    ----------
    rankers
        Learned rankers of the objectives that the example counts for; the first samples the rows.
    """
    items, matrix, taken, last, similarity = choice
    places = np.flatnonzero(items == taken)
    if not len(places):
        missed = {objective: dict.fromkeys(compared_orders(), 0) for objective in rankers}
        return Example(
            len(FEATURES), missed, similarity=similarity, for_challengers=for_challengers
        )
    place = int(places[0])
    is_ranked = items != last
    ranks: dict[Objective, dict[str, int]] = {
        name: _ranks(matrix, place, is_ranked, ranker) if is_ranked[place] else {}
        for name, ranker in rankers.items()
    }
    chances = {name: ranker.chances(matrix, place) for name, ranker in rankers.items()}
    told = {name: found for name, found in chances.items() if found and is_ranked[place]}
    others = np.delete(np.arange(len(items)), place)
    if len(others) > MAX_NEGATIVES:
        # Gumbel's trick: sampling without replacement by softmax(score).
        scores = next(iter(rankers.values())).learned_scores(matrix)
        keys = scores[others] + rng.gumbel(size=len(others))
        others = others[np.argpartition(-keys, MAX_NEGATIVES)[:MAX_NEGATIVES]]
    chosen = np.concatenate(([place], others))
    rows = matrix[chosen].astype(np.float16).tobytes()
    if not (for_challengers and is_ranked[place]):
        return Example(len(FEATURES), ranks, rows, told, similarity)
    is_ranked[place] = False
    all_ranked = np.concatenate(([place], np.flatnonzero(is_ranked)))
    return Example(
        len(FEATURES),
        ranks,
        rows,
        told,
        similarity,
        for_challengers=True,
        ranked=matrix[all_ranked].astype(np.float32).tobytes(),
        row_items=items[chosen].astype(np.uint32).tobytes(),
        ranked_items=items[all_ranked].astype(np.uint32).tobytes(),
        last_item=last,
    )


def _ranks(
    matrix: Floats, place: int, is_ranked: NDArray[np.bool_], learned: ListwiseRanker
) -> dict[str, int]:
    """Rank of the row at the place in each of `compared_orders`, among ranked rows."""
    orders = {name: ranker_of(learned).scores(matrix) for name, ranker_of in RANKERS.items()}
    orders |= {name: sign * matrix[:, column] for name, (column, sign) in BASELINE_ORDERS.items()}
    return {
        name: int((is_ranked & (scores >= scores[place])).sum()) for name, scores in orders.items()
    }
