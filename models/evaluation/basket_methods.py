"""Next-basket methods that are compared: personal top-frequency and TIFU-kNN."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from models.arrays import Floats, Indexes
from models.evaluation.protocol import Scores
from models.state.users.interactions import Interaction

FADE = 0.9
"""Weight of a basket beside the one after it."""

GROUP, GROUP_FADE = 7, 0.7
"""Baskets of a group, and weight of a group beside the one after it."""

NEIGHBOURS, OWN_SHARE = 300, 0.7
"""Users whose baskets count, and the weight of the own ones beside theirs."""

FILLING = 1e-6
"""Weight of popularity: it orders what is equal otherwise."""


class Baskets:
    """Every user's baskets, the events of one moment each, and how often each item was taken."""

    def __init__(self) -> None:
        self._baskets: dict[int, list[dict[int, None]]] = defaultdict(list)
        self._newest: dict[int, float] = {}
        self._popularity = np.zeros(1024)
        self._n = 0

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Add the event to its basket, and count its item."""
        if item >= len(self._popularity):
            self._popularity = np.append(self._popularity, np.zeros(len(self._popularity)))
        self._popularity[item] += 1.0
        self._n = max(self._n, item + 1)
        self.observe(user, item, event)

    def observe(self, user: int, item: int, event: Interaction) -> None:
        """Add the event to its basket."""
        if self._newest.get(user) != event.at_s:
            self._newest[user] = event.at_s
            self._baskets[user].append({})
        self._baskets[user][-1][item] = None

    def _ranked(self, scores: Floats) -> Scores:
        popularity = self._popularity[: self._n]
        return Scores(np.arange(self._n), scores + FILLING * popularity / popularity.max(initial=1))


class OwnFrequency(Baskets):
    """Personal top-frequency: in how many baskets of the user an item was, older ones fading.

    Li et al., A next basket recommendation reality check (2023): hardly any method is ahead of it
    where people buy the same again. Items that a user never had follow by popularity.
    """

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of all items."""
        scores = np.zeros(self._n)
        for back, basket in enumerate(reversed(self._baskets[user])):
            scores[[item for item in basket if item < self._n]] += FADE**back
        return self._ranked(scores)


class TifuKnn(Baskets):
    """TIFU-kNN: own frequencies, faded by basket and by group of baskets, and those of neighbours.

    Hu et al., Modeling personalized item frequency information for next-basket recommendation
    (2020). Neighbours are the users at the least distance, among those who share an item.
    """

    def __init__(self) -> None:
        super().__init__()
        self._vectors: dict[int, tuple[Indexes, Floats]] = {}
        self._owners: dict[int, dict[int, float]] = defaultdict(dict)
        self._changed: set[int] = set()

    def observe(self, user: int, item: int, event: Interaction) -> None:
        """Add the event to its basket; the vector follows before the next query."""
        super().observe(user, item, event)
        self._changed.add(user)

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of all items; takes milliseconds, more with more users."""
        for changed in self._changed:
            self._renew(changed)
        self._changed.clear()
        scores = np.zeros(self._n)
        if user not in self._vectors:
            return self._ranked(scores)
        items, weights = self._vectors[user]
        products: dict[int, float] = defaultdict(float)
        for item, weight in zip(items.tolist(), weights.tolist(), strict=True):
            for other, of_other in self._owners[item].items():
                products[other] += weight * of_other
        products.pop(user, None)
        distances = {
            other: float(self._vectors[other][1] @ self._vectors[other][1]) - 2.0 * product
            for other, product in products.items()
        }
        nearest = sorted(distances, key=lambda other: (distances[other], other))[:NEIGHBOURS]
        for other in nearest:
            theirs, of_theirs = self._vectors[other]
            scores[theirs] += (1.0 - OWN_SHARE) * of_theirs / len(nearest)
        scores[items] += OWN_SHARE * weights
        return self._ranked(scores)

    def _renew(self, user: int) -> None:
        if user in self._vectors:
            for item in self._vectors[user][0].tolist():
                del self._owners[item][user]
        baskets = self._baskets[user][::-1]
        groups = [baskets[start : start + GROUP] for start in range(0, len(baskets), GROUP)]
        vector: dict[int, float] = defaultdict(float)
        for age, group in enumerate(groups):
            for back, basket in enumerate(group):
                weight = GROUP_FADE**age * FADE**back / (len(group) * len(groups))
                for item in basket:
                    if item < self._n:
                        vector[item] += weight
        self._vectors[user] = np.array(list(vector), np.int64), np.array(list(vector.values()))
        for item, weight in vector.items():
            self._owners[item][user] = weight
