"""Session methods that are compared: V-SKNN, VMIS-kNN and STAN, each learning every click."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from models.arrays import Indexes
from models.evaluation.protocol import Scores
from models.evaluation.session_neighbours import NEIGHBOURS, SAMPLE, SessionNeighbours
from models.state.users.interactions import Interaction

CONTEXT = 50
"""Last events of a user that count."""


def _as_scores(scores: dict[int, float]) -> Scores:
    return Scores(np.array([*scores], np.int64), np.array([*scores.values()], np.float64))


class Vsknn:
    """V-SKNN, see `models.evaluation.session_neighbours`."""

    def __init__(self) -> None:
        self._sessions = SessionNeighbours()
        self._pasts: dict[int, list[str]] = defaultdict(list)

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of the items of the nearest sessions."""
        scores = self._sessions.scores(str(user), self._pasts[user][-CONTEXT:])
        return _as_scores({int(item): score for item, score in scores.items()})

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Add the event to its session."""
        self._sessions.learn(str(user), str(item), event.at_s)
        self.observe(user, item, event)

    def observe(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Add the item to the user's history."""
        self._pasts[user].append(str(item))


class _Sessions:
    """Clicks by session, and the sessions that have an item, newest last."""

    def __init__(self) -> None:
        self._items: dict[int, list[int]] = defaultdict(list)
        self._newest: dict[int, float] = {}
        self._sessions: dict[int, dict[int, None]] = defaultdict(dict)
        self._pasts: dict[int, list[int]] = defaultdict(list)

    def learn(self, user: int, item: int, event: Interaction) -> None:
        """Add the event to its session."""
        self._items[user].append(item)
        self._newest[user] = event.at_s
        self._sessions[item].pop(user, None)
        self._sessions[item][user] = None
        self.observe(user, item, event)

    def observe(self, user: int, item: int, event: Interaction) -> None:  # noqa: ARG002
        """Add the item to the user's history."""
        self._pasts[user].append(item)

    def _context(self, user: int) -> list[int]:
        """Distinct last items of a user, the newest first."""
        return list(dict.fromkeys(reversed(self._pasts[user][-CONTEXT:])))

    def _newest_with(self, item: int, user: int) -> list[int]:
        """The newest sessions of others that have an item, the newest first."""
        newest = list(self._sessions.get(item, ()))[: -SAMPLE - 1 : -1]
        return [other for other in newest if other != user]


class VmisKnn(_Sessions):
    """VMIS-kNN of Serenade (Kersbergen et al. 2022): of each item the newest sessions alone.

    Similarity weighs items by their place; a neighbour's items count by its newest shared item, and
    by how rare they are.
    """

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of the items of the nearest sessions."""
        context = self._context(user)
        similar: dict[int, float] = defaultdict(float)
        backs: dict[int, int] = {}
        for back, item in enumerate(context):
            for other in self._newest_with(item, user):
                similar[other] += 1.0 - back / len(context)
                backs.setdefault(other, back)
        nearest = sorted(similar, key=lambda one: (-similar[one], -self._newest[one], one))
        scores: dict[int, float] = defaultdict(float)
        for other in nearest[:NEIGHBOURS]:
            weight = similar[other] * max(1.0 - 0.1 * (backs[other] + 1), 0.0)
            for item in set(self._items[other]):
                rarity = math.log(len(self._items) / len(self._sessions[item]))
                scores[item] += weight * (1.0 + rarity)
        return _as_scores(scores)


class Stan(_Sessions):
    """STAN (Garg et al. 2019): session k-NN with three decays.

    By an item's place in the user's session, by the age of a neighbour, and by how far in it an
    item is from the one that both share.
    """

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:  # noqa: ARG002
        """Scores of the items of the nearest sessions."""
        context = self._context(user)
        places = {item: back for back, item in enumerate(context)}
        similar: dict[int, float] = defaultdict(float)
        for item, back in places.items():
            for other in self._newest_with(item, user):
                similar[other] += math.exp(-back)
        for other in similar:
            age_days = (at_s - self._newest[other]) / 86400.0
            similar[other] *= math.exp(-age_days / 30.0) / math.sqrt(len(self._items[other]))
        nearest = sorted(similar, key=lambda one: (-similar[one], one))[:NEIGHBOURS]
        scores: dict[int, float] = defaultdict(float)
        for other in nearest:
            items = self._items[other]
            shared = min(
                (place for place, item in enumerate(items) if item in places),
                key=lambda place: places[items[place]],
            )
            for place, item in enumerate(items):
                scores[item] += similar[other] * math.exp(-abs(place - shared) / 2.0)
        return _as_scores(scores)
