"""The tail of events: one reader of Kafka for all who look on, with a bounded queue for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from api.schemas import encode
from models.errors import TooManyWaiting
from models.kafka_operations import TailedEvent, TailedEvents

INTERVAL_S = 0.5
"""Time between two messages, at least."""

MAX_QUEUED = 100
"""Events of one message, at most; of more the newest, and how many were left out."""

SILENCE_S = 15.0
"""Time after which a message says that nothing has come."""

Read = Callable[[Callable[[list[TailedEvent]], None]], Callable[[], None]]
"""Begins to read in a thread, which gives events to a function; its answer ends that."""


@dataclass(eq=False)
class _Listener:
    is_wanted: Callable[[TailedEvent], bool]
    events: deque[TailedEvent] = field(default_factory=lambda: deque(maxlen=MAX_QUEUED))
    n_left_out: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)


class EventTail:
    """Messages of server-sent events; Kafka is read while somebody looks on.

    Parameters
    ----------
    read
        See `Read`.
    most
        Bound on those who look on at once; more are refused.
    """

    def __init__(self, read: Read, *, most: int) -> None:
        self._read, self._most = read, most
        self._listeners: set[_Listener] = set()
        self._stop: Callable[[], None] | None = None

    def check_room(self) -> None:
        """Raises `TooManyWaiting` if the bound is reached."""
        if len(self._listeners) >= self._most:
            raise TooManyWaiting(f"{self._most} clients look on: try again later")

    async def messages(self, is_wanted: Callable[[TailedEvent], bool]) -> AsyncGenerator[bytes]:
        """A message at once, then whenever wanted events have come, until it is closed."""
        one = _Listener(is_wanted)
        self._listeners.add(one)
        if self._stop is None:
            loop = asyncio.get_running_loop()
            self._stop = self._read(lambda found: _call(loop, lambda: self._take(found)))
        try:
            yield _message(one)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SILENCE_S):
                        await one.came.wait()
                yield _message(one)
                await asyncio.sleep(INTERVAL_S)
        finally:
            self._listeners.discard(one)
            if not self._listeners:
                self.close()

    def _take(self, found: list[TailedEvent]) -> None:
        for one in self._listeners:
            wanted = [event for event in found if one.is_wanted(event)]
            if wanted:
                one.n_left_out += max(0, len(one.events) + len(wanted) - MAX_QUEUED)
                one.events.extend(wanted)
                one.came.set()

    def close(self) -> None:
        """Read no more."""
        if self._stop is not None:
            self._stop()
            self._stop = None


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)


def _message(one: _Listener) -> bytes:
    sent = TailedEvents(list(one.events), one.n_left_out)
    one.events.clear()
    one.n_left_out = 0
    one.came.clear()
    return b"data: %s\n\n" % encode(sent)
