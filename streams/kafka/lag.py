"""The first message that waits for a reader in each partition, and since when.

Not every offset is a message's: a transaction ends with a marker that takes one, and what was
aborted stays in the log. A reader whose partition ends so is behind its end and has nothing to do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from models.errors import Unavailable, Unreadable
from models.settings import Settings
from streams.kafka.connection import connect
from streams.kafka.end_offsets import End

WAIT_S = 5.0


class First(NamedTuple):
    """The first message that waits: its offset, and when Kafka got it, in seconds.

    Of what cannot be decoded the time is not known: it is that of the message behind it, or None.
    """

    offset: int
    since_s: float | None


def first_waiting(
    settings: Settings,
    positions: Mapping[tuple[str, int], int],
    ends: Mapping[tuple[str, int], End],
) -> dict[tuple[str, int], First]:
    """The first message from each of these next offsets on; blocking.

    A partition where there is none before its end is left out. Messages of a transaction that is
    open wait, as do all behind them.

    Raises
    ------
    Unavailable
        Kafka does not give them.
    """
    committed = _first(settings, positions, {tp: ends[tp].stable for tp in positions})
    held = {
        tp: max(offset, ends[tp].stable) for tp, offset in positions.items() if tp not in committed
    }
    written = {tp: ends[tp].written for tp in held}
    return committed | _first(settings, held, written, isolation_level="read_uncommitted")


def _first(
    settings: Settings,
    positions: Mapping[tuple[str, int], int],
    ends: Mapping[tuple[str, int], int],
    isolation_level: str = "read_committed",
) -> dict[tuple[str, int], First]:
    left = {TopicPartition(*tp) for tp, offset in positions.items() if offset < ends[tp]}
    if not left:
        return {}
    consumer = connect(
        KafkaConsumer,
        settings,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=1,
        isolation_level=isolation_level,
    )
    found: dict[tuple[str, int], First] = {}
    unreadable: dict[tuple[str, int], int] = {}
    try:
        consumer.assign(sorted(left))
        for tp in left:
            consumer.seek(tp, positions[tp.topic, tp.partition])
        deadline_s = time.monotonic() + WAIT_S
        while left and time.monotonic() < deadline_s:
            try:
                polled = consumer.poll(timeout_ms=100)
            except Unreadable as error:
                unreadable.setdefault((error.topic, error.partition), error.first)
                consumer.seek(TopicPartition(error.topic, error.partition), error.last + 1)
                polled = {}
            for tp, records in polled.items():
                place, first = (tp.topic, tp.partition), records[0]
                if first.offset < ends[place]:
                    offset = unreadable.pop(place, first.offset)
                    found[place] = First(offset, first.timestamp / 1000)
                left.discard(tp)
                # A partition with much in it would keep the others waiting.
                consumer.pause(tp)
            left -= {tp for tp in left if consumer.position(tp) >= ends[tp.topic, tp.partition]}
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()
    if left:
        raise Unavailable(f"Kafka at {settings.kafka} does not give the messages at {sorted(left)}")
    return found | {place: First(offset, None) for place, offset in unreadable.items()}
