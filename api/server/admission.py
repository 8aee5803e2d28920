"""Backpressure: bounds on concurrent requests and on their memory, checked before any work."""

from __future__ import annotations

import time
from collections.abc import Callable

from api.server.refusals import REFUSED
from models.errors import Overloaded, Unavailable

STUCK_S = 1.0
"""A full gate that no request has left for this long counts as waiting for a dead server."""


class Gate:
    """A bound on the requests that wait for one server; a context manager around the wait.

    Parameters
    ----------
    most
        Requests inside at once, at most.
    reason
        Label of the metric of refusals.
    server
        Name of the server, for error texts.
    clock
        Monotonic seconds.

    Raises
    ------
    Overloaded
        On entry, if it is full.
    Unavailable
        On entry, if it is full and no request has left it for `STUCK_S`.

    Examples
    --------
    >>> gate = Gate(1, "answers", "Redis")
    >>> with gate, gate:
    ...     pass
    Traceback (most recent call last):
    models.errors.Overloaded: as many requests as may wait for Redis: try again in a second
    """

    def __init__(
        self, most: int, reason: str, server: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._server = server
        self._clock = clock
        self._refused = REFUSED.labels(reason)
        self._n = 0
        self._moved_s = clock()

    def __enter__(self) -> None:
        if self._n >= self._most:
            self._refused.inc()
            if self._clock() - self._moved_s > STUCK_S:
                raise Unavailable(f"{self._server} does not answer: try again later")
            waiting = f"as many requests as may wait for {self._server}"
            raise Overloaded(f"{waiting}: try again in a second")
        self._n += 1
        if self._n == self._most:
            # Full from now on: the time before does not count as stuck.
            self._moved_s = self._clock()

    def __exit__(self, *_: object) -> None:
        self._n -= 1
        self._moved_s = self._clock()


class Budget:
    """Memory that the bodies of all requests share, beyond the free part of each."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def take(self, n_bytes: int) -> bool:
        """Reserve bytes until they are given back; False if too few are left."""
        if n_bytes > self._left:
            REFUSED.labels("bodies").inc()
            return False
        self._left -= n_bytes
        return True

    def give_back(self, n_bytes: int) -> None:
        """Return reserved bytes."""
        self._left += n_bytes
