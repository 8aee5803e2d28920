"""Lost tails of Kafka's log: it is replaced by an earlier copy, and the lost messages are known."""

from __future__ import annotations

import json
import shutil
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.record import MemoryRecords

from streams.kafka.topics import Topics, topic_ids
from tests.stack import Stack

CLEAN = ".kafka_cleanshutdown"
"""The file by which Kafka knows at its start that it need not look through its log."""


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


@dataclass
class Tail:
    """Messages that Kafka lost at the end of a partition, and gave their offsets to others.

    Attributes
    ----------
    first
        The offset of the first lost one, or of the next message where none was lost.
    in_effect
        The offset of the last one whose effects Redis has.
    late
        Offsets of those that a worker held while Kafka was away, and applied once it was back.
    """

    place: TopicPartition
    first: int
    records: list[Record]
    in_effect: int
    late: set[int] = field(default_factory=set)

    @property
    def kept(self) -> list[Record]:
        """Lost by Kafka, and in effect."""
        return [
            record
            for record in self.records
            if record.offset <= self.in_effect or record.offset in self.late
        ]


def folder_of(data: Path, place: TopicPartition) -> Path:
    """Folder of a partition on disk."""
    return data / f"{place.topic}-{place.partition}"


def copied(data: Path, places: Iterable[TopicPartition], target: Path) -> None:
    """Copy the log of partitions while Kafka is paused."""
    for place in places:
        shutil.copytree(folder_of(data, place), folder_of(target, place))


def put_back(data: Path, places: Iterable[TopicPartition], copy: Path) -> list[Tail]:
    """Replace the log of partitions of a stopped broker by the copy; gives the lost messages."""
    tails = []
    for place in places:
        end = max((offset + 1 for offset, _ in messages_in(folder_of(copy, place))), default=0)
        records = [
            Record(place.topic, place.partition, offset, value)
            for offset, value in messages_in(folder_of(data, place))
            if offset >= end
        ]
        tails.append(Tail(place, end, records, -1))
        shutil.rmtree(folder_of(data, place))
        shutil.copytree(folder_of(copy, place), folder_of(data, place))
        for index in (*folder_of(data, place).glob("*.index"),
                      *folder_of(data, place).glob("*.timeindex")):  # fmt: skip
            index.write_bytes(b"")
    (data / CLEAN).unlink(missing_ok=True)
    return tails


def messages_in(folder: Path) -> list[tuple[int, bytes]]:
    """Offset and value of each message in the log on disk."""
    found = []
    for segment in sorted(folder.glob("*.log")):
        batches = MemoryRecords(segment.read_bytes())
        while batches.has_next():
            batch = batches.next_batch()
            if not batch.is_control_batch:
                found += [(record.offset, record.value or b"") for record in batch]
    return found


def event_ids(record: Record) -> list[str]:
    """The ids of a message's events; none where it cannot be decoded or is an erasure."""
    try:
        return [str(event["eventId"]) for event in json.loads(record.value)["eventList"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def erased_user(record: Record) -> str | None:
    """Users that a message erases."""
    try:
        body = json.loads(record.value)
        return str(body["userId"]) if "erase" in body else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def event_places(stack: Stack, kafka: str) -> list[TopicPartition]:
    """The partitions of the event topics."""
    topics = Topics.of(stack.settings)
    consumer = KafkaConsumer(bootstrap_servers=kafka)
    try:
        return [
            TopicPartition(name, n)
            for name in (topics.clicks, topics.purchases)
            for n in sorted(consumer.partitions_for_topic(name) or ())
        ]
    finally:
        consumer.close()


def ends_of(kafka: str, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """The next offset of each partition."""
    consumer = KafkaConsumer(bootstrap_servers=kafka)
    try:
        return dict(consumer.end_offsets(list(places)))
    finally:
        consumer.close()


def fields_of(stack: Stack, places: Iterable[TopicPartition]) -> dict[TopicPartition, str]:
    """Field of each partition's watermark in Redis."""
    ids = topic_ids(stack.settings, sorted({place.topic for place in places}))
    return {place: f"{ids[place.topic]}/{place.partition}" for place in places}


def marks_of(stack: Stack, fields: Mapping[TopicPartition, str]) -> dict[TopicPartition, int]:
    """The watermark of each partition."""
    marks = stack.stored(lambda store: store.watermarks(list(fields.values())))
    return dict(zip(fields, marks, strict=True))


def settled_marks(
    stack: Stack, fields: Mapping[TopicPartition, str], *, for_s: float, within_s: float
) -> dict[TopicPartition, int]:
    """The watermarks once none has moved for a while."""
    marks, since_s = marks_of(stack, fields), time.monotonic()
    until_s = since_s + within_s
    while time.monotonic() < since_s + for_s:
        if time.monotonic() > until_s:
            raise TimeoutError("watermarks move though Kafka does not run")
        time.sleep(0.1)
        now = marks_of(stack, fields)
        if now != marks:
            marks, since_s = now, time.monotonic()
    return marks


def behind(
    stack: Stack, kafka: str, ends: Mapping[TopicPartition, int]
) -> dict[str, tuple[int, int]]:
    """Watermark and end of each partition in which not all up to its end is in effect.

    A watermark may also be at a message that Kafka has lost, whatever its offset.
    """
    fields = list(fields_of(stack, ends).values())
    marks = stack.stored(lambda store: store.watermarks(fields))
    witnesses = stack.stored(lambda store: store.witnesses(fields))
    found = {}
    for (place, end), mark, witness in zip(ends.items(), marks, witnesses, strict=True):
        if mark >= 0 and witness is not None and witness[0] == mark:
            value = message_between(kafka, place, mark, mark + 1)
            is_same = value is not None and zlib.crc32(value) == witness[2]
        else:
            is_same = True
        is_behind = mark < end - 1 and message_between(kafka, place, mark + 1, end) is not None
        if is_behind or not is_same:
            found[f"{place.topic}/{place.partition}"] = (mark, end)
    return found


def message_between(kafka: str, place: TopicPartition, start: int, end: int) -> bytes | None:
    """The first message from `start` and before `end`: the ends of transactions take offsets.

    A transaction that is open is waited for.
    """
    end = min(end, ends_of(kafka, [place])[place])
    consumer = KafkaConsumer(
        bootstrap_servers=kafka,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
    )
    try:
        consumer.assign([place])
        if start >= end:
            return None
        consumer.seek(place, start)
        while consumer.position(place) < end:
            for records in consumer.poll(timeout_ms=500).values():
                return (records[0].value or b"") if records[0].offset < end else None
    finally:
        consumer.close()
    return None
