"""The Faust app, made by a function, never at import; the only file that knows Faust's inside.

What differs from a stock Faust app, and why:

* Reading starts at the positions the store gives (its watermarks), not at Kafka's committed
  offsets: effects live in the store, so the store knows what has been applied.
* Topics are read without Faust's acknowledgements: an exception inside an agent would
  acknowledge the event that caused it. Offsets are committed from the watermarks, for lag tools.
* A fetch waits 10 ms at the broker instead of Faust's fixed 1.5 s, which a broker that does not
  wake on new data turns into as much latency.
* The positions are waited for as long as it takes. Faust would read on without them after
  `broker_request_timeout`, at Kafka's committed offsets: nothing would take effect any more, in a
  process that looks well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import faust
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from models.settings import Settings

FETCH_WAIT_MS = 10

MANY = 16
"""Messages in a batch from which on it pays to wait for more: they cost about as much as the step.
With fewer, waiting would only make the next batch late, and so just as large."""

EARLIEST = -2
"""Position meaning: from the oldest message the broker still has."""

LoadPositions = Callable[[set[tuple[str, int]]], Awaitable[Mapping[tuple[str, int], int]]]
"""Next offset to read of each (topic, partition), or `EARLIEST`; called on every assignment."""


class _Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001  no public setting reaches it
        return consumer


class _NoReadOffsets(dict[TP, Any]):
    """Read offsets that Faust cannot compare with: it would drop what is read again after a seek.

    The agents know what follows what; see `streams.sessions.Progress`.
    """

    def __getitem__(self, _: TP) -> None:
        return None


class _Consumer(driver.Consumer):  # type: ignore[misc]
    load_positions: LoadPositions | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.load_positions is not None:
            self._read_offset = _NoReadOffsets()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        assigned = set(self.assignment())
        if self.load_positions is None or not assigned:
            committed: Mapping[TP, int] = await super().seek_to_committed()
            return committed
        loaded = await self.load_positions({(tp.topic, tp.partition) for tp in assigned})
        oldest = await self.earliest_offsets(*assigned)
        positions = {tp: max(loaded[tp.topic, tp.partition], oldest[tp]) for tp in assigned}
        await self.seek_wait(positions)
        return positions

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust would report topics without its own acknowledgements as stuck."""


class _Recovery(Recovery):  # type: ignore[misc]
    async def _wait(self, coro: Any, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Wait without Faust's limit; a stop and a rebalance still end it."""
        await super()._wait(coro)


class _Tables(TableManager):  # type: ignore[misc]
    _recovery: Recovery | None

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = _Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class _App(faust.App):  # type: ignore[misc]
    load_positions: LoadPositions | None = None

    def _create_directories(self) -> None:
        """Nothing: Faust would make folders for tables, and there are none."""

    def _new_transport(self) -> Any:
        transport = super()._new_transport()
        transport.Consumer = (
            type(
                "PositionedConsumer",
                (_Consumer,),
                {"load_positions": staticmethod(self.load_positions)},
            )
            if self.load_positions
            else _Consumer
        )
        return transport


def create_app(name: str, settings: Settings, load_positions: LoadPositions | None) -> faust.App:
    """A Faust app whose consumer group is `<group>-<name>`; starts nothing.

    Parameters
    ----------
    name
        What the app does: `sessions`, `forward`.
    settings
        `kafka` must name the bootstrap servers.
    load_positions
        Where to read on; `None` leaves it to Kafka's committed offsets.
    """
    app = _App(
        f"{settings.group}-{name}",
        broker=[f"kafka://{server.strip()}" for server in settings.kafka.split(",")],
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        topic_partitions=settings.partitions,
        web_enabled=False,
        value_serializer="raw",
        key_serializer="raw",
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_s,
        broker_rebalance_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 6,
        broker_request_timeout=max(30.0, settings.session_timeout_s * 2),
        stream_wait_empty=False,
        TableManager=_Tables,
    )
    app.load_positions = load_positions
    return app


async def batches(stream: Any, limit: int, wait_s: float = 0.0) -> AsyncIterator[list[Any]]:
    """What has arrived since the last batch: at least one event, at most `limit`, in order.

    Reading goes on while the caller works on a batch, at most `limit` events ahead. Where `MANY`
    came at once, the next ones are given `wait_s` to gather; few events never wait for others.
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
            busy = len(batch) >= MANY
            if batch:
                yield batch
            elif pumping.done():
                pumping.result()
                return
    finally:
        pumping.cancel()


def add_agent(
    app: faust.App,
    topics: Sequence[str],
    handle: Callable[[list[Any]], Awaitable[None]],
    *,
    name: str,
    limit: int,
    wait_s: float = 0.0,
) -> None:
    """An agent that hands batches of Faust events of these topics to `handle`, in order.

    An error that gets out of `handle` stops the whole app: Faust would start the agent again
    behind the batch that failed.
    """

    async def consume(stream: Any) -> None:
        try:
            async for batch in batches(stream, limit, wait_s):
                await handle(batch)
        except Exception as error:  # noqa: BLE001  whatever it is, nothing may be skipped
            await app.crash(error)

    topic = app.topic(
        *topics,
        key_type=bytes,
        value_type=bytes,
        value_serializer="raw",
        key_serializer="raw",
        acks=False,
    )
    app.agent(topic, name=name)(consume)


async def commit(app: faust.App, offsets: Mapping[tuple[str, int], int]) -> None:
    """Tell Kafka how far the store is (next offset to read), for tools that show lag."""
    assigned = app.consumer.assignment()
    known = {TP(*tp): offset for tp, offset in offsets.items() if TP(*tp) in assigned}
    if known:
        await app.consumer._commit(known)  # noqa: SLF001  Faust's public commit counts acks


def high_water(app: faust.App, partition: tuple[str, int]) -> int | None:
    """The next offset to be written, as the last fetch told; None where this worker cannot know."""
    try:
        end: int | None = app.consumer.highwater(TP(*partition))
    except AssertionError:  # another thread may end the assignment at any moment
        return None
    return end


async def rewind(app: faust.App, position: Mapping[tuple[str, int], int]) -> None:
    """Read on from `position`; events already fetched beyond it still arrive first."""
    for (topic, partition), offset in position.items():
        await app.consumer.seek(TP(topic, partition), offset)


def run(app: faust.App) -> None:
    """Run the app until SIGINT or SIGTERM; returns when it has stopped."""
    worker = faust.Worker(app, loglevel=logging.WARNING, redirect_stdouts=False, quiet=True)
    worker.spinner = None  # it writes escape codes, to a log as well
    worker.execute_from_commandline()
