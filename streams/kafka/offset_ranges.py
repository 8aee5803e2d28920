"""A stretch of topics: every message from some offsets to where the topics end now."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from models.errors import Unavailable, Unreadable
from models.settings import Settings
from streams.kafka.connection import connect
from streams.kafka.end_offsets import end_offsets

LOG = logging.getLogger(__name__)

POLL_MS = 500
MAX_SILENT_POLLS = 20


def messages(settings: Settings, starts: Mapping[tuple[str, int], int]) -> Iterator[Any]:
    """The messages of partitions from these offsets on, as kafka-python has them; blocking.

    A partition's come in their order. What is written meanwhile may be among them or not; what
    cannot be read is passed over, with a warning.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    stops = end_offsets(settings, sorted({topic for topic, _ in starts}))
    consumer = connect(
        KafkaConsumer, settings, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        partitions = [TopicPartition(*place) for place in starts]
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, starts[partition.topic, partition.partition])
        silent = 0
        while any(consumer.position(tp) < stops[tp.topic, tp.partition] for tp in partitions):
            try:
                polled = consumer.poll(timeout_ms=POLL_MS)
            except Unreadable as error:
                LOG.warning("passed over: %s", error)
                consumer.seek(TopicPartition(error.topic, error.partition), error.last + 1)
                continue
            silent = 0 if polled else silent + 1
            if silent > MAX_SILENT_POLLS:
                raise Unavailable(f"Kafka at {settings.kafka} stopped answering: try again")
            for records in polled.values():
                yield from records
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()
