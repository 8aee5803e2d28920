"""The interactions that a solution version is trained and measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from models.state.users.interactions import Interaction

MAX_TRAINED_ITEMS = 2000
"""Items whose weights a version keeps: those of the most weight."""


def within_percentiles(
    interactions: Sequence[Interaction], values: Mapping[str, str]
) -> list[Interaction]:
    """Interactions of users, and with items, whose numbers of interactions are within percentiles.

    Parameters
    ----------
    values
        Hyperparameters `{min,max}_{user_history_length,item_interaction_count}_percentile`, from 0
        to 1; the others are passed over.
    """
    kept = list(interactions)
    for of, name in (("user", "user_history_length"), ("item", "item_interaction_count")):
        least, most = (values.get(f"{end}_{name}_percentile") for end in ("min", "max"))
        if least is None or most is None or not kept:
            continue
        counts = Counter[str](getattr(one, of) for one in kept)
        lengths = np.array([*counts.values()])
        # Nearest ranks, so that the bounds are numbers of interactions that occur.
        low, high = np.quantile(lengths, [float(least), float(most)], method="nearest")
        kept = [one for one in kept if low <= counts[getattr(one, of)] <= high]
    return kept


def item_weights(
    interactions: Sequence[Interaction], weights: Mapping[str, float]
) -> dict[str, float]:
    """The weights of all interactions with each item, those of the most weight.

    >>> events = [Interaction("ada", "tent", "Buy", 0), Interaction("ada", "pan", "view", 1)]
    >>> item_weights(events, {"buy": 1.0})
    {'tent': 1.0}
    """
    summed = Counter[str]()
    for one in interactions:
        weight = weights.get(one.type.lower(), 0.0)
        if weight:
            summed[one.item] += weight  # type: ignore[assignment]  # weights are no counts
    return dict(summed.most_common(MAX_TRAINED_ITEMS))
