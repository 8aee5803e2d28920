"""Where partitions end: the next offset to be written of each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from models.errors import Unavailable, Unreadable
from models.settings import Settings
from streams.kafka.connection import connect

WAIT_S = 5.0


def end_offsets(settings: Settings, names: Sequence[str]) -> dict[tuple[str, int], int]:
    """The next offset to be written of each partition.

    It comes from the high watermark of a fetch: the embedded broker's own answer to this question
    is the start of its last batch.
    """
    consumer = connect(
        KafkaConsumer, settings, auto_offset_reset="latest", enable_auto_commit=False
    )
    try:
        waiting = {
            TopicPartition(name, partition)
            for name in names
            for partition in consumer.partitions_for_topic(name) or ()
        }
        consumer.assign(sorted(waiting))
        ends: dict[tuple[str, int], int] = {}
        deadline = time.monotonic() + WAIT_S
        while waiting and time.monotonic() < deadline:
            # A partition tells its end also where its last messages cannot be read.
            with contextlib.suppress(Unreadable):
                consumer.poll(timeout_ms=100)
            for tp in sorted(waiting):
                end = consumer.highwater(tp)
                if end is not None:
                    ends[tp.topic, tp.partition] = end
                    waiting.discard(tp)
                    consumer.pause(tp)
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()
    if waiting:
        raise Unavailable(f"Kafka at {settings.kafka} does not tell the end of {sorted(waiting)}")
    return dict(sorted(ends.items()))
