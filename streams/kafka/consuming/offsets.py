"""Ends of partitions, the messages between offsets, and the first one that waits for a reader.

All of it blocks, by a consumer of its own, without a group, for one question.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from models.errors import Unavailable, Unreadable
from models.settings import Settings
from streams.kafka.connections.connection import connect, missing_topics
from streams.kafka.connections.decoding import note_stable_ends
from streams.kafka.consuming.assignment import Partition

LOG = logging.getLogger(__name__)

TIMEOUT_S = 5.0
"""Longest wait for an answer about partitions' ends or first messages."""

SILENCE_S = 10.0
"""Longest pause between messages until Kafka counts as away."""

POLL_MS = 100


class PartitionEnd(NamedTuple):
    """End of a partition.

    Attributes
    ----------
    stable
        Offset up to which it can be read: that of the first message whose transaction is open.
    written
        Next offset to be written; equal to `stable` without an open transaction.
    """

    stable: int
    written: int


class FirstWaiting(NamedTuple):
    """First message that waits for a reader: its offset, and its time in Kafka in seconds.

    The time of an unreadable message is that of the message behind it, or None.
    """

    offset: int
    since_s: float | None


def partition_ends(settings: Settings, names: Sequence[str]) -> dict[Partition, PartitionEnd]:
    """Ends of each partition of these topics.

    They come from a fetch, whose answer has both ends at once.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    ends: dict[Partition, PartitionEnd] = {}
    # There is nothing to wait for: the answer has the ends without any message.
    with _consumer(settings, auto_offset_reset="latest", fetch_max_wait_ms=1) as consumer:
        stable = note_stable_ends(consumer)
        waiting = set(_partitions(consumer, names))
        consumer.assign(sorted(waiting))
        deadline_s = time.monotonic() + TIMEOUT_S
        while waiting and time.monotonic() < deadline_s:
            # The end is known also where the last messages cannot be read.
            with contextlib.suppress(Unreadable):
                consumer.poll(timeout_ms=POLL_MS)
            for tp in sorted(waiting):
                written = consumer.highwater(tp)
                if written is not None:
                    ends[tp.topic, tp.partition] = PartitionEnd(stable.get(tp, written), written)
                    waiting.discard(tp)
                    consumer.pause(tp)
    if waiting:
        raise Unavailable(f"Kafka at {settings.kafka} does not tell the end of {sorted(waiting)}")
    return dict(sorted(ends.items()))


def end_offsets(settings: Settings, names: Sequence[str]) -> dict[Partition, int]:
    """Offset up to which each partition can be read; see `partition_ends`."""
    return {tp: end.stable for tp, end in partition_ends(settings, names).items()}


def first_offsets(settings: Settings, names: Sequence[str]) -> dict[Partition, int]:
    """Offset of the first message that Kafka still has of each partition, or its end.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    with _consumer(settings) as consumer:
        partitions = _partitions(consumer, names)
        found = consumer.beginning_offsets(partitions) if partitions else {}
    return {(tp.topic, tp.partition): offset for tp, offset in sorted(found.items())}


