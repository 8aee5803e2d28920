"""A rate that is shared fairly among those who want some of it at the moment."""

from __future__ import annotations

from collections.abc import Mapping

IDLE_S = 60.0
"""Who has not asked for so long has no share any more."""


class FairRate:
    """So many a second in all; an equal share for each, and what one leaves is the others'.

    A share may be saved up for a second, or until it makes one whole.

    >>> allowance = Allowance(10.0, now_s=0.0)
    >>> allowance.take({"few": 1, "many": 100}, now_s=1.0)
    {'few': 1, 'many': 5}
    >>> allowance.take({"many": 100}, now_s=1.5)
    {'many': 4}
    """

    def __init__(self, per_s: float, now_s: float) -> None:
        self._per_s = per_s
        self._at_s = now_s
        self._saved: dict[str, float] = {}
        self._asked_at: dict[str, float] = {}

    def take(self, wanted: Mapping[str, int], now_s: float, *, pace: float = 1.0) -> dict[str, int]:
        """How many of what each wants it may have now, where the rate is `pace` times the whole."""
        for name in wanted:
            self._saved.setdefault(name, 0.0)
            self._asked_at[name] = now_s
        for name in [n for n, at_s in self._asked_at.items() if now_s - at_s > IDLE_S]:
            del self._saved[name], self._asked_at[name]
        self._share(min(1.0, max(0.0, now_s - self._at_s)) * self._per_s * pace)
        self._at_s = now_s
        given = {name: min(n, int(self._saved[name])) for name, n in wanted.items()}
        for name, n in given.items():
            self._saved[name] -= n
        return given

    def _share(self, new: float) -> None:
        """Add to what is saved: equal parts, but nobody more than fits; the rest is lost."""
        if not self._saved:
            return
        most = max(1.0, self._per_s / len(self._saved))
        room = sorted((most - saved, name) for name, saved in self._saved.items())
        for left, (free, name) in zip(range(len(room), 0, -1), room, strict=True):
            part = max(0.0, min(free, new / left))
            self._saved[name] += part
            new -= part
