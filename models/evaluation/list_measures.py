"""Diversity and calibration of lists, by the categories of their items.

Pure functions; nothing here reads a store or a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.metadata_records import PREFERRED, Properties, categories_of

MIXED = 0.01
"""Share of the user's own distribution that is mixed into a list's: what a list lacks is not
infinitely far away."""


class ListMeasures(NamedTuple):
    """Measures of one list.

    Attributes
    ----------
    distance
        Intra-list distance: mean over each two items of one less the share of categories that they
        have in common of all that they have. NaN of fewer than two items with categories.
    divergence
        Divergence of the list's categories from the user's, in nats; 0: the same shares. NaN where
        the user or the list has none.
    """

    distance: float
    divergence: float


class CategoryMeasures:
    """Measures lists of numbered items by what a catalogue says of them."""

    def __init__(self, catalogue: Iterable[Properties]) -> None:
        every = [categories_of(properties) for properties in catalogue]
        named = [[one for one in own if one.lower().startswith(PREFERRED)] for own in every]
        if not any(named):
            # A title is no category, nor is what one item alone has.
            counts = Counter(one for own in every for one in own)
            named = [[one for one in own if counts[one] > 1] for own in every]
        self._categories = named

    def of(self, listed: Iterable[int], past: Collection[int]) -> ListMeasures:
        """Measures of a list for a user who had some items before."""
        own = [self._of(item) for item in listed]
        return ListMeasures(
            intra_list_distance([one for one in own if one]),
            divergence(shares([self._of(item) for item in past]), shares(own)),
        )

    def _of(self, item: int) -> list[str]:
        return self._categories[item] if item < len(self._categories) else []


def mean_measures(lists: Sequence[ListMeasures]) -> dict[str, float | None]:
    """Means of what is known of each measure, for a report; None where nothing is.

    >>> mean_measures([ListMeasures(0.5, np.nan), ListMeasures(1.0, np.nan)])
    {'intra_list_distance': 0.75, 'calibration_divergence': None}
    """
    found: dict[str, float | None] = {}
    for name, values in zip(
        ("intra_list_distance", "calibration_divergence"), np.array(lists).T, strict=True
    ):
        known = values[~np.isnan(values)]
        found[name] = round(float(known.mean()), 4) if len(known) else None
    return found


def measures_text(found: Mapping[str, Any]) -> str:
    """Cells of `mean_measures` in a table of text."""
    cells = (found.get("intra_list_distance"), found.get("calibration_divergence"))
    distance, divergence = ("" if cell is None else f"{cell:.4f}" for cell in cells)
    return f"{distance:>10}{divergence:>12}"


def intra_list_distance(items: Sequence[Collection[str]]) -> float:
    """Mean distance of each two items by their categories; NaN of fewer than two.

    >>> round(intra_list_distance([{"war"}, {"war"}, {"war", "space"}]), 3)
    0.333
    """
    if len(items) < 2:
        return np.nan
    sets = [frozenset(one) for one in items]
    distances = [
        1.0 - len(one & other) / len(one | other)
        for at, one in enumerate(sets)
        for other in sets[:at]
    ]
    return sum(distances) / len(distances)


def shares(items: Iterable[Collection[str]]) -> dict[str, float]:
    """Share of each category in items, each item having the same weight.

    >>> shares([["war"], ["war", "space"], []])
    {'war': 0.75, 'space': 0.25}
    """
    weights: dict[str, float] = {}
    n = 0
    for own in items:
        n += bool(own)
        for one in own:
            weights[one] = weights.get(one, 0.0) + 1.0 / len(own)
    return {one: weight / n for one, weight in weights.items()}


def divergence(user: Mapping[str, float], listed: Mapping[str, float]) -> float:
    """Kullback-Leibler divergence of a list's categories from the user's, in nats.

    Steck 2018, "Calibrated recommendations". NaN where one of both has no categories.

    >>> divergence({"war": 1.0}, {"war": 1.0}), round(divergence({"war": 1.0}, {"space": 1.0}), 2)
    (0.0, 4.61)
    """
    if not user or not listed:
        return np.nan
    return float(
        sum(
            share * np.log(share / ((1.0 - MIXED) * listed.get(one, 0.0) + MIXED * share))
            for one, share in user.items()
        )
    )
