"""The Faust app, made by a function, never at import; the only file that knows Faust's inside.

What differs from a stock Faust app, and why:

* Every message says which read fetched it, what it follows in its partition, and whether the broker
  was connected to anew before it: only so can an agent that went back tell what it asked for from
  what was still on its way, and notice that a broker started again without its last messages.

* Reading starts at the positions the store gives (its watermarks), not at Kafka's committed
  offsets: effects live in the store, so the store knows what has been applied.
* Topics are read without Faust's acknowledgements: an exception inside an agent would
  acknowledge the event that caused it. Offsets are committed from the watermarks, for lag tools.
* What a sender's transaction has aborted is not read, nor anything before it is known whether it
  will be: Faust reads so only where it writes in transactions itself.
* A fetch waits 10 ms at the broker instead of Faust's fixed 1.5 s, which a broker that does not
  wake on new data turns into as much latency.
* The positions are waited for as long as it takes. Faust would read on without them after
  `broker_request_timeout`, at Kafka's committed offsets: nothing would take effect any more, in a
  process that looks well.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import faust
from aiokafka.client import ConnectionGroup
from aiokafka.errors import IllegalStateError, KafkaConnectionError, KafkaError
from aiokafka.structs import TopicPartition
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from models.errors import Unreadable
from models.settings import Settings
from streams.kafka.assignment import Partition, ReadStart, next_read
from streams.kafka.decoding import Fetched
from streams.kafka.unpacking import bound_unpacking

LOG = logging.getLogger(__name__)

FETCH_WAIT_MS = 10

RECONNECT_S = 0.5
"""How long a client that found no broker at its start waits before it tries again."""

MANY = 16
"""Messages in a batch from which on it pays to wait for more: they cost about as much as the step.
With fewer, waiting would only make the next batch late, and so just as large."""

EARLIEST = -2
"""Position meaning: from the oldest message the broker still has."""

LoadPositions = Callable[[Mapping[Partition, ReadStart]], Awaitable[Mapping[Partition, int]]]
"""Next offset to read of each partition assigned, or `EARLIEST`.

Called on every assignment with the oldest offset that each partition has, and the number of the
read that begins.
"""


class _Fetched(NamedTuple):
    """A record of aiokafka's with what `Arrival` says of it."""

    record: Any
    read: int
    follows: int
    connection: int


class _Message(ConsumerMessage):  # type: ignore[misc]
    __slots__ = ("connection", "follows", "read")


@dataclass
class _Read:
    """One partition as its consumer's thread reads it."""

    number: int
    following: int
    reached: int = 0
    connection: Any = None
    connections: int = 0


