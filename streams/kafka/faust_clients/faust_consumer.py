"""Faust's consumer with positions from outside: the only file that knows its internals.

The life of a message:

* The consumer's thread fetches records. It waits `FETCH_WAIT_MS` at the broker instead of Faust's
  fixed 1.5 s: a seek takes effect once the fetch under way has ended. Aborted transactions are not
  read, nor anything before their outcome is known: Faust does so only where it writes in
  transactions itself.
* A record that cannot be decoded stops its own partition; the others are read on.
* Each record gets the number of the read that fetched it, the offset it follows, and the number of
  connections to its broker. So an agent tells messages that it asked for after a rewind from those
  that were on their way before, and notices a broker that restarted without its last messages.
* Faust hands it to the stream of its topic. It drops nothing that is read again: that is for the
  agents to decide.
* After a rebalance reading starts at the positions that `load_positions` gives, the store's
  watermarks, rather than at committed offsets: the effects are in the store, so it knows which
  messages were applied. They are waited for as long as it takes.
* Faust also asks for the positions when a rebalance comes in the middle of a fetch, and an agent
  when a topic was made again; so it may do so twice at once. One after the other they take effect,
  and a seek that is behind a later one never does: the thread would read for an assignment that
  has ended, and the agents would wait for one that is never read.

See docs/decisions/0016-faust-internals.md.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tenacity
from aiokafka.client import ConnectionGroup
from aiokafka.errors import IllegalStateError, KafkaConnectionError
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from models.errors import Unreadable
from streams.kafka.connections.decoding import Fetched
from streams.kafka.consuming.assignment import Partition, ReadStart
from streams.retry_policy import failure_of

LOG = logging.getLogger(__name__)

FETCH_WAIT_MS = 250
"""Longest wait of a fetch at the broker, which ends it when a message arrives."""

RECONNECT_S = 0.5
"""Wait of a client that found no broker at its start, until it tries again."""

EARLIEST = -2
"""Position of the oldest message that the broker still has."""

LoadPositions = Callable[[Mapping[Partition, int]], Awaitable[Mapping[Partition, ReadStart]]]
"""Start of the first read of each assigned partition, at an offset or `EARLIEST`.

Called on every assignment with the oldest offset of each partition; never twice at once. The reads'
numbers are drawn when the assignment takes effect: every read of the one before has a lower number.
"""


async def start_when_reachable(service: Any, start: Callable[[], Awaitable[None]]) -> None:
    """Start a client of Kafka, again while no broker answers: one may just be starting itself.

    Returns without having started it if the service is to stop.
    """

    async def attempt() -> None:
        if not service.should_stop:
            await start()

    def log_outage(state: tenacity.RetryCallState) -> None:
        LOG.warning("Kafka is away, connecting again: %s", failure_of(state))

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(KafkaConnectionError),
        wait=tenacity.wait_fixed(RECONNECT_S),
        before_sleep=log_outage,
    )
    await retrying(attempt)


class _Fetched(NamedTuple):
    """A record of aiokafka's, and its place in its read; see `ReceivedMessage`."""

    record: Any
    read: int
    follows: int
    connection: int


class _Message(ConsumerMessage):  # type: ignore[misc]
    """A message of Faust's with its place in its read; see `ReceivedMessage`."""

    __slots__ = ("connection", "follows", "read")


@dataclass
class _Read:
    """One partition's current read, as the consumer's thread sees it.

    Attributes
    ----------
    number
        Number of the read.
    following
        Offset behind the last fetched message.
    reached
        aiokafka's position: behind the last fetched record, be it a message or a marker.
    connection, connections
        Connection to the partition's leader, and number of connections so far.
    """

    number: int
    following: int
    reached: int = 0
    connection: Any = None
    connections: int = 0


