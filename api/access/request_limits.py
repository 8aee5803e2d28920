"""Limits on the requests of one API key: a rate for each process, and a quota of all for a day."""

from __future__ import annotations

import math

from models.api_keys import ApiKey

BURST_S = 5.0
"""A key that was silent may send the requests of this many seconds at once."""

DAY_S = 86400


class RequestLimit:
    """A token bucket, and a count of the day's requests; a few numbers for each key.

    The rate holds in each process by itself: with n processes a key may come to n times its rate.
    That costs a request nothing but arithmetic, and protects each process. The quota is of all
    processes: each adds what it has counted to Redis at every reading of the keys, so that
    it is exceeded by what arrives within a second at most.

    Parameters
    ----------
    now_s
        Monotonic seconds.
    """

    __slots__ = ("_at_s", "_burst", "_day", "_quota", "_rate", "_tokens", "_unsent", "_used")

    def __init__(self, key: ApiKey, *, now_s: float) -> None:
        self._rate = key.requests_per_s
        self._quota = key.requests_per_day
        self._burst = max(1.0, self._rate * BURST_S)
        self._tokens = self._burst
        self._at_s = now_s
        self._day = 0
        self._used = 0
        self._unsent = 0

    @property
    def limits(self) -> bool:
        """True if there is any limit."""
        return bool(self._rate or self._quota)

    @property
    def has_quota(self) -> bool:
        """True if the requests of a day are limited."""
        return bool(self._quota)

    def is_of(self, key: ApiKey) -> bool:
        """True if these are the limits of a key."""
        return (self._rate, self._quota) == (key.requests_per_s, key.requests_per_day)

    def wait_s(self, now_s: float, unix_s: float) -> int:
        """Whole seconds until a request may be sent again; 0 lets this one pass, and counts it.

        Parameters
        ----------
        now_s, unix_s
            Monotonic seconds, and Unix time.

        Examples
        --------
        >>> from models.api_keys import new_key
        >>> slow = new_key("slow", ["read"], ["*"], now_s=0.0, requests_per_s=0.2).key
        >>> limit = RequestLimit(slow, now_s=0.0)
        >>> [limit.wait_s(at_s, 0.0) for at_s in (0.0, 0.0, 3.0, 5.0)]
        [0, 5, 2, 0]
        """
        if self._rate:
            tokens = min(self._burst, self._tokens + max(0.0, now_s - self._at_s) * self._rate)
            self._tokens, self._at_s = tokens, now_s
            if tokens < 1.0:
                return max(1, math.ceil((1.0 - tokens) / self._rate - 1e-9))
        if self._quota:
            day = int(unix_s // DAY_S)
            self._begin(day)
            if self._used + self._unsent >= self._quota:
                return max(1, math.ceil((day + 1) * DAY_S - unix_s))
            self._unsent += 1
        if self._rate:
            self._tokens -= 1.0
        return 0

    def take_unsent(self, day: int) -> int:
        """Requests of a day that were not handed over yet; they are from now on."""
        self._begin(day)
        taken, self._unsent = self._unsent, 0
        # Until the total arrives they count here.
        self._used += taken
        return taken

    def _begin(self, day: int) -> None:
        """Count from zero on another day."""
        if day != self._day:
            self._day, self._used, self._unsent = day, 0, 0

    def set_used(self, day: int, total: int) -> None:
        """Set the requests of all processes on a day, those handed over included."""
        if day == self._day:
            self._used = total

    def give_back(self, day: int, n: int) -> None:
        """Take back requests that could not be handed over."""
        if day == self._day:
            self._used -= n
            self._unsent += n
