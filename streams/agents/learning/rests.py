"""Rests between pieces of background work: a share of the time, and none while events are late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from models.waits import waits_s

REST_AFTER_S = 0.02
"""Work between two rests."""


class Rests:
    """Rests between pieces of one kind of work.

    Parameters
    ----------
    share
        Share of the time which is worked.
    is_late
        True while events wait, and the work must.
    """

    def __init__(self, share: float, is_late: Callable[[], bool]) -> None:
        self._share = share
        self._is_late = is_late
        self._worked_s = 0.0
        self._since_s = time.perf_counter()

    def begin(self) -> None:
        """Begin to work: what has passed since the last pause was none."""
        self._since_s = time.perf_counter()

    async def pause(self) -> None:
        """Rest, if enough has been worked, and wait while events are late."""
        self._worked_s += time.perf_counter() - self._since_s
        if self._worked_s >= REST_AFTER_S:
            worked_s, self._worked_s = self._worked_s, 0.0
            await asyncio.sleep(worked_s * (1.0 / self._share - 1.0))
        for wait_s in waits_s(0.1, 1.0):
            if not self._is_late():
                break
            await asyncio.sleep(wait_s)
        self.begin()
