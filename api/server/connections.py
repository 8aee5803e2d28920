"""The connections of a process: a bound on their number, and an eye on those that take too long."""

from __future__ import annotations

import asyncio
import resource
from typing import Protocol

from prometheus_client import Gauge

from api.server.refusals import REFUSED
from models.errors import NotConfigured
from models.settings import Settings

SPARE = 64
"""Connections beyond the bound that are still told so; further ones are just cut."""

SWEEP_S = 0.5
"""How often the clock is compared with what each connection waits for."""

OWN_FILES = 256
"""What a process opens beside connections of clients: its libraries, Redis, Kafka, logs."""

OPEN = Gauge("recommender_connections", "HTTP connections that are open")


class Connection(Protocol):
    """What the bound needs of a connection."""

    def make_room(self) -> None:
        """Close; no request is under way."""

    def turn_away(self) -> None:
        """Answer whatever is asked with 503."""

    def abort(self) -> None:
        """End at once."""

    def check(self, now_s: float) -> None:
        """Look whether something takes too long."""


class Connections:
    """Every open connection, those without a request under way in the order they began to wait.

    When there are as many as may be, a new one takes the place of the one that has waited longest,
    be it idle or in the middle of a head: whoever just connects and asks is served, however many
    connect and do not. Only where all are busy is the new one refused.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        self._refused = REFUSED.labels("connections")
        self._is_swept = False

    def opened(self, connection: Connection) -> None:
        """Take a new connection in, or refuse it."""
        if len(self._open) >= self.settings.max_connections:
            self._refused.inc()
            if self._waiting:
                longest = next(iter(self._waiting))
                self.closed(longest)
                longest.make_room()
            elif len(self._open) >= self.settings.max_connections + SPARE:
                connection.abort()
                return
            else:
                connection.turn_away()
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
        """All requests are answered."""
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
    """Raise this process's limit of open files to what so many connections need.

    Raises
    ------
    NotConfigured
        The system does not let it.
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
