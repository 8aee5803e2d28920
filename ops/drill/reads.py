"""Reads of what a drill compares: messages in Kafka, past all proxies, and state in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from models.settings import Settings
from models.state.clients.client import client_of
from models.state.shards.sharded_store import store_of
from models.state.store import Store
from streams.kafka.connections.connection import connect
from streams.kafka.topics import Topics, topic_ids

T = TypeVar("T")

CONNECT_WITHIN_S = 30.0
MOST_BYTES = 4_000_000
"""Of one partition in an answer: more than the largest message of a drill."""


class Record(NamedTuple):
    """One message in Kafka."""

    topic: str
    partition: int
    offset: int
    value: bytes

    @property
    def position(self) -> tuple[str, int, int]:
        """Its partition and offset."""
        return self[:3]


def event_ids(record: Record) -> list[str]:
    """The ids of a message's events; none where it cannot be decoded or is an erasure."""
    try:
        return [str(event["eventId"]) for event in json.loads(record.value)["eventList"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def stored(settings: Settings, read: Callable[[Store], Awaitable[T]]) -> T:
    """Result of a function that reads from the group of these settings."""

    async def reading() -> T:
        store = store_of(client_of(settings), settings)
        try:
            return await read(store)
        finally:
            await store.close()

    return asyncio.run(reading())


def redis_command(settings: Settings, *words: str | int) -> Any:  # noqa: ANN401  of any command
    """The answer of Redis to one command; raises the errors of redis-py."""

    async def asking(store: Store) -> Any:  # noqa: ANN401
        return await store.redis.execute_command(*words)

    return stored(settings, asking)


@contextlib.contextmanager
def consumer(settings: Settings, **options: Any) -> Iterator[KafkaConsumer]:  # noqa: ANN401
    """A consumer without a group."""
    one = connect(
        KafkaConsumer,
        settings,
        timeout_s=CONNECT_WITHIN_S,
        enable_auto_commit=False,
        max_partition_fetch_bytes=MOST_BYTES,
        **options,
    )
    try:
        yield one
    finally:
        one.close()


@contextlib.contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """A client for administration."""
    one = connect(KafkaAdminClient, settings, timeout_s=CONNECT_WITHIN_S)
    try:
        yield one
    finally:
        one.close()


def read_topics(settings: Settings, names: Sequence[str]) -> list[Record]:
    """Every message of the topics up to their present ends, partition by partition in order."""
    with consumer(settings) as one:
        places = [
            TopicPartition(name, number)
            for name in names
            for number in sorted(one.partitions_for_topic(name) or ())
        ]
        one.assign(places)
        ends = one.end_offsets(places)
        one.seek_to_beginning(*places)
        found: list[Record] = []
        while any(one.position(place) < end for place, end in ends.items()):
            for polled in one.poll(timeout_ms=500).values():
                found += [Record(r.topic, r.partition, r.offset, r.value or b"") for r in polled]
        return sorted(found)


def event_places(settings: Settings) -> list[TopicPartition]:
    """The partitions of the event topics."""
    topics = Topics.of(settings)
    with consumer(settings) as one:
        return [
            TopicPartition(name, n)
            for name in (topics.clicks, topics.purchases)
            for n in sorted(one.partitions_for_topic(name) or ())
        ]


def ends_of(settings: Settings, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """The next offset of each partition, behind transactions that are open."""
    with consumer(settings, isolation_level="read_uncommitted") as one:
        return dict(one.end_offsets(list(places)))


def fields_of(settings: Settings, places: Iterable[TopicPartition]) -> dict[TopicPartition, str]:
    """Field of each partition's watermark in Redis."""
    ids = topic_ids(settings, sorted({place.topic for place in places}))
    return {place: f"{ids[place.topic]}/{place.partition}" for place in places}


def marks_of(settings: Settings, fields: Mapping[TopicPartition, str]) -> dict[TopicPartition, int]:
    """The watermark of each partition."""
    marks = stored(settings, lambda store: store.watermarks(list(fields.values())))
    return dict(zip(fields, marks, strict=True))


def behind(settings: Settings, ends: Mapping[TopicPartition, int]) -> dict[str, tuple[int, int]]:
    """Watermark and end of each partition in which not all up to its end is in effect.

    A watermark may also be at a message that Kafka has lost, whatever its offset.
    """
    fields = list(fields_of(settings, ends).values())
    marks = stored(settings, lambda store: store.watermarks(fields))
    witnesses = stored(settings, lambda store: store.witnesses(fields))
    now = ends_of(settings, list(ends))
    found = {}
    with consumer(settings, auto_offset_reset="none") as one:
        for (place, end), mark, witness in zip(ends.items(), marks, witnesses, strict=True):
            until = min(end, now[place])
            is_same = True
            if mark >= 0 and witness is not None and witness[0] == mark:
                value = _first_message(one, place, mark, min(mark + 1, now[place]))
                is_same = value is not None and zlib.crc32(value) == witness[2]
            is_behind = mark < until - 1 and (
                _first_message(one, place, mark + 1, until) is not None
            )
            if is_behind or not is_same:
                found[f"{place.topic}/{place.partition}"] = (mark, end)
    return found


def _first_message(one: KafkaConsumer, place: TopicPartition, start: int, end: int) -> bytes | None:
    """The first message from `start` and before `end`: the ends of transactions take offsets.

    A transaction that is open is waited for.
    """
    if start >= end:
        return None
    one.assign([place])
    one.seek(place, start)
    while one.position(place) < end:
        for records in one.poll(timeout_ms=500).values():
            return (records[0].value or b"") if records[0].offset < end else None
    return None
