"""A rate that is shared fairly among all names that currently ask for some of it."""

from __future__ import annotations

from collections.abc import Mapping

IDLE_S = 60.0
"""A name that has not asked for so long has no share any more."""


class FairRate:
    """A total rate per second, in equal shares; the unused rest of one goes to the others.

    A name saves up at most its share of a second, or one whole unit.

    >>> rate = FairRate(10.0, now_s=0.0)
    >>> rate.take({"few": 1, "many": 100}, now_s=1.0)
    {'few': 1, 'many': 5}
    >>> rate.take({"many": 100}, now_s=1.5)
    {'many': 4}
    """

    def __init__(self, per_s: float, now_s: float) -> None:
        self._per_s = per_s
        self._at_s = now_s
        self._saved: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}

    def take(
        self, wanted: Mapping[str, int], now_s: float, *, share: float = 1.0
    ) -> dict[str, int]:
        """Units granted to each name, up to the number it wants, at `share` of the total rate."""
        for name in wanted:
            self._saved.setdefault(name, 0.0)
            self._asked_at[name] = now_s
        for name in [n for n, at_s in self._asked_at.items() if now_s - at_s > IDLE_S]:
            del self._saved[name], self._asked_at[name]
        self._distribute(min(1.0, max(0.0, now_s - self._at_s)) * self._per_s * share)
        self._at_s = now_s
        granted = {name: min(n, int(self._saved[name])) for name, n in wanted.items()}
        for name, n in granted.items():
            self._saved[name] -= n
        return granted

    def _distribute(self, new: float) -> None:
        """Add equal parts to the savings, each up to its limit; an excess is lost."""
        if not self._saved:
            return
        most = max(1.0, self._per_s / len(self._saved))
        room = sorted((most - saved, name) for name, saved in self._saved.items())
        for left, (free, name) in zip(range(len(room), 0, -1), room, strict=True):
            part = max(0.0, min(free, new / left))
            self._saved[name] += part
            new -= part
