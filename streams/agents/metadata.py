"""The metadata agent: decodes records of items and users, and applies them in atomic steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import Counter

from models.errors import InvalidRecord
from models.metadata_records import RecordKind, parse_record
from models.settings import Settings
from models.state.catalogue.metadata import RecordEntry, RecordPart, apply_records, record_entry
from models.state.messages import PartResult
from models.state.store import Store
from models.state.tenants import Tenants
from streams.agents.atomic_batches import AtomicBatches
from streams.agents.contracts import BatchPart, Publish, StepWriter
from streams.agents.dead_letter_queue import DeadLetterQueue, Rejection
from streams.kafka.consuming.assignment import PartitionLog, ReceivedMessage
from streams.kafka.dead_letters import FULL
from streams.kafka.topics import Topics

if TYPE_CHECKING:
    from streams.agents.step_spans import StepSpans

STEP_RECORDS = 100
"""Bound of the records of usual length in one atomic step: a longer step would hold up requests."""

RECORD_BYTES = 5000
"""Longer records count for more than one."""

RECORDS = Counter("recommender_records_total", "Metadata records by outcome", ["outcome"])


def metadata_agent(
    tenants: Tenants,
    *,
    publish: Publish,
    log: PartitionLog,
    clock: Callable[[], float],
    spans: StepSpans | None = None,
    writer: StepWriter[RecordEntry] | None = None,
) -> AtomicBatches[RecordEntry]:
    """The agent of the metadata topics; one for each worker process.

    Parameters
    ----------
    publish
        Produces to the topic of dead letters.
    clock
        The present in Unix seconds.
    spans
        Traces the messages of each step; None for no traces.
    writer
        Writes the records; None for the store of a group of one shard.
    """
    kept_bytes = tenants.settings.dead_letter_payload_bytes
    codec = RecordCodec(tenants.settings, clock)
    return AtomicBatches(
        tenants,
        codec,
        writer or RecordWriter(tenants.store(tenants.settings.group)),
        DeadLetterQueue("metadata", publish, clock, kept_bytes, RECORDS.labels("dead")),
        log=log,
        step_size=STEP_RECORDS,
        splitter=codec,
        spans=spans,
    )


class RecordCodec:
    """Decodes metadata records and their removals: a `MessageCodec` and `MessageSplitter`."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        topics = Topics.of(settings)
        self._kinds: dict[str, RecordKind] = {topics.items: "items", topics.users: "users"}

    def size(self, received: ReceivedMessage) -> int:
        """1 for a record of usual length, more for a longer one."""
        return 1 + len(received.value) // RECORD_BYTES

    async def decode(self, received: ReceivedMessage) -> RecordEntry:
        """The record as the store takes it; asks Redis nothing.

        Raises
        ------
        Rejection
            It is invalid.
        """
        kind = self._kinds[received.topic]
        try:
            record = parse_record(
                kind,
                received.key,
                received.value,
                now_s=self._clock(),
                future_limit_s=self._settings.future_limit_s,
            )
            entry = record_entry(received.offset, kind, record, own_group=self._settings.group)
        except InvalidRecord as error:
            group = received.key.partition(b"/")[0].decode(errors="replace")[:63]
            raise Rejection("invalid", str(error), received.value, group=group) from error
        if entry.group and self._settings.shards > 1:
            detail = f"group {entry.group} needs settings of one shard"
            raise Rejection("invalid", detail, received.value, group=entry.group)
        _, timestamp_ms, checksum = received.witness
        return entry._replace(timestamp_ms=timestamp_ms, checksum=checksum)

    def without_effects(self, received: ReceivedMessage) -> RecordEntry:
        """An entry that only moves the watermark."""
        _, timestamp_ms, checksum = received.witness
        return RecordEntry(received.offset, timestamp_ms=timestamp_ms, checksum=checksum)

    def split(
        self, received: ReceivedMessage, message: RecordEntry, result: PartResult
    ) -> tuple[Rejection, RecordEntry]:
        """The whole record: its group is gone, or holds as many as it may; nothing is left."""
        group = message.group or self._settings.group
        reason, detail = (
            ("invalid", f"unknown group {group!r}")
            if result.status == "gone"
            else (FULL, f"group {group} holds max_{message.kind} {message.kind}")
        )
        rejection = Rejection(reason, detail, received.value, group=group)
        return rejection, self.without_effects(received)


class RecordWriter:
    """Writes metadata records to the store: a `StepWriter`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(self, parts: Sequence[BatchPart[RecordEntry]]) -> list[PartResult]:
        """Apply parts in one atomic step; one result for each."""
        return await apply_records(self._store, [RecordPart(*part[:4]) for part in parts])

    def on_applied(self, messages: Sequence[RecordEntry]) -> None:
        """Count the records that have come into effect."""
        RECORDS.labels("applied").inc(sum(bool(entry.kind) for entry in messages))
