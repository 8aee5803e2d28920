"""The measures that GetSolutionMetrics gives, of recommendations and what users did next."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

CUTS = (5, 10, 25)
DEPTH = 25
"""How many recommendations of each list count."""


def solution_metrics(
    recommended: Sequence[Sequence[str]], taken: Sequence[Collection[str]], *, n_items: int
) -> dict[str, float]:
    """Coverage, and the means over users of reciprocal rank, NDCG and precision.

    As Amazon's guide defines them: a hit at position p weighs 1 / log(1 + p), and NDCG divides the
    sum by what as many hits would weigh at the top of the list. A user without a hit counts 0.

    Parameters
    ----------
    recommended
        Of each test user, different items, the best first.
    taken
        Of each of them, in the same order, the items of the interactions held back.
    n_items
        Different items in the interactions and items data sets.

    Returns
    -------
    dict
        By Amazon's names, from 0 to 1; all 0 without a user.

    Examples
    --------
    >>> found = solution_metrics([["a", "b", "c", "d", "e"]], [{"b", "e"}], n_items=10)
    >>> found["coverage"], found["mean_reciprocal_rank_at_25"], found["precision_at_5"]
    (0.5, 0.5, 0.4)
    >>> round(found["normalized_discounted_cumulative_gain_at_5"], 4)
    0.6241
    """
    hits = np.zeros((len(recommended), DEPTH), np.bool_)
    for row, items, own in zip(hits, recommended, taken, strict=True):
        best = items[:DEPTH]
        row[: len(best)] = [item in own for item in best]
    shown = {item for items in recommended for item in items[:DEPTH]}
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)
    return {
        "coverage": len(shown) / n_items if n_items else 0.0,
        "mean_reciprocal_rank_at_25": _mean(1.0 / first),
        **{f"normalized_discounted_cumulative_gain_at_{k}": _mean(_ndcg(hits, k)) for k in CUTS},
        **{f"precision_at_{k}": _mean(hits[:, :k].mean(axis=1)) for k in CUTS},
    }


def _ndcg(hits: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Of each row of hits; ``(n,)``."""
    weights = 1.0 / np.log2(np.arange(2.0, k + 2.0))
    # Without a hit anything divides the 0 to 0.
    ideals = np.concatenate([[1.0], np.cumsum(weights)])
    shares: NDArray[np.float64] = (hits[:, :k] @ weights) / ideals[hits[:, :k].sum(axis=1)]
    return shares


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0