class _Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reads: dict[TP, _Read] = {}
        self._unreadable: dict[TP, Unreadable] = {}

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # No public setting reaches these.
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # noqa: SLF001
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        return consumer

    def unreadable(self) -> list[Unreadable]:
        """What cannot be decoded in partitions that are assigned, each stopped there."""
        assigned = self.assignment()
        return [error for tp, error in list(self._unreadable.items()) if tp in assigned]

    def _stop_at(self, consumer: Any, error: Unreadable) -> None:
        LOG.error("a partition stops: %s", error)
        self._unreadable[TP(error.topic, error.partition)] = error
        consumer.pause(TopicPartition(error.topic, error.partition))

    def _keep_apart(self, consumer: Any) -> None:
        """Have a partition that cannot be decoded stop alone."""
        fetcher = consumer._fetcher  # noqa: SLF001  no public way
        if not isinstance(fetcher._records, Fetched):  # noqa: SLF001

            def position(tp: Any) -> int:
                assignment = consumer._subscription.subscription.assignment  # noqa: SLF001
                return int(assignment.state_value(tp).position)

            stop = functools.partial(self._stop_at, consumer)
            fetcher._records = Fetched(fetcher._records, position, stop)  # noqa: SLF001

    async def on_start(self) -> None:
        await _connected(self, super().on_start)

    def is_current(self, tp: TP, number: int) -> bool:
        """Whether nothing was sought in a partition since this read of it began."""
        read = self._reads.get(tp)
        return read is not None and read.number == number

    def connections(self, tp: TP) -> int | None:
        """How often the partition's leader was connected to; None where nothing was read of it."""
        read = self._reads.get(tp)
        if read is None or self._consumer is None:
            return None
        client = self._consumer._client  # noqa: SLF001  nothing public tells of a new connection
        node = client.cluster.leader_for_partition(tp)
        connection = client._conns.get((node, ConnectionGroup.DEFAULT))  # noqa: SLF001
        if connection is not None and connection is not read.connection:
            read.connection = connection
            read.connections += 1
        return read.connections

    async def begin(self, starts: Mapping[TP, ReadStart]) -> list[TP]:
        """Seek, in the thread that fetches; gives the partitions that are still assigned."""
        begun: list[TP] = await self.call_thread(self._begin, self._ensure_consumer(), starts)
        return begun

    async def _begin(self, consumer: Any, starts: Mapping[TP, ReadStart]) -> list[TP]:
        begun = []
        for tp, start in starts.items():
            try:
                consumer.seek(tp, start.offset)
            except IllegalStateError:
                continue
            before = self._reads.get(tp)
            read = _Read(start.number, start.offset)
            if before is not None:
                read.connection, read.connections = before.connection, before.connections
            self._reads[tp] = read
            if self._unreadable.pop(tp, None) is not None:
                consumer.resume(TopicPartition(*tp))
            begun.append(tp)
        return begun

    def nothing_before(self, tp: TP, offset: int) -> int:
        """The first offset from this one on before which there may be a message to read.

        What is fetched in between was no message: markers, and what was aborted.
        """
        read = self._reads.get(tp)
        if read is None or read.following > offset or self._consumer is None:
            return offset
        return max(offset, read.reached)

    async def offsets_for_times(self, times_ms: Mapping[TP, int]) -> Mapping[TP, Any]:
        """The first offset and its time that is no older than this, of each partition."""
        found: Mapping[TP, Any] = await self.call_thread(
            self._ensure_consumer().offsets_for_times, times_ms
        )
        return found

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        if not consumer._closed:  # noqa: SLF001
            self._keep_apart(consumer)
        # No step of the loop lies between the taking of records and this, nor within a seek.
        fetched = await super()._fetch_records(consumer, *args, **kwargs)
        marked = {tp: self._marked(tp, records) for tp, records in fetched.items()}
        self._note_reached(consumer)
        return marked

    def _note_reached(self, consumer: Any) -> None:
        subscription = consumer._subscription.subscription  # noqa: SLF001  `position` would wait
        if subscription is None or subscription.assignment is None:
            return
        for tp, read in self._reads.items():
            state = subscription.assignment.state_value(TopicPartition(*tp))
            if state is not None and state.has_valid_position:
                read.reached = state.position

    def _marked(self, tp: TP, records: Sequence[Any]) -> list[_Fetched]:
        read = self._reads.setdefault(tp, _Read(0, records[0].offset))
        connections = self.connections(tp) or 0
        marked = []
        for record in records:
            # Behind an offset that is gone, reading has begun again at the oldest message.
            follows = min(read.following, record.offset) - 1
            marked.append(_Fetched(record, read.number, follows, connections))
            read.following = record.offset + 1
        return marked


class _Producer(driver.Producer):  # type: ignore[misc]
    async def on_start(self) -> None:
        await _connected(self, super().on_start)


async def _connected(service: Any, start: Callable[[], Awaitable[None]]) -> None:
    """Start a client of Kafka, again where no broker answers: one may just be starting itself."""
    while not service.should_stop:
        try:
            await start()
        except KafkaConnectionError as error:
            LOG.warning("Kafka is away, connecting again: %s", error)
            await asyncio.sleep(RECONNECT_S)
        else:
            return


