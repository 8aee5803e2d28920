"""A baseline that knows items by their categories alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from models.arrays import Floats, Indexes
from models.evaluation.protocol import Scores
from models.metadata_records import Properties, categories_of
from models.state.layout import FADES, WINDOW
from models.state.users.interactions import Interaction


class CategoriesOnly:
    """Items in the categories of the user's last ten, the newer ones counting more.

    Of equal ones the more popular.
    """

    def __init__(self, catalogue: Iterable[Properties]) -> None:
        self._categories = [categories_of(properties) for properties in catalogue]
        self._items: dict[str, list[int]] = defaultdict(list)
        for item, names in enumerate(self._categories):
            for name in names:
                self._items[name].append(item)
        self._counts: dict[int, int] = defaultdict(int)
        self._pasts: dict[int, list[int]] = defaultdict(list)

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of the items that share a category with a recent one."""
        scores: dict[int, float] = defaultdict(float)
        for distance, item in enumerate(self._pasts[user]):
            for name in self._categories[item] if item < len(self._categories) else ():
                for other in self._items[name]:
                    scores[other] += float(FADES[distance])
        items = np.array([*scores], np.int64)
        events: Floats = np.array([self._counts[item] for item in scores], np.float64)
        return Scores(items, np.array([*scores.values()]) + 1e-6 * events)

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Count the event."""
        self._counts[item] += 1
        self.observe(user, item, event)

    def observe(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Make the item the newest of the user's last ten."""
        past = self._pasts[user]
        if item in past:
            past.remove(item)
        past.insert(0, item)
        del past[WINDOW:]
