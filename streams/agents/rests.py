"""Rests between pieces of background work of a worker, so that it takes a share of the time."""

from __future__ import annotations

import asyncio
import time

REST_AFTER_S = 0.02
"""Work between two rests."""


class Rests:
    """Rests between pieces of work; `share` is that of the time which is worked."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._worked_s = 0.0
        self._since_s = time.perf_counter()

    def begin(self) -> None:
        """Begin a piece of work."""
        self._since_s = time.perf_counter()

    async def after_work(self) -> None:
        """Rest, if enough has been worked."""
        self._worked_s += time.perf_counter() - self._since_s
        if self._worked_s >= REST_AFTER_S:
            worked_s, self._worked_s = self._worked_s, 0.0
            await asyncio.sleep(worked_s * (1.0 / self._share - 1.0))
