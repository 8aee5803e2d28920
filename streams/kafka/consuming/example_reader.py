"""Training examples as they are kept in Kafka, for those who learn them again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition

from models.settings import Settings
from streams.kafka.connections.connection import connect
from streams.kafka.topics import Topics

POLL_MS = 500
POLL_RECORDS = 50

SLACK = 1000
"""Messages by which a reader may always be behind."""


class ReadExamples(NamedTuple):
    """Values of messages of the settings' group, and whether the topic had no others."""

    values: list[bytes]
    is_end: bool


def read_examples(settings: Settings, n_back: int, stop: threading.Event) -> Iterator[ReadExamples]:
    """The last `n_back` messages of the topic, then those that come, until `stop`; blocking.

    A reader that falls behind by more than twice `n_back` goes on `n_back` before the end.

    Raises
    ------
    KafkaError, RecommenderError
        Kafka is away, or a batch cannot be decoded.
    """
    partition = TopicPartition(Topics.of(settings).examples, 0)
    own = {b"", settings.group.encode()}
    consumer = connect(
        KafkaConsumer, settings, enable_auto_commit=False, max_poll_records=POLL_RECORDS
    )
    try:
        consumer.assign([partition])
        at = -1
        while not stop.is_set():
            end = consumer.end_offsets([partition])[partition]
            if at < 0 or end - at > 2 * n_back + SLACK:
                at = max(consumer.beginning_offsets([partition])[partition], end - n_back)
                consumer.seek(partition, at)
            found = consumer.poll(timeout_ms=POLL_MS).get(partition, [])
            if found:
                at = found[-1].offset + 1
            values = [one.value or b"" for one in found if (one.key or b"") in own]
            yield ReadExamples(values, at >= end or not found)
    finally:
        consumer.close()
