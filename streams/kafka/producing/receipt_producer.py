"""A producer whose every call ends: with a receipt once Kafka has acknowledged it, or an error.

The life of a call:

* It is admitted if its bytes fit beside those under way, within `block_s`; else it ends with
  `Overloaded`. kafka-python bounds no memory.
* Its messages are sent, each to its topic and under its key. kafka-python's thread reports on them.
* Once all are acknowledged, Kafka is asked for the topics' incarnations. If these are the same as
  before the call, the messages were written to them, and the receipt may name their offsets.
* A call that has no answer a second after kafka-python's own deadline ends with `Unavailable`.
* A producer that cannot go on is replaced by another one, in a thread of its own, until closed.

Whichever of these threads ends a call claims it first, under the one lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from kafka import KafkaProducer
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    TopicAuthorizationFailedError,
)
from kafka.producer.future import RecordMetadata

from models.errors import RecommenderError, Unavailable
from models.settings import Settings
from models.tokens import Published, Receipt
from streams.kafka.connections.connection import (
    overloaded,
    start_producer,
    stop_producer,
    unavailable,
)
from streams.kafka.consuming.acknowledged import AcknowledgedOffsets
from streams.kafka.consuming.topic_incarnations import IncarnationLookup, TopicIncarnations
from streams.kafka.producing.deliveries import Delivery
from streams.kafka.producing.produce_errors import REFUSALS, classified
from streams.kafka.producing.produced_messages import ProducedMessage
from streams.kafka.topics import Topics

OVERDUE_S = 1.0
"""Time after its delivery timeout in which kafka-python may still report on a message."""

ONE_MESSAGE_ERRORS = (
    *REFUSALS,
    KafkaTimeoutError,
    RetriableError,
    TopicAuthorizationFailedError,
)
"""Failures that leave the producer usable."""

LOG = logging.getLogger(__name__)


class ReceiptProducer:
    """Produces messages, and gives a receipt for each call; safe to use from many threads.

    Parameters
    ----------
    linger_ms
        How long a message may wait for others to share a request.
    block_s
        How long a call may wait while `settings.publish_buffer_bytes` are under way.

    Raises
    ------
    Unavailable
        From the constructor, when Kafka does not answer in time or lacks the event topics.
    """

    def __init__(self, settings: Settings, *, linger_ms: int, block_s: float) -> None:
        self._settings = settings
        self._topics = Topics.of(settings)
        self._linger_ms = linger_ms
        self._block_s = block_s
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
        self._supervisor = threading.Thread(
            target=self._supervise, name="producer-supervisor", daemon=True
        )
        self._supervisor.start()

    def deliver(self, messages: Sequence[ProducedMessage]) -> Future[Receipt]:
        """The future receipt of messages, which are sent in this order; blocks up to `block_s`."""
        delivery = Delivery(messages, self._incarnations.known)
        if not messages:
            delivery.future.set_result(Receipt(()))
            return delivery.future
        producer = self._admit(delivery)
        if producer is not None:
            self._send(producer, delivery)
        return delivery.future

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
        self._supervisor.join()
        if self._acknowledged_ends is not None:
            self._acknowledged_ends.close()

    def _admit(self, delivery: Delivery) -> KafkaProducer | None:
        """The producer to send with, once there is room; None once the delivery has failed."""
        size = sum(message.size for message in delivery.messages)
        most = self._settings.publish_buffer_bytes
        with self._changed:
            has_room = self._changed.wait_for(
                # kafka-python itself has no bound.
                lambda: self._producer is None or not self._bytes or self._bytes + size <= most,
                timeout=self._block_s,
            )
            if has_room and self._producer is not None:
                # A second past kafka-python's own deadline: normally that one ends first.
                patience_s = self._settings.publish_timeout_s + OVERDUE_S
                delivery.deadline_s = time.monotonic() + patience_s
                self._under_way[delivery] = None
                self._bytes += size
                return self._producer
            is_gone = self._producer is None
        if is_gone:
            self._fail(delivery, unavailable(self._settings, KafkaError("not connected")))
        else:
            self._fail(delivery, overloaded(self._settings))
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
        """Settle an acknowledged delivery once Kafka has confirmed the topics' incarnations.

        Incarnations never return: if it is the same before and after a message was written, it is
        the one that it was written to. Nothing less could tell: topics may be deleted and made
        again at any moment, with the producer sending on.
        """
        asked = self._incarnations.ask(delivery.incarnations)
        asked.add_done_callback(partial(self._verified, delivery))

    def _verified(self, delivery: Delivery, asked: Future[TopicIncarnations]) -> None:
        """Called by the thread of the incarnation lookup."""
        if asked.exception() is not None:
            if self._closing.is_set():
                self._refuse(delivery, KafkaError("not connected"))
            elif not delivery.future.done():  # the supervisor ends it if Kafka stays away
                self._verify(delivery)
            return
        found, before = asked.result(), delivery.incarnations
        if any(found[kind] != before[kind] for kind in before):
            self._refuse(delivery, KafkaError("its topics were deleted and made again meanwhile"))
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
                LOG.debug("flush: %s", error)  # each delivery's future has its own outcome
        with self._changed:
            for delivery in list(self._under_way):
                while delivery in self._under_way:
                    self._changed.wait()

    def _supervise(self) -> None:
        """Fail overdue deliveries, and replace a producer that cannot go on, until closed.

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
                LOG.warning("trying again: %s", error)
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
