"""The log of requests refused while Kafka or Redis is away: one line in a while for each reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from models.log_throttle import LogThrottle

QUIET_S = 10.0
"""Seconds for which a reason is not repeated."""

MAX_REASONS = 16

LOG = logging.getLogger(__name__)


class OutageLog:
    """Logs reasons of refusal: the first at once, later ones with the count of those between.

    Examples
    --------
    >>> now_s = 0.0
    >>> outages = OutageLog(clock=lambda: now_s)
    >>> [outages.note("Kafka is away") for _ in range(3)], outages.note("Redis is away")
    ([True, False, False], True)
    >>> now_s = 11.0
    >>> outages.note("Kafka is away")
    True
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._throttle = LogThrottle(QUIET_S, max_keys=MAX_REASONS)

    def note(self, reason: str) -> bool:
        """Note that a request was refused; True if that was logged."""
        more = self._throttle.suppressed(reason, self._clock())
        if more is None:
            return False
        LOG.warning("%s%s", reason, f" ({more} more requests before)" if more else "")
        return True


OUTAGES = OutageLog()
"""The log of this process."""
