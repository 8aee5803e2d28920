"""What stands in topics, for tests of producers."""

from __future__ import annotations

import time
from collections.abc import Callable

from kafka import KafkaConsumer, TopicPartition

from models.events import PutEvents, parse
from models.settings import Settings

NOW_S = 1_700_000_000.0


def read(settings: Settings, topic: str) -> dict[tuple[int, int], tuple[bytes, PutEvents]]:
    """All messages of an event topic: key and message by partition and offset."""
    return {
        place: (key, parse(value, now_s=NOW_S * 2))
        for place, (key, value) in raw(settings, topic).items()
    }


def raw(settings: Settings, topic: str) -> dict[tuple[int, int], tuple[bytes, bytes]]:
    """All messages of a topic: key and value by partition and offset."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka, auto_offset_reset="earliest", enable_auto_commit=False
    )
    try:
        partitions = [TopicPartition(topic, n) for n in range(settings.partitions)]
        consumer.assign(partitions)
        found = {}
        deadline_s = time.monotonic() + 60
        while not all(
            consumer.highwater(one) is not None
            and consumer.position(one) == consumer.highwater(one)
            for one in partitions
        ):
            assert time.monotonic() < deadline_s, "the topic cannot be read"
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    value = record.value or b""
                    found[record.partition, record.offset] = (record.key, value)
        return found
    finally:
        consumer.close()


def eventually(is_so: Callable[[], bool], within_s: float = 60.0) -> None:
    """Wait until a condition holds."""
    deadline_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline_s, "the condition never held"
        time.sleep(0.02)