class _Thread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread that fetches; all of the consumer's state is changed here."""

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
        """Unreadable messages at which assigned partitions have stopped."""
        assigned = self.assignment()
        return [error for tp, error in list(self._unreadable.items()) if tp in assigned]

    def _stop_at(self, consumer: Any, error: Unreadable) -> None:
        LOG.error("a partition stops: %s", error)
        self._unreadable[TP(error.topic, error.partition)] = error
        consumer.pause(TopicPartition(error.topic, error.partition))

    def _isolate_partitions(self, consumer: Any) -> None:
        """Have an unreadable message stop its own partition only."""
        fetcher = consumer._fetcher  # noqa: SLF001  no public way
        if not isinstance(fetcher._records, Fetched):  # noqa: SLF001

            def position(tp: Any) -> int:
                assignment = consumer._subscription.subscription.assignment  # noqa: SLF001
                return int(assignment.state_value(tp).position)

            stop = functools.partial(self._stop_at, consumer)
            fetcher._records = Fetched(fetcher._records, position, stop)  # noqa: SLF001

    async def on_start(self) -> None:
        await start_when_reachable(self, super().on_start)

    def is_current(self, tp: TP, number: int) -> bool:
        """True if there was no seek in a partition since this read of it began."""
        read = self._reads.get(tp)
        return read is not None and read.number == number

    def connections(self, tp: TP) -> int | None:
        """Number of connections to the partition's leader; None before the first read."""
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
        """Seek, in the thread that fetches; returns the partitions whose reads have begun.

        The others are no longer assigned, or a later read of them has begun.
        """
        begun: list[TP] = await self.call_thread(self._begin, self._ensure_consumer(), starts)
        return begun

    async def _begin(self, consumer: Any, starts: Mapping[TP, ReadStart]) -> list[TP]:
        begun = []
        for tp, start in starts.items():
            before = self._reads.get(tp)
            if before is not None and before.number > start.number:
                continue
            try:
                consumer.seek(tp, start.offset)
            except IllegalStateError:
                continue
            read = _Read(start.number, start.offset)
            if before is not None:
                read.connection, read.connections = before.connection, before.connections
            self._reads[tp] = read
            if self._unreadable.pop(tp, None) is not None:
                consumer.resume(TopicPartition(*tp))
            begun.append(tp)
        return begun

    def next_readable(self, tp: TP, offset: int) -> int:
        """First offset from this one on that may hold a message to read.

        Fetched records in between are none: transaction markers, and aborted messages.
        """
        read = self._reads.get(tp)
        if read is None or read.following > offset or self._consumer is None:
            return offset
        return max(offset, read.reached)

    async def offsets_for_times(self, times_ms: Mapping[TP, int]) -> Mapping[TP, Any]:
        """First offset, and its time, that is no older than this, of each partition."""
        found: Mapping[TP, Any] = await self.call_thread(
            self._ensure_consumer().offsets_for_times, times_ms
        )
        return found

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        if not consumer._closed:  # noqa: SLF001
            self._isolate_partitions(consumer)
        # The event loop runs nothing else between the fetch and this, nor within a seek.
        fetched = await super()._fetch_records(consumer, *args, **kwargs)
        numbered = {tp: self._numbered(tp, records) for tp, records in fetched.items()}
        self._note_reached(consumer)
        return numbered

    def _note_reached(self, consumer: Any) -> None:
        subscription = consumer._subscription.subscription  # noqa: SLF001  `position` would wait
        if subscription is None or subscription.assignment is None:
            return
        for tp, read in self._reads.items():
            state = subscription.assignment.state_value(TopicPartition(*tp))
            if state is not None and state.has_valid_position:
                read.reached = state.position

    def _numbered(self, tp: TP, records: Sequence[Any]) -> list[_Fetched]:
        read = self._reads.setdefault(tp, _Read(0, records[0].offset))
        connections = self.connections(tp) or 0
        numbered = []
        for record in records:
            # Where Kafka deleted the offset, reading has gone on at the oldest message.
            follows = min(read.following, record.offset) - 1
            numbered.append(_Fetched(record, read.number, follows, connections))
            read.following = record.offset + 1
        return numbered


class _NoReadOffsets(dict[TP, Any]):
    """No read offsets: Faust would drop messages that are read again after a seek.

    The agents check the order; see `streams.kafka.consuming.assignment.PartitionRead`.
    """

    def __getitem__(self, _: TP) -> None:
        return None


class PositionedConsumer(driver.Consumer):  # type: ignore[misc]
    """A consumer that reads from given positions, numbers its reads, and outlives bad messages."""

    load_positions: LoadPositions | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seeking = asyncio.Lock()
        if self.load_positions is not None:
            self._read_offset = _NoReadOffsets()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the given positions, or to committed offsets without `load_positions`."""
        async with self._seeking:
            started = await self._seek_to_loaded()
            self.app.on_positions()
            return started

    async def _seek_to_loaded(self) -> Mapping[TP, int]:
        assigned = set(self.assignment())
        if self.load_positions is None or not assigned:
            committed: Mapping[TP, int] = await super().seek_to_committed()
            return committed
        oldest = await self.earliest_offsets(*assigned)
        loaded = await self.load_positions({(tp.topic, tp.partition): oldest[tp] for tp in oldest})
        starts = {
            TP(*partition): ReadStart(max(offset, oldest[TP(*partition)]), number)
            for partition, (offset, number) in loaded.items()
        }
        await self._thread.begin(starts)
        return {tp: start.offset for tp, start in starts.items()}

    async def begin(self, starts: Mapping[Partition, ReadStart]) -> dict[Partition, int]:
        """Begin new reads, none before its partition's oldest message; returns their first offsets.

        Partitions that are no longer assigned, or have a later read, are left out; raises
        `KafkaError`.
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
        """Number of connections to the partition's broker; None if unknown."""
        known: int | None = self._thread.connections(TP(*partition))
        return known

    def next_readable(self, partition: Partition, offset: int) -> int:
        """First offset from this one on that may hold a message to read."""
        reached: int = self._thread.next_readable(TP(*partition), offset)
        return reached

    def unreadable(self) -> list[Unreadable]:
        """Unreadable messages at which assigned partitions have stopped."""
        found: list[Unreadable] = self._thread.unreadable()
        return found

    def is_current(self, message: _Message) -> bool:
        """True if there was no seek in its partition since the message was fetched."""
        return bool(self._thread.is_current(message.tp, message.read))

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int | None:
        """First offset whose message is no older than this; raises `KafkaError`."""
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
        """Next offset to be written, as of the last fetch; None if unknown."""
        try:
            end: int | None = super().highwater(tp)
        except (AssertionError, IllegalStateError):  # an assignment may end at any moment
            return None
        return end

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: Faust would report topics without its own acknowledgements as stuck."""
