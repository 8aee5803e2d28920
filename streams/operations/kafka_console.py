"""Kafka as the API's operators use it: dead letters, and events as they come."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Collection
from itertools import islice

from models.kafka_operations import (
    SHOWN_BYTES,
    FoundEvents,
    KeptLetter,
    KeyFamily,
    LetterPlace,
    PartitionLag,
    ReplayResult,
    ShardLoad,
    StreamStatus,
    TailedEvent,
    WaitingLetter,
)
from models.settings import Settings
from streams.kafka.consuming.event_tail import find_events, tail_events
from streams.kafka.dead_letters import DeadLetter, letters
from streams.operations.resending import discard, resend
from streams.operations.status import JobStatus, Status, read_status


class KafkaConsole:
    """Blocking work with Kafka in threads of its own; one at a time on what it reads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()

    async def letters(self, most: int) -> list[WaitingLetter]:
        """The oldest dead letters that wait; raises `Unavailable`."""
        async with self._lock:
            return await asyncio.to_thread(self._read, most)

    def _read(self, most: int) -> list[WaitingLetter]:
        found = ((one, record) for one, record in letters(self._settings) if record is not None)
        return [_shown(one, record) for one, record in islice(found, most)]

    async def replay(self, places: Collection[LetterPlace]) -> ReplayResult:
        """Send these dead letters to their topics again; raises `Unavailable`."""
        async with self._lock:
            done = await asyncio.to_thread(resend, self._settings, _pairs(places))
        return ReplayResult(
            done.sent, [KeptLetter(_source(letter), reason) for letter, reason in done.kept]
        )

    async def discard(self, places: Collection[LetterPlace]) -> int:
        """Let these dead letters be; the number of them; raises `Unavailable`."""
        async with self._lock:
            return await asyncio.to_thread(discard, self._settings, _pairs(places))

    async def status(self, *, now_s: float) -> StreamStatus:
        """The state of the stream; raises `Unavailable`."""
        async with self._lock:
            read = await asyncio.to_thread(_read_status, self._settings, now_s)
        memory = read.redis
        families = sorted(read.families.items(), key=lambda one: -one[1].bytes)
        return StreamStatus(
            read.lag,
            read.oldest_unapplied_age_s,
            read.dead_letters,
            [
                PartitionLag(one.topic, one.partition, one.end, one.watermark, one.lag)
                for one in read.partitions
            ],
            [str(one) for one in read.unreadable],
            memory.used_bytes,
            memory.limit_bytes,
            [KeyFamily(name, one.keys, one.bytes) for name, one in families],
            read.serving,
            [_job(one) for one in read.jobs],
            read.workers,
            [
                ShardLoad(one.name, one.lag, one.waiting, one.applied, one.keys, one.bytes)
                for one in read.shards
            ],
        )

    async def find_events(self, event_id: str) -> FoundEvents:
        """Events of an id among the newest messages; raises `Unavailable`."""
        async with self._lock:
            return await asyncio.to_thread(find_events, self._settings, event_id)

    def tail(self, show: Callable[[list[TailedEvent]], None]) -> Callable[[], None]:
        """Have events shown in a thread as they come, until the answer is called."""
        stop = threading.Event()
        threading.Thread(
            target=tail_events, args=(self._settings, show, stop), name="event-tail", daemon=True
        ).start()
        return stop.set


def _read_status(settings: Settings, now_s: float) -> Status:
    # It blocks in between, so it has an event loop of its own.
    return asyncio.run(read_status(settings, now_s=now_s))


def _job(job: JobStatus) -> str:
    of = f" of {job.known}" if job.known else ""
    return f"{job.path}: {job.status}" + (f", {job.done}{of} {job.what}" if job.what else "")


def _pairs(places: Collection[LetterPlace]) -> frozenset[tuple[int, int]]:
    return frozenset((one.partition, one.offset) for one in places)


def _source(letter: DeadLetter) -> str:
    source = letter.source
    return f"{source.topic}/{source.partition}/{source.offset}"


def _shown(letter: DeadLetter, record: object) -> WaitingLetter:
    raw = letter.raw()
    return WaitingLetter(
        record.partition,  # type: ignore[attr-defined]
        record.offset,  # type: ignore[attr-defined]
        letter.at,
        letter.stage,
        letter.reason,
        letter.detail,
        letter.group,
        _source(letter),
        base64.b64encode(raw[:SHOWN_BYTES]).decode(),
        len(raw),
    )
