"""A bounded queue whose entries are written in the background, many at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BackgroundQueue(Generic[K, V]):
    """Gathers entries by key, and writes them from time to time; nothing waits for it.

    Parameters
    ----------
    write
        Writes entries, by key and in the order they came; handles its own errors.
    every_s
        Time for which entries are gathered.
    max_waiting
        Bound on the entries that wait; more are refused, for answers go first.

    Examples
    --------
    >>> async def three_entries():
    ...     written = []
    ...
    ...     async def write(entries):
    ...         written.append(entries)
    ...
    ...     queue = BackgroundQueue(write, every_s=0.0, max_waiting=2)
    ...     taken = [queue.put("a", number) for number in range(3)]
    ...     await queue.close()
    ...     return taken, written
    >>> asyncio.run(three_entries())
    ([True, True, False], [{'a': [0, 1]}])
    """

    def __init__(
        self,
        write: Callable[[dict[K, list[V]]], Awaitable[None]],
        *,
        every_s: float,
        max_waiting: int,
    ) -> None:
        self._write = write
        self._every_s = every_s
        self._max_waiting = max_waiting
        self._waiting: dict[K, list[V]] = {}
        self._n_waiting = 0
        self._task: asyncio.Task[None] | None = None

    def put(self, key: K, entry: V) -> bool:
        """Add an entry; False if too many wait. Never blocks; called on the event loop."""
        if self._n_waiting >= self._max_waiting:
            return False
        self._n_waiting += 1
        self._waiting.setdefault(key, []).append(entry)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush())
        return True

    async def _flush(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._every_s)
            waiting, self._waiting, self._n_waiting = self._waiting, {}, 0
            await self._write(waiting)

    async def close(self) -> None:
        """Write the entries that wait."""
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
