"""What apply.lua means, written naively: dictionaries, and decay by its definition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from models import layout
from models.store import StoredEvent, StoredMessage

Seen = tuple[int, str, int]
"""Time, item and hash of one event in a history."""


@dataclass
class Reference:
    """The state that messages lead to."""

    histories: dict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    links: dict[str, str] = field(default_factory=dict)
    pairs: dict[tuple[str, str, str], list[tuple[float, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    items: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    applied: int = 0
    duplicates: int = 0

    def apply(self, messages: Sequence[StoredMessage]) -> None:
        """Apply messages in order."""
        for message in messages:
            owner = self._owner(message)
            for event in message.events:
                self._event(owner, event)

    def _owner(self, message: StoredMessage) -> str:
        session, user = message.session_id, message.user_id
        if not user:
            linked = self.links.get(session)
            return f"u:{linked}" if linked else f"s:{session}"
        owner = f"u:{user}"
        if user != session and self.links.get(session) != user:
            known = {seen[2] for seen in self.histories[owner]}
            for seen in self.histories.pop(f"s:{session}", []):
                if seen[2] not in known:
                    self._insert(owner, seen)
                    self.counts[owner] += 1
            self.counts.pop(f"s:{session}", None)
            self.links[session] = user
        return owner

    def _insert(self, owner: str, seen: Seen) -> int:
        history = self.histories[owner]
        at = len(history)
        while at and history[at - 1][0] > seen[0]:
            at -= 1
        history.insert(at, seen)
        return at

    def _event(self, owner: str, event: StoredEvent) -> None:
        if any(seen[2] == event.hash for seen in self.histories[owner]):
            self.duplicates += 1
            return
        at = self._insert(owner, (event.time, event.item_id, event.hash))
        self.counts[owner] += 1
        self.applied += 1
        if not event.item_id:
            return
        before = [item for _, item, _ in self.histories[owner][:at]]
        weight = 2.0**event.log2_weight
        if not before or before[-1] != event.item_id:
            self._pairs(event.item_id, before, weight, event.time)
        self.items[event.item_id].append((weight, event.time))

    def _pairs(self, item: str, before: list[str], weight: float, time: int) -> None:
        window: list[str] = []
        for other in reversed(before[-3 * layout.WINDOW :]):
            if other and other != item and other not in window:
                window.append(other)
        for distance, other in enumerate(window[: layout.WINDOW]):
            faded = weight * layout.FADE**distance
            if distance == 0:
                self.pairs[other, item, "next"].append((faded, time))
            self.pairs[other, item, "after"].append((faded, time))
            self.pairs[item, other, "before"].append((faded, time))
            for channel in ("day", "month"):
                self.pairs[other, item, channel].append((faded, time))
                self.pairs[item, other, channel].append((faded / 2, time))


def decayed(parts: Sequence[tuple[float, int]], now: float, half_life_s: float) -> float:
    """The sum of weights, each halved every half-life since its time."""
    return float(sum(weight * 2 ** (-(now - time) / half_life_s) for weight, time in parts))
