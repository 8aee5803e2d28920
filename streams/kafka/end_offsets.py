"""Where partitions end: the next offset to be written of each, and up to where it can be read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from models.errors import Unavailable, Unreadable
from models.settings import Settings
from streams.kafka.connection import connect
from streams.kafka.decoding import note_stable_ends

WAIT_S = 5.0


class End(NamedTuple):
    """Where a partition ends.

    Attributes
    ----------
    stable
        The offset up to which it can be read: that of the first message whose transaction is open.
    written
        The next offset to be written; the same where no transaction is open.
    """

    stable: int
    written: int


def partition_ends(settings: Settings, names: Sequence[str]) -> dict[tuple[str, int], End]:
    """The ends of each partition of these topics; blocking.

    They come from a fetch: the embedded broker's own answer to this question is the start of its
    last batch.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    consumer = connect(
        KafkaConsumer, settings, auto_offset_reset="latest", enable_auto_commit=False
    )
    try:
        stable = note_stable_ends(consumer)
        waiting = {
            TopicPartition(name, partition)
            for name in names
            for partition in consumer.partitions_for_topic(name) or ()
        }
        consumer.assign(sorted(waiting))
        ends: dict[tuple[str, int], End] = {}
        deadline = time.monotonic() + WAIT_S
        while waiting and time.monotonic() < deadline:
            # A partition tells its end also where its last messages cannot be read.
            with contextlib.suppress(Unreadable):
                consumer.poll(timeout_ms=100)
            for tp in sorted(waiting):
                written = consumer.highwater(tp)
                if written is not None:
                    ends[tp.topic, tp.partition] = End(stable.get(tp, written), written)
                    waiting.discard(tp)
                    consumer.pause(tp)
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()
    if waiting:
        raise Unavailable(f"Kafka at {settings.kafka} does not tell the end of {sorted(waiting)}")
    return dict(sorted(ends.items()))


def end_offsets(settings: Settings, names: Sequence[str]) -> dict[tuple[str, int], int]:
    """The offset up to which each partition can be read; see `partition_ends`."""
    return {tp: end.stable for tp, end in partition_ends(settings, names).items()}
