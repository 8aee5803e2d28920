"""The API's producer: events and metadata sent from one event loop, connected in the background.

aiokafka's producer costs a third of kafka-python's CPU at single messages, for it needs no thread
(docs/decisions/0019). Like `Tracker`'s, a call ends with a token once Kafka has acknowledged all of
it, or with an error.

It is not idempotent in Kafka's sense, for then aiokafka would never give a message up. A message
that is sent again after a lost acknowledgement may so stand in its topic twice. Every event has an
id and takes effect once, and a record that stands there twice says the same. Order stays: there is
one request at a time to a partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError
from aiokafka.structs import RecordMetadata

from models.audit_entries import AuditEntry
from models.errors import MessageRefused, RecommenderError, Unavailable
from models.events import Erasure, PutEvents
from models.metadata_records import Properties, RecordKind
from models.settings import Settings
from models.tokens import Published, Receipt
from models.traces import traces_of
from streams.kafka.audit_log import AuditLog, newest_entries
from streams.kafka.connections.connection import (
    missing_topics,
    overloaded,
    start_async_producer,
    unavailable,
)
from streams.kafka.consuming.acknowledged import AcknowledgedOffsets
from streams.kafka.consuming.topic_incarnations import IncarnationLookup, TopicIncarnations
from streams.kafka.producing.produce_errors import classified
from streams.kafka.producing.produced_messages import (
    ProducedMessage,
    erasure_messages,
    event_messages,
    record_messages,
)
from streams.kafka.topics import Topics

FRESH_S = 5.0
"""Time for which calls fail at once with the reason of the last failed attempt to connect."""

OVERDUE_S = 1.0
"""Time after its time limit in which aiokafka may still report on a message."""

VERIFIED_S = 1.0
"""Longest age of the topics' incarnations when a message is sent."""

PATIENCE_S = 0.2
"""Wait for Kafka's answer about them, before a message is sent without."""

TracedSending = Callable[
    [AIOKafkaProducer, ProducedMessage], Awaitable[asyncio.Future[RecordMetadata]]
]


