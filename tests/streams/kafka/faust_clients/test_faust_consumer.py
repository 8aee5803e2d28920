"""Positions of the consumer: agents and the fetching agree on the current read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from models.settings import Settings
from streams.kafka.consuming.assignment import Partition, ReadStart, next_read
from streams.kafka.faust_clients.faust_app import create_app

CLICKS = "events.clicks", 0


class Simulated:
    """An app's consumer without Kafka, and agents that know which read they wait for.

    Attributes
    ----------
    expected
        Number of the read whose messages the agents accept.
    loading
        How many loads of positions are under way, at most.
    """

    def __init__(self, load_waits: list[int]) -> None:
        self._load_waits = load_waits
        self._under_way = self.loading = 0
        self.expected = -1
        app = create_app("worker", Settings(kafka="localhost:1"), self._load)
        self.consumer: Any = app.consumer
        self.consumer.assignment = lambda: {TP(*CLICKS)}
        self.consumer.earliest_offsets = self._oldest
        self.thread = self.consumer._thread
        self.thread._ensure_consumer = lambda: self

    @property
    def read(self) -> int:
        """Number of the read that is fetched."""
        number: int = self.thread._reads[TP(*CLICKS)].number
        return number

    def seek(self, _: TP, __: int) -> None:
        """As aiokafka's consumer."""

    async def rewind(self, waits: int) -> None:
        """Read again, as an agent does: wait for the new read, and have it begun."""
        await wait(waits)
        if self.expected < 0:
            return
        number = self.expected = next_read()
        await self.consumer.begin({CLICKS: ReadStart(0, number)})

    async def rebalance(self, waits: int) -> None:
        """Load the positions, as Faust does at any moment."""
        await wait(waits)
        await self.consumer.seek_to_committed()

    async def _load(self, oldest: Mapping[Partition, int]) -> Mapping[Partition, ReadStart]:
        self._under_way += 1
        self.loading = max(self.loading, self._under_way)
        await wait(self._load_waits.pop() if self._load_waits else 0)
        self._under_way -= 1
        start = ReadStart(oldest[CLICKS], next_read())
        self.expected = start.number
        return {CLICKS: start}

    @staticmethod
    async def _oldest(*assigned: TP) -> Mapping[TP, int]:
        await wait(1)
        return dict.fromkeys(assigned, 0)


async def wait(turns: int) -> None:
    """Let the event loop run so many times."""
    for _ in range(turns):
        await asyncio.sleep(0)


TURNS = st.integers(0, 8)


@settings(max_examples=200, deadline=None)
@given(
    rebalances=st.lists(TURNS, min_size=1, max_size=3),
    rewinds=st.lists(TURNS, max_size=2),
    load_waits=st.lists(TURNS, max_size=3),
)
def test_agents_wait_for_the_read_that_has_begun(
    rebalances: list[int], rewinds: list[int], load_waits: list[int]
) -> None:
    """Whatever overlaps: else a worker that looks well would apply nothing any more."""

    async def run() -> None:
        one = Simulated(load_waits)
        await asyncio.gather(*map(one.rebalance, rebalances), *map(one.rewind, rewinds))
        assert one.read == one.expected
        assert one.loading == 1

    asyncio.run(run())


def test_a_cancelled_seek_leaves_the_next_one_its_turn() -> None:
    """Faust cancels a seek when the next rebalance comes."""

    async def run() -> None:
        one = Simulated([0, 5])
        first = asyncio.create_task(one.rebalance(0))
        await wait(4)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await one.rebalance(0)
        assert one.read == one.expected

    asyncio.run(run())


def test_a_message_waits_for_room_without_being_lost_or_handed_over_twice() -> None:
    """Where its stream is full it waits there; a rebalance ends that."""

    async def run() -> None:
        one = Simulated([])
        room, handed = asyncio.Event(), list[str]()

        async def callback(message: str) -> None:
            try:
                await room.wait()
            finally:
                await wait(1)
            handed.append(message)

        one.consumer.callback = callback
        waiting = asyncio.create_task(one.consumer._hand_over("a"))
        await wait(5)
        assert handed == []
        room.set()
        await waiting
        await one.consumer._hand_over("b")
        assert handed == ["a", "b"]

        room.clear()
        waiting = asyncio.create_task(one.consumer._hand_over("c"))
        await wait(5)
        one.consumer.suspend_flow.set()
        await waiting
        room.set()
        await wait(5)
        assert handed == ["a", "b"]

    asyncio.run(run())


def test_a_fetching_that_has_ended_ends_the_worker() -> None:
    """It is only logged by aiokafka: the worker would hold partitions of which it reads nothing."""

    async def run() -> None:
        one = Simulated([])
        one.thread._isolate_partitions = lambda _: None
        ended = asyncio.get_running_loop().create_future()
        ended.set_exception(KafkaError("Unexpected error during data retrieval"))
        consumer = SimpleNamespace(_closed=False, _fetcher=SimpleNamespace(error_future=ended))
        with pytest.raises(KafkaError, match="data retrieval"):
            await one.thread._fetch_records(consumer, set())

    asyncio.run(run())
