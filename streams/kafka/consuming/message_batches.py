"""Batches of a stream's events: whatever has arrived, with a short wait under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

LARGE_BATCH = 16
"""Messages in a batch from which on a wait for more pays: they cost about as much as the step. With
fewer, a wait would only make the next batch late, and so just as large."""


async def in_batches(stream: Any, limit: int, wait_s: float = 0.0) -> AsyncIterator[list[Any]]:
    """The stream's events in batches: at least one event each, at most `limit`, in order.

    Reading goes on while the caller works on a batch, at most `limit` events ahead. After a batch
    of `LARGE_BATCH` or more, the next events are given `wait_s` to gather; few events never wait.
    """
    buffer: list[Any] = []
    arrived, room = asyncio.Event(), asyncio.Event()
    busy = False

    async def pump() -> None:
        async for event in stream.events():
            buffer.append(event)
            arrived.set()
            if len(buffer) >= limit:
                room.clear()
                await room.wait()

    pumping = asyncio.create_task(pump())
    pumping.add_done_callback(lambda _: arrived.set())
    try:
        while True:
            await arrived.wait()
            if busy and len(buffer) < limit:
                await asyncio.sleep(wait_s)
            arrived.clear()
            batch = buffer[:]
            buffer.clear()
            room.set()
            busy = len(batch) >= LARGE_BATCH
            if batch:
                yield batch
            elif pumping.done():
                pumping.result()
                return
    finally:
        pumping.cancel()
