"""Events as they come to Kafka, for people who look on, and the newest ones of an id."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from models.errors import InvalidEvent, RecommenderError, Unreadable
from models.events import PutEvents, parse, parse_erasure
from models.kafka_operations import FoundEvents, TailedEvent
from models.settings import Settings
from models.tokens import Published, Receipt, TopicKind
from streams.kafka.connections.connection import connect
from streams.kafka.consuming.offsets import end_offsets, first_offsets, messages
from streams.kafka.topics import Topics, topic_ids

POLL_MS = 300
RETRY_S = 2.0

SEARCHED = 20_000
"""Newest messages that are searched for an id, of all partitions together."""

LOG = logging.getLogger(__name__)


def tail_events(
    settings: Settings, show: Callable[[list[TailedEvent]], None], stop: threading.Event
) -> None:
    """Give the events that come from now on to `show`, until `stop`; blocking.

    What is no valid message is left out: it is in the dead letters. While Kafka is away it tries
    again, and shows what has come meanwhile no more.
    """
    while not stop.is_set():
        try:
            _tail(settings, show, stop)
        except (KafkaError, RecommenderError) as error:
            LOG.warning("the tail of events begins anew: %s", error)
            stop.wait(RETRY_S)


def find_events(settings: Settings, event_id: str) -> FoundEvents:
    """Events of an id among the newest messages; blocking.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    topics = Topics.of(settings)
    kinds: dict[str, TopicKind] = {topics.clicks: "clicks", topics.purchases: "purchases"}
    ids = topic_ids(settings, list(kinds))
    ends = end_offsets(settings, list(kinds))
    firsts = first_offsets(settings, list(kinds))
    newest = SEARCHED // max(1, len(ends))
    starts = {tp: max(firsts.get(tp, 0), end - newest) for tp, end in ends.items()}
    n, found = 0, list[TailedEvent]()
    for record in messages(settings, starts):
        n += 1
        events = _events(record.value or b"", kinds[record.topic], record, ids[record.topic])
        found += [one for one in events if one.event_id == event_id]
    return FoundEvents(found, n)


def _tail(
    settings: Settings, show: Callable[[list[TailedEvent]], None], stop: threading.Event
) -> None:
    topics = Topics.of(settings)
    kinds: dict[str, TopicKind] = {topics.clicks: "clicks", topics.purchases: "purchases"}
    ids = topic_ids(settings, list(kinds))
    consumer = connect(
        KafkaConsumer, settings, enable_auto_commit=False, auto_offset_reset="latest"
    )
    try:
        partitions = [
            TopicPartition(name, partition)
            for name in kinds
            for partition in consumer.partitions_for_topic(name) or ()
        ]
        consumer.assign(partitions)
        consumer.seek_to_end(*partitions)
        while not stop.is_set():
            try:
                polled = consumer.poll(timeout_ms=POLL_MS)
            except Unreadable as error:
                consumer.seek(TopicPartition(error.topic, error.partition), error.last + 1)
                continue
            found = [
                event
                for tp, records in polled.items()
                for record in records
                for event in _events(record.value or b"", kinds[tp.topic], record, ids[tp.topic])
            ]
            if found:
                show(found)
    finally:
        consumer.close()


def _events(raw: bytes, kind: TopicKind, record: object, incarnation: str) -> list[TailedEvent]:
    now_s = time.time()
    try:
        if parse_erasure(raw, now_s=now_s) is not None:
            return []
        message: PutEvents = parse(raw, now_s=now_s)
    except (InvalidEvent, msgspec.MsgspecError):
        return []
    partition, offset = record.partition, record.offset  # type: ignore[attr-defined]
    token = Receipt((Published("", partition, offset, kind, incarnation),)).token()
    return [
        TailedEvent(
            kind,
            partition,
            offset,
            message.accepted_at,
            event.event_id or "",
            event.event_type,
            event.item_id,
            message.user_id,
            message.session_id,
            token,
        )
        for event in message.event_list
    ]
