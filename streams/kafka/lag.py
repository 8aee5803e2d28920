"""How long the oldest message that waits for a reader has been in Kafka."""

from __future__ import annotations

import time
from collections.abc import Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from models.errors import Unavailable, Unreadable
from models.settings import Settings
from streams.kafka.connection import connect

WAIT_S = 5.0


def waiting_since_s(settings: Settings, positions: Mapping[tuple[str, int], int]) -> float | None:
    """When Kafka got the oldest of the messages at these next offsets of partitions, in seconds.

    `None` if there are no partitions. Where the message itself is gone, or cannot be read, the next
    counts.

    Raises
    ------
    Unavailable
        Kafka does not give them.
    """
    if not positions:
        return None
    consumer = connect(KafkaConsumer, settings, auto_offset_reset="earliest", max_poll_records=1)
    since_s: list[float] = []
    try:
        left = {TopicPartition(*tp): offset for tp, offset in positions.items()}
        deadline_s = time.monotonic() + WAIT_S
        while left and time.monotonic() < deadline_s:
            # One at a time: a partition with much in it would keep the others waiting.
            partition, offset = next(iter(left.items()))
            consumer.assign([partition])
            consumer.seek(partition, offset)
            try:
                polled = consumer.poll(timeout_ms=500)
            except Unreadable as error:
                left[partition] = error.last + 1
                if left[partition] >= consumer.highwater(partition):
                    del left[partition]
                continue
            for record in polled.get(partition, ())[:1]:
                since_s.append(record.timestamp / 1000)
                del left[partition]
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()
    if left:
        raise Unavailable(f"Kafka at {settings.kafka} does not give the messages at {left}")
    return min(since_s, default=None)
