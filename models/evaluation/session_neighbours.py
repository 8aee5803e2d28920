"""V-SKNN: the next item from the most similar of recent sessions, in plain Python.

Ludewig & Jannach, Evaluation of session-based recommendation algorithms (2018): similarity weighs
the items of the session by their place, and a neighbour's items count by how recent the item is
that it shares. It learns each click as it comes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

NEIGHBOURS = 100
SAMPLE = 1000
"""Neighbours whose items count, and newest sessions that are compared."""


class SessionNeighbours:
    """The sessions so far, and which of them have an item."""

    def __init__(self) -> None:
        self._items: dict[str, list[str]] = {}
        self._newest: dict[str, float] = {}
        self._sessions: dict[str, dict[str, None]] = defaultdict(dict)

    def learn(self, session: str, item: str, at_s: float) -> None:
        """Add a click."""
        self._items.setdefault(session, []).append(item)
        self._newest[session] = at_s
        self._sessions[item][session] = None

    def scores(self, session: str, context: Sequence[str]) -> dict[str, float]:
        """Scores of the items that neighbours have; those of the context may be among them."""
        places = {item: number + 1 for number, item in enumerate(context)}
        found = {other for item in places for other in self._sessions.get(item, ())}
        found.discard(session)
        sample = sorted(found, key=self._newest.__getitem__, reverse=True)[:SAMPLE]
        similar = sorted(
            (
                (sum(places.get(item, 0) for item in set(self._items[other])) / len(context), other)
                for other in sample
            ),
            reverse=True,
        )[:NEIGHBOURS]
        scores: dict[str, float] = defaultdict(float)
        for similarity, other in similar:
            items = set(self._items[other])
            back = len(context) + 1 - max(places[item] for item in items if item in places)
            for item in items:
                scores[item] += similarity / back
        return scores

    def next_items(self, session: str, context: Sequence[str], k: int) -> list[str]:
        """The best items after these, without the last of them."""
        if not context:
            return []
        scores = self.scores(session, context)
        scores.pop(context[-1], None)
        return sorted(scores, key=lambda item: (-scores[item], item))[:k]
