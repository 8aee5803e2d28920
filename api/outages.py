"""What is logged while a server is away: a line now and then, not one for each request refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

QUIET_S = 10.0
"""For so long a reason is not said again."""

MAX_REASONS = 16

LOG = logging.getLogger(__name__)


class OutageLog:
    """Logs why requests are refused: the first at once, then how many more there were.

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
        self._said: dict[str, tuple[float, int]] = {}

    def note(self, reason: str) -> bool:
        """A request was refused for this reason; whether it was logged."""
        said_s, more = self._said.get(reason, (-QUIET_S, 0))
        if self._clock() < said_s + QUIET_S:
            self._said[reason] = said_s, more + 1
            return False
        self._said.pop(reason, None)
        if len(self._said) >= MAX_REASONS:
            del self._said[next(iter(self._said))]
        self._said[reason] = self._clock(), 0
        LOG.warning("%s%s", reason, f" ({more} more requests before)" if more else "")
        return True


OUTAGES = OutageLog()
"""Of this process."""
