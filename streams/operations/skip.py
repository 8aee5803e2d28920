"""Skipping of unreadable batches: a dead letter takes their place, and readers go on behind."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from models.errors import InvalidRequest, Unavailable, Unreadable
from models.settings import Settings
from models.state.clients.client import client_of
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.operations import stuck_readers
from models.state.operations.forwarding_ledger import TrackerChange, forward_positions, save_forward
from models.state.operations.stuck_readers import Reader
from models.state.shards.sharded_store import store_of
from streams.kafka.connections import connection
from streams.kafka.connections.decoding import note_stable_ends
from streams.kafka.dead_letters import of_unreadable
from streams.kafka.topics import Topics, topic_ids

POLL_MS = 500
MAX_SILENT_POLLS = 20


class Skipped(NamedTuple):
    """The skipped messages, and the readers that go on behind them."""

    unreadable: Unreadable
    readers: list[Reader]


async def skip(settings: Settings, topic: str, partition: int, offset: int) -> Skipped:
    """Have every reader that stands still at an unreadable batch go on behind it.

    It is read once more first: a decodable message is never skipped, nor is one behind messages
    that are not in effect yet. A dead letter with the position is produced before any reader moves;
    `recommender dead-letters replay` sends the messages should they become readable.

    Raises
    ------
    InvalidRequest
        The batch is readable, or no reader stands still at it.
    Unavailable
        Kafka or Redis does not answer.
    """
    topics = Topics.of(settings)
    known = (topics.clicks, topics.purchases, topics.items, topics.users, topics.served)
    if topic not in known:
        raise InvalidRequest(f"nothing is skipped in {topic}: it is none of {', '.join(known)}")
    ids = await asyncio.to_thread(topic_ids, settings, [topic])
    field, place = f"{ids[topic]}/{partition}", TopicPartition(topic, partition)
    store = store_of(client_of(settings), settings)
    try:
        (mark,) = await store.watermarks([field])
        positions = await forward_positions(store.redis, settings.group)
        nexts: dict[Reader, int] = {"worker": mark + 1}
        # A forwarder that has not forwarded anything yet has no position.
        reported = await stuck_readers.reported(store.redis, settings.group, now_s=time.time())
        nexts |= {
            one.reader: one.first
            for one in reported
            if (one.reader, one.topic, one.partition) == ("forwarder", topic, partition)
        }
        if field in positions:
            nexts["forwarder"] = positions[field]
        unreadable = await asyncio.to_thread(
            _found, settings, TopicPartition(topic, partition), offset
        )
        met: dict[Reader, Unreadable] = {}
        for reader, at in nexts.items():
            first = await asyncio.to_thread(_first, settings, place, at)
            if isinstance(first, Unreadable) and first.last == unreadable.last:
                met[reader] = first
        if not met:
            raise InvalidRequest(_no_reader(unreadable, nexts))
        readers = list(met)
        unreadable = min(met.values(), key=lambda error: error.first)
        await asyncio.to_thread(_keep, settings, unreadable)
        if "worker" in readers:
            await store.raise_watermark(field, unreadable.last)
        if "forwarder" in readers:
            moves = {field: TrackerChange(unreadable.last + 1, {})}
            await save_forward(store.redis, settings.group, moves=moves)
        over = [
            stuck_readers.stuck_reader(reader, unreadable, now_s=time.time()) for reader in readers
        ]
        await stuck_readers.report(store.redis, settings.group, (), over)
    except AWAY_ERRORS as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
    finally:
        await store.close()
    return Skipped(unreadable, readers)


def _no_reader(unreadable: Unreadable, nexts: dict[Reader, int]) -> str:
    where = ", ".join(f"the {reader} goes on at offset {at}" for reader, at in nexts.items())
    return f"{unreadable}; but no reader stands still there: {where}"


def _found(settings: Settings, place: TopicPartition, offset: int) -> Unreadable:
    """The unreadable batch at an offset; raises `InvalidRequest` if it is readable."""
    first = _first(settings, place, offset)
    if isinstance(first, Unreadable) and first.first <= offset <= first.last:
        return first
    if first is None:
        raise InvalidRequest(f"{place.topic}/{place.partition} has nothing at offset {offset}")
    raise InvalidRequest(
        f"{place.topic}/{place.partition} can be read at offset {offset}: nothing is skipped"
    )


def _first(settings: Settings, place: TopicPartition, offset: int) -> Unreadable | int | None:
    """The first thing at or behind an offset: an unreadable batch, a message's offset, or None.

    The first offset of an unreadable batch is not before the given one.
    """
    consumer = connection.connect(
        KafkaConsumer,
        settings,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=1,
    )
    try:
        if place.partition not in (consumer.partitions_for_topic(place.topic) or ()):
            raise InvalidRequest(f"{place.topic} has no partition {place.partition}")
        stable = note_stable_ends(consumer)
        consumer.assign([place])
        consumer.seek(place, offset)
        for _ in range(MAX_SILENT_POLLS):
            for record in consumer.poll(timeout_ms=POLL_MS).get(place, ()):
                return int(record.offset)
            end = stable.get(place, consumer.highwater(place))
            if end is not None and consumer.position(place) >= end:
                return None
    except Unreadable as error:
        return error
    except KafkaError as error:
        raise connection.unavailable(settings, error) from error
    finally:
        consumer.close()
    raise Unavailable(f"Kafka at {settings.kafka} does not give {place.topic} at offset {offset}")


def _keep(settings: Settings, unreadable: Unreadable) -> None:
    """Produce a dead letter of it; returns when Kafka has acknowledged."""
    producer = connection.connect(KafkaProducer, settings, acks="all")
    try:
        letter = of_unreadable(unreadable, now_s=time.time())
        sent = producer.send(Topics.of(settings).dead_letters, value=letter)
        sent.get(timeout=settings.publish_timeout_s)
    except KafkaError as error:
        raise connection.unavailable(settings, error) from error
    finally:
        producer.close()
