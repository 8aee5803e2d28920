"""The fetching of Faust's consumer; see `faust_consumer`."""

from __future__ import annotations

import asyncio
import functools
import inspect
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

from models.errors import Unreadable
from streams.kafka.connections.decoding import Fetched
from streams.kafka.consuming.assignment import ReadStart
from streams.retry_policy import failure_of

LOG = logging.getLogger(__name__)

FETCH_WAIT_MS = 250
"""Longest wait of a fetch at the broker, which ends it when a message arrives."""

RECONNECT_S = 0.5
"""Wait of a client that found no broker at its start, until it tries again."""


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


class FetchedRecord(NamedTuple):
    """A record of aiokafka's, and its place in its read; see `ReceivedMessage`."""

    record: Any
    read: int
    follows: int
    connection: int


@dataclass
class _Read:
    """One partition's current read, as the fetching sees it.

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


class _OnLoop:
    """Serves a service of Faust's, as its thread would, in a task of the agents' event loop."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; an error ends the app, as the service itself sees to."""
        self._task = asyncio.create_task(self._service._serve())  # noqa: SLF001
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    def stop(self) -> None:
        """Do nothing: the service has stopped by then."""


class Fetching(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Fetching, seeking and membership on the agents' event loop; Faust gives them a thread.

    With a thread of their own they take half as much again of a worker where messages come one by
    one: two threads hand the interpreter to each other some ten times a message.
    """

    def __init__(self, *args: Any, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(*args, loop=loop, thread_loop=loop, Worker=_OnLoop, **kwargs)
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

    async def call_thread(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of a call, which Faust would have its thread make."""
        found = call(*args, **kwargs)
        return await found if inspect.isawaitable(found) else found

    async def _gather_remaining_tasks(self) -> None:
        """Do nothing: Faust would cancel what is left on a thread's event loop, and this is all."""

    async def on_start(self) -> None:
        """Start, once a broker answers."""
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

    def begin(self, starts: Mapping[TP, ReadStart]) -> list[TP]:
        """Seek; returns the partitions whose reads have begun.

        The others are no longer assigned, or a later read of them has begun.
        """
        consumer, begun = self._ensure_consumer(), []
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
        found: Mapping[TP, Any] = await self._ensure_consumer().offsets_for_times(times_ms)
        return found

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        if not consumer._closed:  # noqa: SLF001
            self._isolate_partitions(consumer)
            _raise_end_of_fetching(consumer)
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

    def _numbered(self, tp: TP, records: Sequence[Any]) -> list[FetchedRecord]:
        read = self._reads.setdefault(tp, _Read(0, records[0].offset))
        connections = self.connections(tp) or 0
        numbered = []
        for record in records:
            # Where Kafka deleted the offset, reading has gone on at the oldest message.
            follows = min(read.following, record.offset) - 1
            numbered.append(FetchedRecord(record, read.number, follows, connections))
            read.following = record.offset + 1
        return numbered


def _raise_end_of_fetching(consumer: Any) -> None:
    """Raise the `KafkaError` by which aiokafka's fetching has ended, if it has.

    aiokafka tells nobody: the worker would hold its partitions, and read none of them any more.
    """
    fetching = consumer._fetcher.error_future  # noqa: SLF001
    if fetching.done():
        fetching.result()
