"""Lost tails of Kafka's log: it is replaced by an earlier copy, and the lost messages are known."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kafka import TopicPartition
from kafka.record import MemoryRecords

from models.settings import Settings
from ops.drill.reads import Record, marks_of

CLEAN = ".kafka_cleanshutdown"
"""The file by which Kafka knows at its start that it need not look through its log."""


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


def erased_user(record: Record) -> str | None:
    """Users that a message erases."""
    try:
        body = json.loads(record.value)
        return str(body["userId"]) if "erase" in body else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def settled_marks(
    settings: Settings, fields: Mapping[TopicPartition, str], *, for_s: float, within_s: float
) -> dict[TopicPartition, int]:
    """The watermarks once none has moved for a while."""
    marks, since_s = marks_of(settings, fields), time.monotonic()
    until_s = since_s + within_s
    while time.monotonic() < since_s + for_s:
        if time.monotonic() > until_s:
            raise TimeoutError("watermarks move though Kafka does not run")
        time.sleep(0.1)
        now = marks_of(settings, fields)
        if now != marks:
            marks, since_s = now, time.monotonic()
    return marks
