"""Connections of a process: a bound on their number, and a sweep that checks time limits."""

from __future__ import annotations

import asyncio
import resource
from typing import Protocol

from prometheus_client import Gauge

from api.server.refusals import REFUSED
from models.errors import NotConfigured
from models.settings import Settings

SPARE = 64
"""Connections beyond the bound that get an answer 503; further ones are cut."""

SWEEP_S = 0.5
"""Interval at which the time limits of all connections are checked."""

OWN_FILES = 256
"""Files that a process opens beside client connections: libraries, Redis, Kafka, logs."""

OPEN = Gauge("recommender_connections", "HTTP connections that are open")


class Connection(Protocol):
    """A connection as the bound uses it."""

    def close_waiting(self) -> None:
        """Close; called while no request is under way."""

    def refuse_requests(self) -> None:
        """Answer every request with 503."""

    def abort(self) -> None:
        """End at once."""

    def check(self, now_s: float) -> None:
        """End the connection if a time limit has passed."""


class Connections:
    """Every open connection, and those without a request under way in order of their waiting time.

    At the bound, a new connection replaces the one that has waited longest, idle or in the middle
    of a head: a client that connects and asks is served, however many connect and do not ask. Only
    if all are busy is the new one refused.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        self._refused = REFUSED.labels("connections")
        self._is_swept = False

    def opened(self, connection: Connection) -> None:
        """Admit a new connection, or refuse it."""
        if len(self._open) >= self.settings.max_connections:
            self._refused.inc()
            if self._waiting:
                longest = next(iter(self._waiting))
                self.closed(longest)
                longest.close_waiting()
            elif len(self._open) >= self.settings.max_connections + SPARE:
                connection.abort()
                return
            else:
                connection.refuse_requests()
        self._open.add(connection)
        self._waiting[connection] = None
        OPEN.set(len(self._open))
        if not self._is_swept:
            self._is_swept = True
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def busy(self, connection: Connection) -> None:
        """A request is under way."""
        self._waiting.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """All requests of the connection are answered."""
        if connection in self._open:
            self._waiting[connection] = None

    def closed(self, connection: Connection) -> None:
        """A connection has ended."""
        self._waiting.pop(connection, None)
        self._open.discard(connection)
        OPEN.set(len(self._open))

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for connection in list(self._open):
            connection.check(now_s)
        self._is_swept = bool(self._open)
        if self._is_swept:
            loop.call_later(SWEEP_S, self._sweep)


def allow_connections(most: int) -> None:
    """Raise this process's limit of open files for so many connections.

    Raises
    ------
    NotConfigured
        The system's hard limit is lower.
    """
    needed = most + SPARE + OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise NotConfigured(
            f"RECOMMENDER_MAX_CONNECTIONS of {most} needs {needed} open files, and the system "
            f"allows {hard}: raise `ulimit -Hn`, or lower the setting"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
