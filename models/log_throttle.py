"""A bound on log lines that repeat: the first at once, then one in a while with a count."""

from __future__ import annotations

from collections.abc import Hashable


class LogThrottle:
    """Decides which of many equal log lines are written.

    Parameters
    ----------
    quiet_s
        Seconds for which a line is not repeated.
    max_keys
        Kinds of lines that are remembered; the one longest ago is forgotten first.

    Examples
    --------
    >>> throttle = LogThrottle(10.0)
    >>> [throttle.suppressed("lost", now_s) for now_s in (0.0, 1.0, 2.0, 11.0)]
    [0, None, None, 2]
    """

    def __init__(self, quiet_s: float, *, max_keys: int = 256) -> None:
        self._quiet_s = quiet_s
        self._max_keys = max_keys
        self._written: dict[Hashable, tuple[float, int]] = {}

    def suppressed(self, key: Hashable, now_s: float) -> int | None:
        """Lines left out since the last that was written, if this one is due; else None."""
        written_s, n_suppressed = self._written.get(key, (float("-inf"), 0))
        if now_s < written_s + self._quiet_s:
            self._written[key] = written_s, n_suppressed + 1
            return None
        self._written.pop(key, None)
        if len(self._written) >= self._max_keys:
            del self._written[next(iter(self._written))]
        self._written[key] = now_s, 0
        return n_suppressed
