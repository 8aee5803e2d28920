"""Agreement of two ordered lists: overlap, and rank correlation."""

from __future__ import annotations

from collections.abc import Sequence


def overlap(ours: Sequence[str], theirs: Sequence[str], *, k: int) -> float:
    """Overlap of the first `k` of both lists, as a share of the longer; 1 for two empty lists.

    >>> overlap(["a", "b", "c", "d"], ["d", "x", "a", "y"], k=4)
    0.5
    """
    first, second = set(ours[:k]), set(theirs[:k])
    most = max(len(first), len(second))
    return len(first & second) / most if most else 1.0


def rank_correlation(ours: Sequence[str], theirs: Sequence[str]) -> float | None:
    """Spearman's rank correlation of the items in both lists, -1 to 1; None for fewer than two.

    Each list has distinct items.

    >>> rank_correlation(["a", "b", "c"], ["c", "x", "b", "a"])
    -1.0
    >>> rank_correlation(["a", "b"], ["a", "x"]) is None
    True
    """
    common = set(ours) & set(theirs)
    n = len(common)
    if n < 2:
        return None
    ranks = {item: rank for rank, item in enumerate(item for item in theirs if item in common)}
    squares = sum(
        (rank - ranks[item]) ** 2
        for rank, item in enumerate(item for item in ours if item in common)
    )
    return 1 - 6 * squares / (n * (n * n - 1))
