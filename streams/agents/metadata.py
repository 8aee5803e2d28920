"""The metadata agent: records of items and users in, the store's atomic step out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import Counter

from models.errors import InvalidRecord
from models.metadata_records import RecordKind, parse_record
from models.serving.tenants import Tenants
from models.state.metadata import RecordEntry, RecordPart, apply_records, record_entry
from models.state.store import PartResult
from streams.agents.atomic_batches import AtomicBatches, Publish
from streams.kafka.assignment import Assignment, PartitionLog, ReceivedMessage
from streams.kafka.dead_letters import FULL
from streams.kafka.topics import Topics

STEP_RECORDS = 100
"""Records of usual length in one atomic step, at most: a longer step would hold up requests."""

RECORD_BYTES = 5000
"""Longer records count for more than one."""

RECORDS = Counter(
    "recommender_records_total", "Metadata records by what became of them", ["outcome"]
)


class MetadataAgent(AtomicBatches[RecordEntry]):
    """Applies batches of metadata messages; one for each worker process."""

    def __init__(
        self, tenants: Tenants, *, publish: Publish, log: PartitionLog, clock: Callable[[], float]
    ) -> None:
        super().__init__(
            tenants,
            publish=publish,
            log=log,
            clock=clock,
            step_size=STEP_RECORDS,
            stage="metadata",
        )
        topics = Topics.of(self.settings)
        self._kinds: dict[str, RecordKind] = {topics.items: "items", topics.users: "users"}

    def _size(self, arrival: ReceivedMessage) -> int:
        return 1 + len(arrival.value) // RECORD_BYTES

    async def _message(self, arrival: ReceivedMessage, assignment: Assignment) -> RecordEntry:  # noqa: ARG002
        settings = self.settings
        try:
            record = parse_record(
                self._kinds[arrival.topic],
                arrival.key,
                arrival.value,
                now_s=self._clock(),
                future_limit_s=settings.future_limit_s,
            )
            entry = record_entry(
                arrival.offset, self._kinds[arrival.topic], record, own_group=settings.group
            )
        except InvalidRecord as error:
            group = arrival.key.partition(b"/")[0].decode(errors="replace")
            return await self._refused(arrival, "invalid", str(error), group[:63])
        _, timestamp_ms, checksum = arrival.witness
        return entry._replace(timestamp_ms=timestamp_ms, checksum=checksum)

    async def _refused(
        self, arrival: ReceivedMessage, reason: str, detail: str, group: str
    ) -> RecordEntry:
        await self._bury(arrival, reason, detail, arrival.value, group=group)
        RECORDS.labels("dead").inc()
        _, timestamp_ms, checksum = arrival.witness
        return RecordEntry(arrival.offset, timestamp_ms=timestamp_ms, checksum=checksum)

    async def _write(
        self, parts: Sequence[tuple[str, int, list[RecordEntry], int]]
    ) -> list[PartResult]:
        return await apply_records(self.store, [RecordPart(*part) for part in parts])

    def _noted(self, messages: Sequence[RecordEntry]) -> None:
        RECORDS.labels("applied").inc(sum(bool(entry.kind) for entry in messages))

    async def _rest(
        self, arrival: ReceivedMessage, message: RecordEntry, result: PartResult
    ) -> RecordEntry:
        group = message.group or self.settings.group
        if result.status == "gone":
            return await self._refused(arrival, "invalid", f"unknown group {group!r}", group)
        detail = f"group {group} holds max_{message.kind} {message.kind}"
        return await self._refused(arrival, FULL, detail, group)
