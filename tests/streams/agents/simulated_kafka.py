"""A broker and its consumer in one object: a test decides when messages arrive.

It gives Kafka's guarantees and no others: each read delivers a partition's messages in order from
its start, messages that were fetched before a seek may arrive after it, and a restarted broker may
have lost the end of its log.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from streams.kafka.consuming.assignment import Partition, ReadStart, ReceivedMessage


class Record(NamedTuple):
    """A message in the log."""

    value: bytes
    key: bytes = b"key"
    timestamp_ms: int = 0


@dataclasses.dataclass
class Simulated:
    """One partition: its log, with None for compacted messages, and its reader."""

    records: list[Record | None] = dataclasses.field(default_factory=list)
    oldest: int = 0
    number: int = 0
    position: int = 0
    flying: deque[ReceivedMessage] = dataclasses.field(default_factory=deque)


class SimulatedKafka:
    """A `PartitionLog`, with faults at a test's command."""

    def __init__(self) -> None:
        self.partitions: dict[Partition, Simulated] = {}
        self.assigned: set[Partition] = set()
        self.connections = 1
        self.is_away = False
        self.reloads = 0
        self.renewed: set[Partition] = set()
        self.sought: list[dict[Partition, int]] = []

    def of(self, partition: Partition) -> Simulated:
        """The partition, made when first asked for."""
        return self.partitions.setdefault(partition, Simulated())

    def assign(self, starts: Mapping[Partition, ReadStart]) -> None:
        """Assign these partitions to the worker, each to be read from its start."""
        self.assigned = set(starts)
        for partition, start in starts.items():
            one = self.of(partition)
            one.number, one.position = start.number, max(start.offset, one.oldest)

    def append(self, partition: Partition, value: bytes, key: bytes = b"key") -> int:
        """Append a message to a log; returns its offset."""
        records = self.of(partition).records
        at_ms = 1_000 * sum(len(one.records) for one in self.partitions.values())
        records.append(Record(value, key, at_ms))
        return len(records) - 1

    def fetch(self, partition: Partition, most: int = 10**9) -> None:
        """Fetch messages: they are on their way to the worker until `deliver`."""
        one = self.of(partition)
        if partition not in self.assigned or self.is_away:
            return
        if not one.oldest <= one.position <= len(one.records):
            one.position = one.oldest
        following = one.position
        while most > 0 and one.position < len(one.records):
            record = one.records[one.position]
            if record is not None:
                one.flying.append(
                    ReceivedMessage(
                        *partition,
                        one.position,
                        record.value,
                        record.key,
                        record.timestamp_ms,
                        one.number,
                        following - 1,
                        self.connections,
                    )
                )
                following = one.position + 1
                most -= 1
            one.position += 1

    def deliver(self, partition: Partition, most: int = 10**9) -> list[ReceivedMessage]:
        """The oldest fetched messages that have not arrived yet, in order."""
        flying = self.of(partition).flying
        return [flying.popleft() for _ in range(min(most, len(flying)))]

    def read(self, *partitions: Partition) -> list[ReceivedMessage]:
        """Fetch and deliver everything that lies ahead in these partitions."""
        for partition in partitions:
            self.fetch(partition)
        return [arrival for partition in partitions for arrival in self.deliver(partition)]

    def lose_tail(self, partition: Partition, n: int) -> None:
        """Restart the broker without the last messages of a partition."""
        records = self.of(partition).records
        del records[max(0, len(records) - n) :]
        self.connections += 1

    async def seek(self, starts: Mapping[Partition, ReadStart]) -> Mapping[Partition, int]:
        """Begin new reads."""
        if self.is_away:
            return {}
        found = {}
        for partition in starts.keys() & self.assigned:
            one, start = self.of(partition), starts[partition]
            one.number, one.position = start.number, max(start.offset, one.oldest)
            found[partition] = one.position
        self.sought.append(found)
        return found

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int | None:
        """First offset whose message is no older than this."""
        records = enumerate(self.of(partition).records)
        return next((n for n, r in records if r and r.timestamp_ms >= timestamp_ms), None)

    def end(self, partition: Partition) -> int | None:
        """Next offset to be written."""
        return None if self.is_away else len(self.of(partition).records)

    def connection(self, partition: Partition) -> int | None:  # noqa: ARG002
        """Number that grows with each restart of the broker."""
        return None if self.is_away else self.connections

    async def is_renewed(self, partition: Partition, field: str) -> bool:  # noqa: ARG002
        """True if the topic was deleted and made again."""
        return partition in self.renewed

    async def reload(self) -> None:
        """Count the calls."""
        self.reloads += 1
