"""Backpressure: bounds on concurrent requests and on their memory, checked before any work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from api.server.refusals import REFUSED
from models.errors import Overloaded, Unavailable

STUCK_S = 1.0
"""A full gate that no request has left for this long counts as waiting for a dead server."""

WINDOW_S = 0.25
"""Time over which the mean stay in a gate is measured."""

MIN_LEFT = 8
"""Requests that must leave within a window for its mean to count."""

FEW = 8
"""A gate lets at least so many in; with fewer inside, nobody waits for another."""

PATIENCE = 3.0
"""A mean stay of more than so many times the usual one means that a queue stands."""

QUICK_S = 0.005
"""A mean stay that is no queue, however short the usual one is."""

BUSY = 0.8
"""Share of time with work to do from which on requests wait for this process, not for a server."""

SHRINK, GROW, DRIFT = 0.25, 1.25, 0.05
"""Of the bound in a window: the least and the most; of the usual stay: the part that is new."""


def wanted_cpu_s() -> float:
    """Seconds for which this thread ran or, where Linux tells it, would have run on a free core."""
    try:
        ran_ns, waited_ns, _ = Path("/proc/thread-self/schedstat").read_text().split()
    except (OSError, ValueError):
        return time.thread_time()
    return (int(ran_ns) + int(waited_ns)) / 1e9


class Gate:
    """A bound on the requests that wait for one server; a context manager around the wait.

    The bound falls while a queue stands: where requests stay much longer than usual, letting more
    in would only have each of them wait longer, not be answered sooner. A server that is busy all
    the time answers as many in a second whatever the bound is, so by Little's law stays are as the
    bound, and it falls as far as they are too long.

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
    cpu
        Seconds for which the event loop's thread had work to do.

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
        self,
        most: int,
        reason: str,
        server: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = wanted_cpu_s,
    ) -> None:
        self._most = most
        self._limit = float(most)
        self._server = server
        self._clock = clock
        self._refused = REFUSED.labels(reason)
        self._n = self._n_announced = 0
        self._moved_s = self._changed_s = self._began_s = clock()
        # Of the window: seconds that all requests together were inside, those that left, the most.
        self._stayed_s, self._n_left, self._peak = 0.0, 0, 0
        self._usual_s = QUICK_S
        self._cpu, self._cpu_s = cpu, cpu()

    def announce(self, loop: asyncio.AbstractEventLoop) -> Overloaded | None:
        """Count a request that enters in the next step of the loop, or return its refusal.

        What is refused here costs no more work. A request that would wait for a dead server is let
        through: its route may know another answer.
        """
        if not self._n_announced:
            loop.call_soon(self._forget_announced)
        if self._n + self._n_announced < self._limit or self._clock() - self._moved_s > STUCK_S:
            self._n_announced += 1
            return None
        self._refused.inc()
        return self._overloaded()

    def _forget_announced(self) -> None:
        """Called when all that were announced have entered, or failed before."""
        self._n_announced = 0

    def _overloaded(self) -> Overloaded:
        waiting = f"as many requests as may wait for {self._server}"
        return Overloaded(f"{waiting}: try again in a second")

    def __enter__(self) -> None:
        now_s = self._clock()
        if self._n >= self._limit:
            self._refused.inc()
            if now_s - self._moved_s > STUCK_S:
                raise Unavailable(f"{self._server} does not answer: try again later")
            raise self._overloaded()
        self._change(now_s, 1)
        if self._n + 1 > self._limit:
            # Full from now on: the time before does not count as stuck.
            self._moved_s = now_s

    def __exit__(self, *_: object) -> None:
        now_s = self._moved_s = self._clock()
        self._change(now_s, -1)
        self._n_left += 1
        if now_s - self._began_s >= WINDOW_S:
            self._measure(now_s)

    def _change(self, now_s: float, n: int) -> None:
        self._stayed_s += self._n * (now_s - self._changed_s)
        self._changed_s = now_s
        self._n += n
        self._peak = max(self._peak, self._n)

    def _measure(self, now_s: float) -> None:
        """End a window: the bound follows from the mean stay in it."""
        cpu_s = self._cpu()
        if self._n_left >= MIN_LEFT:
            stay_s = self._stayed_s / self._n_left
            if stay_s < self._usual_s:
                self._usual_s = stay_s
            elif self._peak <= FEW and cpu_s - self._cpu_s < BUSY * (now_s - self._began_s):
                # Few waited for another, or for this process: the server itself takes as long.
                self._usual_s += DRIFT * (stay_s - self._usual_s)
            good_s = max(QUICK_S, PATIENCE * self._usual_s)
            if stay_s <= good_s:
                self._limit = min(float(self._most), self._limit * GROW)
            elif 2 * self._peak > self._limit:
                fallen = self._limit * max(SHRINK, good_s / stay_s)
                self._limit = max(float(min(FEW, self._most)), fallen)
        self._began_s, self._cpu_s = now_s, cpu_s
        self._stayed_s, self._n_left, self._peak = 0.0, 0, self._n


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