def offsets_at(settings: Settings, names: Sequence[str], *, at_s: float) -> dict[Partition, int]:
    """Offset of the first message of each partition from a Unix time on, or its end.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    with _consumer(settings) as consumer:
        partitions = _partitions(consumer, names)
        if not partitions:
            return {}
        found = consumer.offsets_for_times(dict.fromkeys(partitions, int(at_s * 1000)))
        ends = consumer.end_offsets(partitions)
    return {
        (tp.topic, tp.partition): ends[tp] if (at := found.get(tp)) is None else at.offset
        for tp in partitions
    }


def _partitions(consumer: KafkaConsumer, names: Sequence[str]) -> list[TopicPartition]:
    """The partitions of those of the topics that exist."""
    return [
        TopicPartition(name, partition)
        for name in names
        for partition in consumer.partitions_for_topic(name) or ()
    ]


def messages(settings: Settings, starts: Mapping[Partition, int]) -> Iterator[Any]:
    """Messages of partitions from these offsets to their current ends, as kafka-python's records.

    Each partition's are in order. Messages that are written meanwhile may be among them or not;
    unreadable ones are skipped with a warning.

    Raises
    ------
    Unavailable
        Kafka does not answer, or has no such topic or partition.
    """
    stops = end_offsets(settings, sorted({topic for topic, _ in starts}))
    if missing := sorted({topic for topic, _ in starts.keys() - stops.keys()}):
        raise missing_topics(settings, missing)
    with _consumer(settings, auto_offset_reset="earliest") as consumer:
        partitions = _seek(consumer, starts)
        heard_s = time.monotonic()
        while any(consumer.position(tp) < stops[tp.topic, tp.partition] for tp in partitions):
            polled, unreadable = _poll(consumer)
            if unreadable is not None:
                LOG.warning("skipped: %s", unreadable)
            if polled or unreadable is not None:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > SILENCE_S:
                raise Unavailable(f"Kafka at {settings.kafka} stopped answering: try again")
            for records in polled.values():
                yield from records
                heard_s = time.monotonic()  # the caller may have taken its time


def first_waiting(
    settings: Settings,
    positions: Mapping[Partition, int],
    ends: Mapping[Partition, PartitionEnd],
) -> dict[Partition, FirstWaiting]:
    """First message from each of these next offsets on, of partitions that have one.

    Not every offset is a message's: a transaction ends with a marker, and aborted messages stay in
    the log. A reader may be behind such an end and have nothing to do. Messages of an open
    transaction wait, as do all behind them.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    committed = _first(settings, positions, {tp: ends[tp].stable for tp in positions})
    held = {
        tp: max(offset, ends[tp].stable) for tp, offset in positions.items() if tp not in committed
    }
    written = {tp: ends[tp].written for tp in held}
    return committed | _first(settings, held, written, isolation_level="read_uncommitted")


def _first(
    settings: Settings,
    positions: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    isolation_level: str = "read_committed",
) -> dict[Partition, FirstWaiting]:
    behind = {tp: offset for tp, offset in positions.items() if offset < ends[tp]}
    if not behind:
        return {}
    found: dict[Partition, FirstWaiting] = {}
    unreadable_at: dict[Partition, int] = {}
    with _consumer(
        settings,
        auto_offset_reset="earliest",
        max_poll_records=1,
        isolation_level=isolation_level,
    ) as consumer:
        waiting = set(_seek(consumer, behind))
        deadline_s = time.monotonic() + TIMEOUT_S
        while waiting and time.monotonic() < deadline_s:
            polled, unreadable = _poll(consumer)
            if unreadable is not None:
                partition = (unreadable.topic, unreadable.partition)
                unreadable_at.setdefault(partition, unreadable.first)
            for tp, records in polled.items():
                partition, first = (tp.topic, tp.partition), records[0]
                if first.offset < ends[partition]:
                    offset = unreadable_at.pop(partition, first.offset)
                    found[partition] = FirstWaiting(offset, first.timestamp / 1000)
                waiting.discard(tp)
                # A partition with many messages would keep the others waiting.
                consumer.pause(tp)
            waiting -= {
                tp for tp in waiting if consumer.position(tp) >= ends[tp.topic, tp.partition]
            }
    if waiting:
        raise Unavailable(
            f"Kafka at {settings.kafka} does not give the messages at {sorted(waiting)}"
        )
    return found | {tp: FirstWaiting(offset, None) for tp, offset in unreadable_at.items()}


@contextlib.contextmanager
def _consumer(settings: Settings, **config: Any) -> Iterator[KafkaConsumer]:  # noqa: ANN401
    """A consumer for one question, whose errors are `Unavailable`."""
    consumer = connect(KafkaConsumer, settings, enable_auto_commit=False, **config)
    try:
        yield consumer
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()


def _seek(consumer: KafkaConsumer, starts: Mapping[Partition, int]) -> list[TopicPartition]:
    """Have the consumer read these partitions from these offsets on."""
    partitions = sorted(TopicPartition(*partition) for partition in starts)
    consumer.assign(partitions)
    for tp in partitions:
        consumer.seek(tp, starts[tp.topic, tp.partition])
    return partitions


def _poll(
    consumer: KafkaConsumer,
) -> tuple[Mapping[TopicPartition, Sequence[Any]], Unreadable | None]:
    """Records that have arrived, or an unreadable message, behind which the consumer seeks."""
    try:
        return consumer.poll(timeout_ms=POLL_MS), None
    except Unreadable as error:
        consumer.seek(TopicPartition(error.topic, error.partition), error.last + 1)
        return {}, error
