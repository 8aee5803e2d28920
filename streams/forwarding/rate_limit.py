"""How fast calls are made: so many a second, and ever less often while they fail."""

from __future__ import annotations

import math

FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.1, 10.0
BURST_S = 0.1
"""Calls not made during this long may be made up for at once."""


def backoff_s(attempt: int, chance: float) -> float:
    """How long to wait after failed attempt 0, 1, …: doubling, times a `chance` in [0, 1].

    >>> backoff_s(3, 0.5)
    0.4
    """
    return chance * min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, 30))


class RateLimit:
    """A token bucket: at most `per_s` calls a second, after at most `BURST_S` worth at once."""

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._next_s = -math.inf

    def reserve(self, now_s: float) -> float:
        """Take the next free moment; gives how long to wait for it."""
        start_s = max(self._next_s, now_s - BURST_S)
        self._next_s = start_s + self._interval_s
        return max(0.0, start_s - now_s)
