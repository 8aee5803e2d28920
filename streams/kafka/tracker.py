"""The convenient way to send events and metadata: validated, in order, acknowledged.

Any Kafka client may produce to the event topics; this one adds the schema, the split by topic and
a receipt. An acknowledged event is on every in-sync replica.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, Self

import msgspec
from kafka import KafkaProducer
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    TopicAuthorizationFailedError,
)
from kafka.producer.future import RecordMetadata

from models.errors import InvalidEvent, Overloaded, RecommenderError, Unavailable
from models.events import MAX_MESSAGE_BYTES, Erasure, Event, PutEvents, encode, parse
from models.metadata_records import (
    MetadataRecord,
    Properties,
    RecordKind,
    encode_record,
    validate_properties,
)
from models.running_servers import located
from models.settings import Settings
from models.tokens import Published, Receipt, TopicKind
from streams.kafka.acknowledged import AcknowledgedOffsets
from streams.kafka.connection import start_producer, stop_producer, unavailable
from streams.kafka.deliveries import Delivery, ProducedMessage
from streams.kafka.produce_errors import REFUSALS, classified
from streams.kafka.topic_incarnations import IncarnationLookup, TopicIncarnations
from streams.kafka.topics import Topics

OVERDUE_S = 1.0
"""How long after its delivery timeout kafka-python may still report on a message."""

ONE_MESSAGE_ERRORS = (
    *REFUSALS,
    KafkaTimeoutError,
    RetriableError,
    TopicAuthorizationFailedError,
)
"""Failures that leave the producer usable."""

log = logging.getLogger(__name__)


class Tracker:
    """Sends events and metadata to their topics; safe to use from many threads.

    Every sending call returns a `concurrent.futures.Future` of a `Receipt`. It is done when Kafka
    has acknowledged all of the call's events, or has `Unavailable` as its exception: by
    `settings.publish_timeout_s` and little more. After a failure an event may still arrive; sending
    it again with the same eventId takes effect once. `MessageRefused` instead says that Kafka never
    will, for a topic takes only shorter messages. From asyncio: `asyncio.wrap_future`.

    Parameters
    ----------
    settings
        `kafka` names the servers. When not given: what the environment says and, where that names
        no server, those of the `recommender up` or `demo` that runs in this folder.
    linger_ms
        How long a message may wait for others to share a request; more is faster in bulk.
    block_s
        How long a call may wait while `settings.publish_buffer_bytes` are under way before it
        gives up with `Overloaded`; `settings.publish_timeout_s` when not given. Say 0 on an event
        loop.
    now_s
        The clock that stamps `acceptedAt` and a missing `sentAt`.

    Raises
    ------
    Unavailable
        From the constructor, when Kafka does not answer in time or lacks the event topics.

    Examples
    --------
    In the folder of a running `recommender up`::

        with Tracker() as tracker:
            tracker.track("u7", "s42", "i9", "click").result().token()  # 'c0-0'
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        linger_ms: int = 0,
        block_s: float | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        if settings is None:
            settings = located(Settings(), needs_redis=False)
        self._settings = settings
        self._topics = Topics.of(settings)
        self._linger_ms = linger_ms
        self._block_s = settings.publish_timeout_s if block_s is None else block_s
        self._now_s = now_s
        # Seeded by the system once: asking it for every event costs more than the event.
        self._random = random.Random()
        self._changed = threading.Condition()
        self._under_way: dict[Delivery, None] = {}
        self._bytes = 0
        self._lost = 0
        self._attention = threading.Event()
        self._closing = threading.Event()
        self._producer: KafkaProducer | None = self._start_producer(settings.publish_timeout_s)
        try:
            self._incarnations = IncarnationLookup(settings, self._topics.of_tokens)
        except Unavailable:
            stop_producer(self._producer)
            raise
        self._acknowledged_ends = AcknowledgedOffsets.of(settings)
        self._keeper = threading.Thread(target=self._keep, name="tracker-keeper", daemon=True)
        self._keeper.start()

    def track(
        self,
        user_id: str | None,
        session_id: str,
        item_id: str | None,
        event_type: str,
        *,
        event_id: str | None = None,
        sent_at: float | None = None,
        value: float | None = None,
        properties: Mapping[str, Any] | None = None,
        impression: Sequence[str] | None = None,
        recommendation_id: str | None = None,
    ) -> Future[Receipt]:
        """The future receipt of one event; see `Tracker` for how it ends.

        Parameters
        ----------
        event_id
            Two events with one id are one event; a new id when not given.
        sent_at
            When it happened, seconds since the epoch; now when not given.

        Raises
        ------
        InvalidEvent
            At once, naming the member that breaks the schema.
        """
        event = Event(
            event_type=event_type,
            sent_at=self._now_s() if sent_at is None else sent_at,
            event_id=f"{self._random.getrandbits(128):032x}" if event_id is None else event_id,
            item_id=item_id,
            event_value=value,
            impression=None if impression is None else list(impression),
            recommendation_id=recommendation_id,
            properties=None if properties is None else dict(properties),
        )
        return self.put_events(PutEvents(session_id, [event], user_id=user_id))

    def put_events(self, message: PutEvents | Mapping[str, Any] | bytes) -> Future[Receipt]:
        """The future receipt of one to ten events of a session; see `Tracker` for how it ends.

        Purchases and the rest go to topics of their own, each keyed by the session, so that each
        stays in order. A missing `trackingId` is the settings'; `acceptedAt` is now.

        Raises
        ------
        InvalidEvent
            At once, naming the member that breaks the schema.
        """
        now_s = self._now_s()
        raw = message if isinstance(message, bytes) else _as_json(message)
        valid = parse(raw, now_s=now_s, future_limit_s=self._settings.future_limit_s)
        valid = msgspec.structs.replace(
            valid,
            accepted_at=now_s,
            tracking_id=valid.tracking_id or self._settings.tracking_id,
        )
        return self._deliver(self._split(valid))

    def put_items(
        self, group: str, records: Iterable[tuple[str, Properties | None]]
    ) -> Future[Receipt]:
        """The future receipt of what is known of items from now on; see `Tracker` for how it ends.

        Each record takes the place of what was known of its item; None removes that.

        Raises
        ------
        InvalidRecord
            At once, naming the record that breaks a rule; then none is sent.
        """
        return self._put_records("items", group, records)

    def put_users(
        self, group: str, records: Iterable[tuple[str, Properties | None]]
    ) -> Future[Receipt]:
        """The future receipt of what is known of users from now on; as `put_items`."""
        return self._put_records("users", group, records)

    def erase(self, group: str, user_ids: Iterable[str]) -> Future[Receipt]:
        """The future receipt of the erasure of users from a group; see `Tracker` for how it ends.

        What was sent or accepted until now goes, and is dropped where it comes later; so does what
        is known of them. Erasing again, or somebody unknown, is harmless.

        Raises
        ------
        InvalidRecord
            At once, naming the user that breaks a rule; then nobody is erased.
        """
        at, messages = self._now_s(), []
        for user_id in user_ids:
            validate_properties("users", user_id, {})
            # Kafka keeps the newest record of everybody: without this one, it would come back.
            key, _ = encode_record("users", MetadataRecord(group, user_id, None, at))
            messages.append(ProducedMessage("users", self._topics.users, key, None))
            value = encode(Erasure(group, user_id, at))
            messages.append(ProducedMessage("clicks", self._topics.clicks, user_id.encode(), value))
        return self._deliver(messages)

    def _put_records(
        self, kind: RecordKind, group: str, records: Iterable[tuple[str, Properties | None]]
    ) -> Future[Receipt]:
        at, topic = self._now_s(), getattr(self._topics, kind)
        messages = []
        for name, properties in records:
            valid = validate_properties(kind, name, properties or {})
            record = MetadataRecord(group, name, None if properties is None else valid, at)
            key, value = encode_record(kind, record)
            messages.append(ProducedMessage(kind, topic, key, value or None))
        return self._deliver(messages)

    def _deliver(self, messages: Sequence[ProducedMessage]) -> Future[Receipt]:
        delivery = Delivery(messages, self._incarnations.known)
        if not messages:
            delivery.future.set_result(Receipt(()))
            return delivery.future
        producer = self._admit(delivery)
        if producer is not None:
            self._send(producer, delivery)
        return delivery.future

    def incarnations(self) -> Future[TopicIncarnations]:
        """What Kafka says now of the topics: `<cluster id>/<topic id>` by kind.

        Ends with `Unavailable` when Kafka does not answer in time or lacks one of them.
        """
        return self._incarnations.ask()

    def flush(self) -> None:
        """Wait until everything sent so far has been acknowledged or given up.

        Raises
        ------
        Unavailable
            When an event sent since the last flush was not acknowledged.
        """
        self._settle()
        with self._changed:
            lost, self._lost = self._lost, 0
        if lost:
            raise Unavailable(
                f"Kafka at {self._settings.kafka} did not acknowledge {lost} of the calls since "
                "the last flush: send them again, with the same eventIds"
            )

    def close(self) -> None:
        """Wait as `flush` does, without its error, then disconnect; calls after it fail."""
        self._settle()
        with self._changed:
            self._closing.set()
            producer, self._producer = self._producer, None
        self._attention.set()
        self._incarnations.close()
        if producer is not None:
            stop_producer(producer)
        self._keeper.join()
        if self._acknowledged_ends is not None:
            self._acknowledged_ends.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self.close()

    def _split(self, message: PutEvents) -> list[ProducedMessage]:
        """The message's events by topic, in order, encoded."""
        by_kind: dict[TopicKind, list[Event]] = {}
        for event in message.event_list:
            is_purchase = event.event_type.lower() in self._settings.purchase_types
            by_kind.setdefault("purchases" if is_purchase else "clicks", []).append(event)
        messages: list[ProducedMessage] = []
        for kind, events in by_kind.items():
            value = encode(msgspec.structs.replace(message, event_list=events))
            if len(value) > MAX_MESSAGE_BYTES:
                raise InvalidEvent(
                    f"message of {len(value)} bytes is over the limit of {MAX_MESSAGE_BYTES}"
                )
            key = message.session_id.encode()
            messages.append(ProducedMessage(kind, getattr(self._topics, kind), key, value))
        return messages

    def _admit(self, delivery: Delivery) -> KafkaProducer | None:
        """The producer to send with, once there is room; without either the delivery has failed."""
        size = sum(message.size for message in delivery.messages)
        most = self._settings.publish_buffer_bytes
        with self._changed:
            has_room = self._changed.wait_for(
                # kafka-python itself sets no bound.
                lambda: self._producer is None or not self._bytes or self._bytes + size <= most,
                timeout=self._block_s,
            )
            if has_room and self._producer is not None:
                # A second past kafka-python's own deadline: normally it is the first to give up.
                patience_s = self._settings.publish_timeout_s + OVERDUE_S
                delivery.deadline_s = time.monotonic() + patience_s
                self._under_way[delivery] = None
                self._bytes += size
                return self._producer
            is_gone = self._producer is None
        if is_gone:
            self._fail(delivery, unavailable(self._settings, KafkaError("not connected")))
        else:
            text = f"{most} bytes wait for Kafka at {self._settings.kafka}: try again in a second"
            self._fail(delivery, Overloaded(text))
        return None

    def _send(self, producer: KafkaProducer, delivery: Delivery) -> None:
        for n, message in enumerate(delivery.messages):
            refused = partial(self._refused, producer, delivery, n)
            try:
                sent = producer.send(message.topic, value=message.value, key=message.key)
            except (KafkaError, ValueError) as error:
                refused(error)
            else:
                sent.add_callback(partial(self._acknowledged, delivery, n))
                sent.add_errback(refused)

    def _acknowledged(self, delivery: Delivery, n: int, metadata: RecordMetadata) -> None:
        """Called by the producer's thread."""
        message = delivery.messages[n]
        with self._changed:
            self._bytes -= message.size
            delivery.published[n] = Published(
                message.topic, metadata.partition, metadata.offset, message.kind
            )
            is_whole = len(delivery.published) == len(delivery.messages)
        if is_whole:
            self._verify(delivery)

    def _verify(self, delivery: Delivery) -> None:
        """Settle an acknowledged delivery once Kafka has said again which topics it has.

        Incarnations never come back: the one that was there before and after a message was
        written is the one that it was written to. Nothing less could tell: the topics may be made
        anew at any moment, with the producer sending on.
        """
        asked = self._incarnations.ask(delivery.incarnations)
        asked.add_done_callback(partial(self._verified, delivery))

    def _verified(self, delivery: Delivery, asked: Future[TopicIncarnations]) -> None:
        """Called by the thread of the incarnations."""
        if asked.exception() is not None:
            if self._closing.is_set():
                self._refuse(delivery, KafkaError("not connected"))
            elif not delivery.future.done():  # it is given up in time where Kafka stays away
                self._verify(delivery)
            return
        found, before = asked.result(), delivery.incarnations
        if any(found[kind] != before[kind] for kind in before):
            self._refuse(delivery, KafkaError("its topics were made anew meanwhile"))
            return
        with self._changed:
            is_due = delivery.claim()
        if is_due:
            published = (
                delivery.published[n]._replace(incarnation=before[message.kind])
                for n, message in enumerate(delivery.messages)
            )
            receipt = Receipt(tuple(published))
            if self._acknowledged_ends is not None:
                self._acknowledged_ends.note(receipt)
            delivery.future.set_result(receipt)
            self._forget(delivery, lost=0)

    def _refuse(self, delivery: Delivery, error: Exception) -> None:
        with self._changed:
            is_due = delivery.claim()
        if is_due:
            self._fail(delivery, self._failure(error))

    def _refused(
        self, producer: KafkaProducer, delivery: Delivery, n: int, error: Exception
    ) -> None:
        """Called by the producer's thread."""
        with self._changed:
            self._bytes -= delivery.messages[n].size
            is_due = delivery.claim()
            is_broken = producer is self._producer and not isinstance(error, ONE_MESSAGE_ERRORS)
        if is_due:
            self._fail(delivery, self._failure(error))
        if is_broken:
            self._attention.set()

    def _failure(self, error: Exception) -> RecommenderError:
        refused = classified(error) if isinstance(error, REFUSALS) else None
        failure = refused or unavailable(self._settings, error)
        failure.__cause__ = error
        return failure

    def _fail(self, delivery: Delivery, failure: RecommenderError) -> None:
        delivery.future.set_exception(failure)
        self._forget(delivery, lost=1)

    def _forget(self, delivery: Delivery, *, lost: int) -> None:
        with self._changed:
            self._under_way.pop(delivery, None)
            self._lost += lost
            self._changed.notify_all()

    def _settle(self) -> None:
        with self._changed:
            producer = self._producer
        if producer is not None:
            try:
                producer.flush(self._settings.publish_timeout_s + OVERDUE_S)
            except KafkaError as error:
                log.debug("flush: %s", error)  # each delivery's future tells its own outcome
        with self._changed:
            for delivery in list(self._under_way):
                while delivery in self._under_way:
                    self._changed.wait()

    def _keep(self) -> None:
        """Fail what is overdue, and replace a producer that cannot go on, until closed.

        kafka-python's sender neither expires nor sends anything while it asks an absent Kafka for
        a producer id, and never recovers from a refusal of that id.
        """
        while not self._closing.is_set():
            is_broken = self._attention.wait(OVERDUE_S / 4)
            self._attention.clear()
            if self._fail_overdue() or is_broken:
                self._replace_producer()

    def _fail_overdue(self) -> bool:
        now_s = time.monotonic()
        overdue = []
        with self._changed:
            for delivery in self._under_way:
                if delivery.deadline_s > now_s:
                    break
                if delivery.claim():
                    overdue.append(delivery)
        for delivery in overdue:
            self._fail(delivery, self._failure(KafkaTimeoutError("no answer in time")))
        return bool(overdue)

    def _replace_producer(self) -> None:
        with self._changed:
            producer, self._producer = self._producer, None
            self._changed.notify_all()
        if producer is not None:
            stop_producer(producer)
        while not self._closing.is_set():
            self._fail_overdue()
            try:
                started = self._start_producer(min(1.0, self._settings.publish_timeout_s))
            except Unavailable as error:
                log.warning("trying again: %s", error)
                self._closing.wait(OVERDUE_S / 4)
                continue
            with self._changed:
                if not self._closing.is_set():
                    self._producer = started
                    return
            stop_producer(started)

    def _start_producer(self, timeout_s: float) -> KafkaProducer:
        names = self._topics.of_tokens.values()
        return start_producer(self._settings, names, linger_ms=self._linger_ms, timeout_s=timeout_s)


def _as_json(message: PutEvents | Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(message if isinstance(message, PutEvents) else dict(message))
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidEvent(f"cannot be written as JSON: {error}") from error
