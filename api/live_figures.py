"""Live figures: counts of the group once a second, read once for all who listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from prometheus_client import Gauge

from api.schemas import Error, ErrorBody, LiveFigures, encode
from models.background_tasks import end_tasks
from models.errors import TooManyWaiting
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.store import Store

INTERVAL_S = 1.0
"""Time between two messages."""

COUNTED = ("events", "purchases", "items", "users", "sessions")

LISTENERS = Gauge("recommender_live_listeners", "Clients that listen to live figures")

UNAVAILABLE = b"event: unavailable\ndata: %s\n\n" % encode(
    Error(ErrorBody("unavailable", "Redis does not answer"))
)
"""Message while the store is away."""


class LiveFeed:
    """Messages of server-sent events with the group's counts; idle while nobody listens.

    Parameters
    ----------
    most
        Bound on the clients that listen at once; more are refused.
    """

    def __init__(self, store: Store, clock: Callable[[], float], *, most: int) -> None:
        self._store, self._clock, self._most = store, clock, most
        self._n_listeners = 0
        self._next: asyncio.Future[bytes] | None = None
        self._reader: asyncio.Task[None] | None = None

    def read_from(self, store: Store) -> None:
        """Read the counts of another store, of the same group on other shards."""
        self._store = store

    def check_room(self) -> None:
        """Raises `TooManyWaiting` if the bound on listeners is reached."""
        if self._n_listeners >= self._most:
            raise TooManyWaiting(f"{self._most} clients listen to live figures: try again later")

    async def messages(self) -> AsyncGenerator[bytes]:
        """A message at once, then one each `INTERVAL_S`, until it is closed."""
        self._n_listeners += 1
        LISTENERS.set(self._n_listeners)
        try:
            yield await self._message()
            while True:
                yield await asyncio.shield(self._following())
        finally:
            self._n_listeners -= 1
            LISTENERS.set(self._n_listeners)

    def _following(self) -> asyncio.Future[bytes]:
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return self._next

    async def _read(self) -> None:
        """Read for all who wait, until nobody does."""
        while self._next is not None:
            await asyncio.sleep(INTERVAL_S)
            message = await self._message()
            waited, self._next = self._next, None
            waited.set_result(message)
            # Those who got the message ask for the next one before this goes on.
            await asyncio.sleep(0)

    async def _message(self) -> bytes:
        try:
            counts = await self._store.counts()
        except AWAY_ERRORS:
            return UNAVAILABLE
        now_s, newest = self._clock(), counts.get("accepted_at")
        events, purchases, items, users, sessions = (int(counts.get(name, 0)) for name in COUNTED)
        age_s = round(max(0.0, now_s - newest), 3) if newest else None
        figures = LiveFigures(round(now_s, 3), events, purchases, items, users, sessions, age_s)
        return b"data: %s\n\n" % encode(figures)

    async def close(self) -> None:
        """End the task that reads."""
        await end_tasks(self._reader)
