"""Faust's consumer with positions from outside; this and `fetching` know its internals.

The life of a message:

* Records are fetched on the agents' event loop (`fetching`). A fetch waits `FETCH_WAIT_MS` at the
  broker instead of Faust's fixed 1.5 s: a seek takes effect once the fetch under way has ended.
  Aborted transactions are not read, nor anything before their outcome is known: Faust does so only
  where it writes in transactions itself.
* A record that cannot be decoded stops its own partition; the others are read on.
* Each record gets the number of the read that fetched it, the offset it follows, and the number of
  connections to its broker. So an agent tells messages that it asked for after a rewind from those
  that were on their way before, and notices a broker that restarted without its last messages.
* It goes to the stream of its topic, at once where that has room. Nothing that is read again is
  dropped: that is for the agents to decide.
* After a rebalance reading starts at the positions that `load_positions` gives, the store's
  watermarks, rather than at committed offsets: the effects are in the store, so it knows which
  messages were applied. They are waited for as long as it takes.
* Faust also asks for the positions when a rebalance comes in the middle of a fetch, and an agent
  when a topic was made again; so it may do so twice at once. One after the other they take effect,
  and a seek that is behind a later one never does: messages would be read for an assignment that
  has ended, and the agents would wait for one that is never read.

See docs/decisions/0016-faust-internals.md.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any

from aiokafka.errors import IllegalStateError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from models.errors import Unreadable
from streams.kafka.consuming.assignment import Partition, ReadStart
from streams.kafka.faust_clients.fetching import FetchedRecord, Fetching

LOG = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
"""Longest wait for records before a look at whether to stop."""

AT_ONCE = 100
"""Messages that are handed over before anything else runs."""

EARLIEST = -2
"""Position of the oldest message that the broker still has."""

LoadPositions = Callable[[Mapping[Partition, int]], Awaitable[Mapping[Partition, ReadStart]]]
"""Start of the first read of each assigned partition, at an offset or `EARLIEST`.

Called on every assignment with the oldest offset of each partition; never twice at once. The reads'
numbers are drawn when the assignment takes effect: every read of the one before has a lower number.
"""


class _Message(ConsumerMessage):  # type: ignore[misc]
    """A message of Faust's with its place in its read; see `ReceivedMessage`."""

    __slots__ = ("connection", "follows", "read")


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

    def _new_consumer_thread(self) -> Fetching:
        return Fetching(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hand what is fetched to the streams, until this consumer or its fetcher is to stop.

        Faust makes five tasks for a message, which take a fifth of a worker's time where messages
        come one by one.
        """
        try:
            while not (self.should_stop or fetcher.should_stop):
                await asyncio.sleep(0)  # there may be records at once, again and again
                await self._hand_over_next()
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            # In the middle of a rebalance Faust would take its cancellation for a crash.
            if not self.app.should_stop:
                raise

    async def _hand_over_next(self) -> None:
        """Hand over what comes next; nothing of it once a rebalance has begun."""
        records, active = await self._wait_next_records(LOOK_AGAIN_S)
        generation = self.app.consumer_generation_id
        if self.should_stop or records is None:
            return
        if not self.flow_active:
            try:
                await self.perform_seek()
            except Exception as error:  # noqa: BLE001  the rebalance under way seeks again
                LOG.warning("no positions in the middle of a rebalance: %s", error)
            return
        for number, (tp, record) in enumerate(self._in_turn(records), start=1):
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                await self._hand_over(self._to_message(tp, record))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    def _in_turn(
        self, records: Mapping[TP, list[FetchedRecord]]
    ) -> Iterable[tuple[TP, FetchedRecord]]:
        """Records of all partitions by turns, those of each in order."""
        if len(records) == 1:
            ((tp, those),) = records.items()
            return ((tp, one) for one in those)
        turns: Iterable[tuple[TP, FetchedRecord]] = self.scheduler.iterate(records)
        return turns

    async def _hand_over(self, message: _Message) -> None:
        """Hand a message to its stream; gives up waiting for room there when a rebalance begins."""
        handing = self.callback(message)
        try:
            waits_for = handing.send(None)
        except StopIteration:
            return  # there was room
        rest = asyncio.create_task(_rest_of(handing, waits_for))
        await self.wait_first(rest, self.suspend_flow.wait())

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
        self._thread.begin(starts)
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
        begun = self._thread.begin(placed)
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

    def _to_message(self, tp: TP, fetched: FetchedRecord) -> _Message:
        record = fetched.record
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


async def _rest_of(begun: Coroutine[Any, Any, None], waits_for: Any) -> None:
    """The rest of a coroutine that has been run until it waited for something."""
    await _resumed(begun, waits_for)


@types.coroutine
def _resumed(begun: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    while True:
        try:
            resume = functools.partial(begun.send, (yield waits_for))
        except BaseException as error:  # noqa: BLE001  the coroutine's own matter, as all it awaits
            resume = functools.partial(begun.throw, error)
        try:
            waits_for = resume()
        except StopIteration:
            return
