"""Batches of a stream's events, with a wait under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streams.kafka.consuming.message_batches import LARGE_BATCH, in_batches


class Stream:
    """A stream of the numbers that a test puts, as Faust's streams give events; ends at None."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[int | None] = asyncio.Queue()

    async def events(self) -> AsyncIterator[int]:
        """The numbers that were put, as they come."""
        while (number := await self.arrived.get()) is not None:
            yield number


@pytest.mark.parametrize(("n", "waits"), [(1, 0), (2, 0), (LARGE_BATCH - 1, 0), (LARGE_BATCH, 1)])
async def test_only_a_large_batch_waits_for_more(
    n: int, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a small batch, the next events are taken at once."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    stream: Any = Stream()
    for number in range(n):
        stream.arrived.put_nowait(number)
    taken = in_batches(stream, 100, 0.01)
    first = await anext(taken)
    stream.arrived.put_nowait(n)
    second = await anext(taken)
    stream.arrived.put_nowait(None)

    assert [*first, *second, *[one async for batch in taken for one in batch]] == [*range(n + 1)]
    assert len(first) == n
    assert slept[:waits] == [0.01] * waits
    assert len(slept) == waits