class Publisher:
    """Sends to Kafka for the tasks of one event loop; Kafka may be away at the start.

    There is one attempt to connect at a time, for all calls. The first calls wait for its outcome;
    for `FRESH_S` after it has failed, calls fail at once for the same reason, while the next
    attempt runs in the background.

    A token names its topics' incarnations as Kafka told them up to `VERIFIED_S` before its messages
    were sent, or the same before and after. A topic that was deleted and made again within that
    time shows when its offsets begin again; what was sent to it then ends with `Unavailable`.

    Parameters
    ----------
    now_s
        The clock that stamps `acceptedAt`.
    """

    def __init__(self, settings: Settings, *, now_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._topics = Topics.of(settings)
        self._now_s = now_s
        self._audit_log = AuditLog(settings)
        self._send_traced = _traced_sending(settings)
        self._connection: _Connection | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._failure: Unavailable | None = None
        self._failed_s = 0.0
        self._bytes = 0

    async def publish(self, message: PutEvents | Erasure) -> str:
        """Token of a parsed message, or of a user's erasure, once Kafka has acknowledged it.

        Raises
        ------
        InvalidEvent
            It is too long.
        MessageRefused
            Kafka never accepts it, for a topic takes only shorter messages.
        Unavailable
            Kafka did not acknowledge it in time; `Overloaded` if too many bytes wait for that.
        """
        at_s = self._now_s()
        if isinstance(message, Erasure):
            users = [message.user_id]
            return await self._send(erasure_messages(message.erase, users, self._topics, at_s=at_s))
        return await self._send(event_messages(message, self._settings, at_s=at_s))

    async def put(
        self, kind: RecordKind, group: str, records: Sequence[tuple[str, Properties | None]]
    ) -> str:
        """Token of metadata records, once Kafka has acknowledged them; raises as `publish` does."""
        at_s = self._now_s()
        return await self._send(record_messages(kind, group, records, self._topics, at_s=at_s))

    async def put_served(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Send keys and values of served lists; returns when Kafka has acknowledged all.

        Raises as `publish` does. They have no token: nobody waits for them.
        """
        opened = await self._opened()
        size = sum(len(key) + len(value) for key, value in messages)
        if self._bytes and self._bytes + size > self._settings.publish_buffer_bytes:
            raise overloaded(self._settings)
        self._bytes += size
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s + OVERDUE_S):
                topic = self._topics.served
                await opened.see_topic(topic)
                sent = [await opened.producer.send(topic, value, key) for key, value in messages]
                # Not by awaiting them: a caller that gives up would cancel aiokafka's futures.
                await asyncio.wait(sent)
                for one in sent:
                    one.result()
        except (KafkaError, TimeoutError, ValueError) as error:
            raise self._failed(opened, error) from error
        finally:
            self._bytes -= size

    async def audit(self, entry: AuditEntry) -> None:
        """Write an entry of the audit log; raises `Unavailable` as `publish` does."""
        await asyncio.to_thread(self._audit_log.write, entry)

    async def audit_entries(self, n: int) -> list[AuditEntry]:
        """The newest entries of the audit log, n at most, oldest first; raises `Unavailable`."""
        return await asyncio.to_thread(newest_entries, self._settings, n)

    async def incarnations(self) -> TopicIncarnations:
        """Current incarnation of each topic, by kind."""
        return await asyncio.wrap_future((await self._opened()).lookup.ask())

    async def missing(self) -> list[str]:
        """Reasons why nothing can be sent, in words; empty if Kafka answers."""
        try:
            await self.incarnations()
        except Unavailable as error:
            return [f"kafka: {error}"]
        return []

    async def close(self) -> None:
        """Disconnect, once each message under way is acknowledged or given up."""
        if self._opening is not None:
            await asyncio.wait([self._opening])
        self._disconnect()
        if self._closing:
            await asyncio.wait(self._closing)
        await asyncio.to_thread(self._audit_log.close)

    async def _send(self, messages: Sequence[ProducedMessage]) -> str:
        """Token of messages, which are sent in this order; raises as `publish` does."""
        opened = await self._opened()
        unsent, most = [message.size for message in messages], self._settings.publish_buffer_bytes
        if self._bytes and self._bytes + sum(unsent) > most:
            raise overloaded(self._settings)
        self._bytes += sum(unsent)
        try:
            async with asyncio.timeout(self._settings.publish_timeout_s + OVERDUE_S):
                is_sure = await opened.look_up_incarnations()
                known, n_restarts = opened.lookup.known, opened.n_restarts
                acknowledged = await self._acknowledged(opened, messages, unsent)
                if not is_sure or opened.n_restarts != n_restarts:
                    found = await opened.answered_incarnations()
                    if any(found[message.kind] != known[message.kind] for message in messages):
                        reason = "its topics were deleted and made again meanwhile"
                        raise unavailable(self._settings, reason)
        except (KafkaError, TimeoutError, ValueError) as error:
            raise self._failed(opened, error) from error
        finally:
            self._bytes -= sum(unsent)
        receipt = Receipt(
            tuple(
                Published(one.topic, sent.partition, sent.offset, one.kind, known[one.kind])
                for one, sent in zip(messages, acknowledged, strict=True)
            )
        )
        if opened.acknowledged_ends is not None:
            opened.acknowledged_ends.note(receipt)
        return receipt.token()

    async def _acknowledged(
        self, opened: _Connection, messages: Sequence[ProducedMessage], unsent: list[int]
    ) -> list[RecordMetadata]:
        """Kafka's acknowledgement of each message, once it has acknowledged all.

        The size of each message is taken from the front of `unsent` when it is sent: from then on
        its bytes are free only when Kafka has answered, whatever its caller does.
        """
        all_done = asyncio.get_running_loop().create_future()
        sent: list[asyncio.Future[RecordMetadata]] = []

        def ended(size: int, one: asyncio.Future[RecordMetadata]) -> None:
            self._bytes -= size
            if not one.cancelled() and one.exception() is None:
                opened.note(one.result())
            is_last = len(sent) == len(messages) and all(each.done() for each in sent)
            if is_last and not all_done.done():
                all_done.set_result(None)

        for message in messages:
            await opened.see_topic(message.topic)
            if self._send_traced is None:
                one = await opened.producer.send(message.topic, message.value, message.key)
            else:
                one = await self._send_traced(opened.producer, message)
            sent.append(one)
            one.add_done_callback(partial(ended, unsent.pop(0)))
        # Not the futures of aiokafka themselves: a caller that gives up would cancel them.
        await all_done
        return [each.result() for each in sent]

    def _failed(self, opened: _Connection, error: Exception) -> RecommenderError:
        """The error of a call; a producer that cannot go on is replaced by another one."""
        explained = classified(error)
        if isinstance(explained, MessageRefused):
            return explained
        is_passing = explained is not None or isinstance(error, TopicAuthorizationFailedError)
        if not is_passing and opened is self._connection:
            self._disconnect()
        if isinstance(error, TimeoutError):
            error = KafkaTimeoutError("no answer in time")
        return unavailable(self._settings, error)

    async def _opened(self) -> _Connection:
        if self._connection is None:
            failure = self._failure if time.monotonic() - self._failed_s < FRESH_S else None
            if self._opening is None:
                self._opening = asyncio.create_task(self._open())
            if failure is not None:
                raise failure
            # A caller may be cancelled; the attempt goes on for the others.
            await asyncio.shield(self._opening)
        connection, failure = self._connection, self._failure
        if connection is None:
            raise failure or Unavailable("Kafka is not connected: try again")
        return connection

    async def _open(self) -> None:
        try:
            self._connection = await _connected(self._settings, self._topics)
        except Unavailable as error:
            self._failure, self._failed_s = error, time.monotonic()
        finally:
            self._opening = None

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            task = asyncio.create_task(connection.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


class _Connection:
    """A started producer, and what belongs to its connection.

    Attributes
    ----------
    n_restarts
        How often an offset was not beyond the one before: its topic may have been made again.
    """

    def __init__(
        self, settings: Settings, producer: AIOKafkaProducer, lookup: IncarnationLookup
    ) -> None:
        self._settings = settings
        self.producer = producer
        self.lookup = lookup
        self.acknowledged_ends = AcknowledgedOffsets.of(settings)
        self.n_restarts = 0
        self._newest: dict[tuple[str, int], int] = {}

    async def look_up_incarnations(self) -> bool:
        """True if `lookup.known` is what Kafka told within `VERIFIED_S`; asks if it is older.

        False if Kafka does not answer soon: messages may wait for it all the same.
        """
        age_s = time.monotonic() - self.lookup.asked_s
        if age_s <= VERIFIED_S / 2:
            return True
        asked = self.lookup.ask()
        if age_s <= VERIFIED_S:
            return True  # asked in good time, so that no later call waits
        with contextlib.suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.wrap_future(asked)
            return True
        return False

    async def answered_incarnations(self) -> TopicIncarnations:
        """The topics' incarnations, once Kafka answers; for callers that have a time limit."""
        while True:
            with contextlib.suppress(Unavailable):
                return await asyncio.wrap_future(self.lookup.ask())

    async def see_topic(self, topic: str) -> None:
        """Raise `Unavailable` if Kafka has no such topic.

        aiokafka's own question about an unknown topic would let Kafka make it.
        """
        client = self.producer.client
        if not client.cluster.partitions_for_topic(topic):
            await client.force_metadata_update()
            if not client.cluster.partitions_for_topic(topic):
                raise missing_topics(self._settings, [topic])

    def note(self, sent: RecordMetadata) -> None:
        """Take note of an acknowledged message, in the order of acknowledgements."""
        place = sent.topic, sent.partition
        self.n_restarts += sent.offset <= self._newest.get(place, -1)
        self._newest[place] = sent.offset

    async def close(self) -> None:
        """Disconnect, once each message under way is acknowledged or given up."""
        await self.producer.stop()
        await asyncio.to_thread(self.lookup.close)
        if self.acknowledged_ends is not None:
            self.acknowledged_ends.close()


async def _connected(settings: Settings, topics: Topics) -> _Connection:
    """A connection that knows the topics; raises `Unavailable`."""
    # The first to connect, for it explains why it cannot.
    lookup = await asyncio.to_thread(IncarnationLookup, settings, topics.of_tokens, polls=False)
    try:
        producer = await start_async_producer(settings)
    except Unavailable:
        await asyncio.to_thread(lookup.close)
        raise
    return _Connection(settings, producer, lookup)


def _traced_sending(settings: Settings) -> TracedSending | None:
    """Sends a message with a span; None without traces."""
    traces = traces_of(settings, "api")
    if traces is None:
        return None
    from streams.kafka.producing.sent_spans import send_traced  # noqa: PLC0415  it loads an extra

    return partial(send_traced, traces)
