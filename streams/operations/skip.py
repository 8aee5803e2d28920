"""The way past what nobody can decode: a dead letter takes its place, readers go on behind it."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from models.errors import InvalidRequest, Unavailable, Unreadable
from models.settings import Settings
from models.state import stuck_readers
from models.state.client import connect
from models.state.forwarding_ledger import TrackerChange, forward_positions, save_forward
from models.state.redis_errors import AWAY_ERRORS
from models.state.store import Store
from models.state.stuck_readers import Reader
from streams.kafka import connection
from streams.kafka.dead_letters import of_unreadable
from streams.kafka.decoding import note_stable_ends
from streams.kafka.topics import Topics, topic_ids

POLL_MS = 500
MAX_SILENT_POLLS = 20


class Skipped(NamedTuple):
    """What was gone past, and who goes on behind it."""

    what: Unreadable
    readers: list[Reader]


async def skip(settings: Settings, topic: str, partition: int, offset: int) -> Skipped:
    """Have every reader that stands still at an offset go on behind what it cannot decode.

    It is read once more first: a message that can be decoded is never skipped, nor is one before
    which others still have to take effect. A dead letter with the position is kept before anything
    moves; `recommender dead-letters replay` sends the messages should they become readable.

    Raises
    ------
    InvalidRequest
        There is nothing to skip, or nobody stands there.
    Unavailable
        Kafka or Redis does not answer.
    """
    topics = Topics.of(settings)
    known = (topics.clicks, topics.purchases, topics.items, topics.users)
    if topic not in known:
        raise InvalidRequest(f"nothing is skipped in {topic}: it is none of {', '.join(known)}")
    ids = await asyncio.to_thread(topic_ids, settings, [topic])
    field = f"{ids[topic]}/{partition}"
    store = Store(connect(settings.redis), settings)
    try:
        (mark,) = await store.watermarks([field])
        positions = await forward_positions(store.redis, settings.group)
        nexts: dict[Reader, int] = {"worker": mark + 1}
        # One that has come past nothing yet has no position.
        told = await stuck_readers.reported(store.redis, settings.group, now_s=time.time())
        nexts |= {
            one.reader: one.first
            for one in told
            if (one.reader, one.topic, one.partition) == ("forwarder", topic, partition)
        }
        if field in positions:
            nexts["forwarder"] = positions[field]
        what = await asyncio.to_thread(_found, settings, TopicPartition(topic, partition), offset)
        met: dict[Reader, Unreadable] = {}
        for reader, at in nexts.items():
            first = await asyncio.to_thread(_first, settings, TopicPartition(topic, partition), at)
            if isinstance(first, Unreadable) and first.last == what.last:
                met[reader] = first
        if not met:
            raise InvalidRequest(_nobody(what, nexts))
        there = list(met)
        what = min(met.values(), key=lambda error: error.first)
        await asyncio.to_thread(_keep, settings, what)
        if "worker" in there:
            await store.raise_watermark(field, what.last)
        if "forwarder" in there:
            moves = {field: TrackerChange(what.last + 1, {})}
            await save_forward(store.redis, settings.group, moves=moves)
        over = [stuck_readers.stuck_reader(reader, what, now_s=time.time()) for reader in there]
        await stuck_readers.report(store.redis, settings.group, (), over)
    except AWAY_ERRORS as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
    finally:
        await store.close()
    return Skipped(what, there)


def _nobody(what: Unreadable, nexts: dict[Reader, int]) -> str:
    where = ", ".join(f"the {reader} goes on at offset {at}" for reader, at in nexts.items())
    return f"{what}; but nobody stands there: {where}"


def _found(settings: Settings, place: TopicPartition, offset: int) -> Unreadable:
    """What cannot be decoded at an offset; raises `InvalidRequest` where everything can."""
    first = _first(settings, place, offset)
    if isinstance(first, Unreadable) and first.first <= offset <= first.last:
        return first
    if first is None:
        raise InvalidRequest(f"{place.topic}/{place.partition} has nothing at offset {offset}")
    raise InvalidRequest(
        f"{place.topic}/{place.partition} can be read at offset {offset}: nothing is skipped"
    )


def _first(settings: Settings, place: TopicPartition, offset: int) -> Unreadable | int | None:
    """What a reader comes to first: what it cannot decode, or the offset of a message; or nothing.

    Of a batch with the offset in its midst, its own first offset is not told.
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


def _keep(settings: Settings, what: Unreadable) -> None:
    """Keep a dead letter of it; returns when Kafka has acknowledged."""
    producer = connection.connect(KafkaProducer, settings, acks="all")
    try:
        letter = of_unreadable(what, now_s=time.time())
        sent = producer.send(Topics.of(settings).dead_letters, value=letter)
        sent.get(timeout=settings.publish_timeout_s)
    except KafkaError as error:
        raise connection.unavailable(settings, error) from error
    finally:
        producer.close()
