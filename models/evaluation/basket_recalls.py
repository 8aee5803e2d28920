"""Recall of whole baskets: of all their items, of those the user had before, and of new ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.arrays import Indexes
from models.evaluation.intervals import compared_means


class BasketRecall(NamedTuple):
    """Hits among the items shown, of at most as many as are shown.

    Attributes
    ----------
    recall, repeat, explore
        Of all items of the basket, of those that the user had before, and of new ones; not a number
        without any.
    """

    recall: float
    repeat: float
    explore: float


def basket_recall(
    best: Indexes, targets: Sequence[int], past: Collection[int], most: int
) -> BasketRecall:
    """Recall of a basket's items within the best ones, of which there are at most `most`.

    >>> basket_recall(np.array([4, 7]), [4, 5, 6], {4, 5}, 2)
    BasketRecall(recall=0.5, repeat=0.5, explore=0.0)
    """
    shown = set(best.tolist())

    def recall(wanted: list[int]) -> float:
        hits = sum(item in shown for item in wanted)
        return hits / min(most, len(wanted)) if wanted else np.nan

    repeated = [item for item in targets if item in past]
    new = [item for item in targets if item not in past]
    return BasketRecall(recall(list(targets)), recall(repeated), recall(new))


def compared_baskets(
    recalls: Sequence[BasketRecall], reference: Sequence[BasketRecall]
) -> dict[str, dict[str, float]]:
    """Recalls of a model beside the reference's on the same baskets; see `compared_means`."""
    ours, theirs = np.array(recalls, np.float64), np.array(reference, np.float64)
    return {
        f"next_basket_{name}_20": compared_means(ours[:, n], theirs[:, n])
        for n, name in enumerate(BasketRecall._fields)
    }


def baskets_as_text(compared: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The recalls of a report as a table of text, each with its difference from the first."""
    head = "".join(f"{name:>26}" for name in BasketRecall._fields)
    lines = [f"{'next basket, within 20':<22}{head}"]
    for name, found in compared.items():
        cells = (found[f"next_basket_{field}_20"] for field in BasketRecall._fields)
        lines.append(
            f"{name:<22}"
            + "".join(
                f"{cell['mean']:>9.4f}{cell['difference']:>+9.4f}{cell['difference_ci95']:>8.4f}"
                for cell in cells
            )
        )
    return "\n".join(lines)
