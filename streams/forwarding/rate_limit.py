"""Rate of calls to a sink."""

from __future__ import annotations

import math

BURST_S = 0.1
"""Calls that were not made for so long may be made at once."""


class RateLimit:
    """A token bucket: at most `per_s` calls a second, with bursts of `BURST_S` worth of calls."""

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s
        self._next_s = -math.inf

    def reserve(self, now_s: float) -> float:
        """Reserve the next free moment; returns the wait for it in seconds."""
        start_s = max(self._next_s, now_s - BURST_S)
        self._next_s = start_s + self._interval_s
        return max(0.0, start_s - now_s)