class _NoReadOffsets(dict[TP, Any]):
    """Read offsets that Faust cannot compare with: it would drop what is read again after a seek.

    The agents know what follows what; see `streams.kafka.assignment.PartitionRead`.
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
            self.app.on_positions()
            return committed
        oldest = await self.earliest_offsets(*assigned)
        begin = {tp: ReadStart(oldest[tp], next_read()) for tp in assigned}
        loaded = await self.load_positions({(tp.topic, tp.partition): begin[tp] for tp in begin})
        starts = {
            tp: ReadStart(max(loaded[tp.topic, tp.partition], oldest), number)
            for tp, (oldest, number) in begin.items()
        }
        await self._thread.begin(starts)
        self.app.on_positions()
        return {tp: start.offset for tp, start in starts.items()}

    async def begin(self, starts: Mapping[Partition, ReadStart]) -> dict[Partition, int]:
        """Begin new reads of partitions, none before its oldest message; gives where each begins.

        Partitions that are no longer assigned are left out; raises `KafkaError`.
        """
        wanted = {TP(*partition): start for partition, start in starts.items()}
        oldest = await self.earliest_offsets(*wanted)
        placed = {
            tp: ReadStart(max(offset, oldest[tp]), number)
            for tp, (offset, number) in wanted.items()
        }
        begun = await self._thread.begin(placed)
        return {(tp.topic, tp.partition): placed[tp].offset for tp in begun}

    def connections(self, partition: Partition) -> int | None:
        """How often the partition's broker was connected to; None where that is not known."""
        known: int | None = self._thread.connections(TP(*partition))
        return known

    def nothing_before(self, partition: Partition, offset: int) -> int:
        """The first offset from this one on before which there may be a message to read."""
        reached: int = self._thread.nothing_before(TP(*partition), offset)
        return reached

    def unreadable(self) -> list[Unreadable]:
        """What cannot be decoded in partitions that are assigned, each stopped there."""
        found: list[Unreadable] = self._thread.unreadable()
        return found

    def is_current(self, message: _Message) -> bool:
        """Whether nothing was sought in its partition since the message was fetched."""
        return bool(self._thread.is_current(message.tp, message.read))

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int | None:
        """The first offset whose message is no older than this; raises `KafkaError`."""
        tp = TP(*partition)
        found = (await self._thread.offsets_for_times({tp: timestamp_ms}))[tp]
        return None if found is None else int(found.offset)

    def _to_message(self, tp: TP, record: Any) -> _Message:
        fetched, record = record, record.record
        message = _Message(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp / 1000.0,
            record.timestamp_type,
            record.headers,
            record.key,
            record.value,
            record.checksum,
            record.serialized_key_size,
            record.serialized_value_size,
            tp,
            generation_id=self.app.consumer_generation_id,
        )
        message.read, message.follows = fetched.read, fetched.follows
        message.connection = fetched.connection
        return message

    def highwater(self, tp: TP) -> int | None:
        try:
            end: int | None = super().highwater(tp)
        except (AssertionError, IllegalStateError):  # an assignment may end at any moment
            return None
        return end

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

    @staticmethod
    def on_positions() -> None:
        """Called whenever it is known where the assigned partitions are read on; nothing."""

    def _create_directories(self) -> None:
        """Nothing: Faust would make folders for tables, and there are none."""

    def _new_transport(self) -> Any:
        transport = super()._new_transport()
        transport.Producer = _Producer
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
    bound_unpacking(settings)
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

    What was fetched before the last seek in its partition is left out. An error that gets out of
    `handle` stops the whole app: Faust would start the agent again behind the batch that failed.
    """

    async def consume(stream: Any) -> None:
        try:
            async for batch in batches(stream, limit, wait_s):
                await handle([e for e in batch if app.consumer.is_current(e.message)])
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


async def commit(app: faust.App, offsets: Mapping[Partition, int]) -> None:
    """Tell Kafka how far the store is (next offset to read), for tools that show lag."""
    try:
        assigned = app.consumer.assignment()
        known = {TP(*tp): offset for tp, offset in offsets.items() if TP(*tp) in assigned}
        if known:
            await app.consumer._commit(known)  # noqa: SLF001  Faust's public commit counts acks
    except (IllegalStateError, KafkaError) as error:
        # A rebalance may take partitions away at any moment, and where to go on is not read here.
        LOG.debug("offsets were not committed: %r", error)


class AppLog:
    """Kafka's partitions as an app's consumer reads them: `assignment.Log` in part."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    async def seek(self, starts: Mapping[Partition, ReadStart]) -> Mapping[Partition, int]:
        """Begin new reads; gives the offset at which each begins."""
        try:
            begun: Mapping[Partition, int] = await self._app.consumer.begin(starts)
        except (IllegalStateError, KafkaError) as error:
            LOG.warning("Kafka is away, what is to be read again is asked for later: %r", error)
            return {}
        return begun

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int | None:
        """The first offset whose message is no older than this; None if there is none."""
        offset: int | None = await self._app.consumer.offset_at(partition, timestamp_ms)
        return offset

    def end(self, partition: Partition) -> int | None:
        """The next offset to be written, as the last fetch told; None where it is not known."""
        end: int | None = self._app.consumer.highwater(TP(*partition))
        return end

    def nothing_before(self, partition: Partition, offset: int) -> int:
        """The first offset from this one on before which there may be a message to read."""
        reached: int = self._app.consumer.nothing_before(partition, offset)
        return reached

    def connection(self, partition: Partition) -> int | None:
        """Grows when the partition's broker is connected to anew; None where that is not known."""
        known: int | None = self._app.consumer.connections(partition)
        return known

    def unreadable(self) -> list[Unreadable]:
        """What cannot be decoded, each in a partition that stops there alone."""
        try:
            found: list[Unreadable] = self._app.consumer.unreadable()
        except (AssertionError, IllegalStateError):  # an assignment may end at any moment
            return []
        return found

    async def reload(self) -> None:
        """Load the positions of all assigned partitions again, as at their assignment."""
        try:
            await self._app.consumer.perform_seek()
        except KafkaError as error:
            LOG.warning("Kafka is away, positions are loaded again later: %r", error)


def run(app: faust.App) -> None:
    """Run the app until SIGINT or SIGTERM; returns when it has stopped."""
    # The process has a log already: Faust would give it another format.
    worker = faust.Worker(app, override_logging=False, redirect_stdouts=False, quiet=True)
    worker.spinner = None  # it writes escape codes, to a log as well
    worker.execute_from_commandline()
