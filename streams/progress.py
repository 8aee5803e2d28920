"""How far an agent is in its partitions, and what continues it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

OVERDUE_AFTER = 10
"""Looks that find nothing of what is to be read again, before it is asked for once more."""

Partition = tuple[str, int]


class Arrival(NamedTuple):
    """A Kafka message as it arrived."""

    topic: str
    partition: int
    offset: int
    value: bytes
    key: bytes = b""


@dataclass
class Rereading:
    """A partition that is read again: whatever lies beyond `last` was fetched before.

    Attributes
    ----------
    dropped
        The greatest offset that has arrived and was not taken; -1 for none.
    looks
        How often somebody looked since then.
    """

    last: int
    dropped: int = -1
    looks: int = 0


@dataclass
class Progress:
    """How far each partition is: the offset whose effects the next message follows."""

    epoch: int = 0
    applied: dict[Partition, int] = field(default_factory=dict)
    fields: dict[Partition, str] = field(default_factory=dict)
    _rereading: dict[Partition, Rereading] = field(default_factory=dict)

    def assigned(self, watermarks: Mapping[Partition, tuple[str, int]]) -> None:
        """Start at the store's watermarks: watermark field and offset of each partition.

        Whatever arrived before will arrive again, and must not be applied out of order.
        """
        self.epoch += 1
        self.applied.clear()
        self.fields.clear()
        self._rereading.clear()
        for partition, (name, offset) in watermarks.items():
            self.fields[partition] = name
            self.applied[partition] = offset

    def rewound(self, partition: Partition, watermark: int) -> None:
        """The store has only effects up to `watermark`; expect to read again from there."""
        before = self._rereading.get(partition, Rereading(-1))
        last = max(self.applied[partition], before.last, before.dropped)
        self._rereading[partition] = Rereading(last)
        self.applied[partition] = watermark

    def expects(self, partition: Partition, offset: int) -> bool:
        """Whether a message continues what was applied.

        After going back, messages fetched earlier still arrive: they lie beyond all that was
        applied before, and are dropped until one at or below that arrives.
        """
        if partition not in self.applied:
            return False
        rereading = self._rereading.get(partition)
        if rereading is not None:
            if offset > rereading.last:
                rereading.dropped = max(rereading.dropped, offset)
                return False
            del self._rereading[partition]
        return True

    def overdue(self) -> list[Partition]:
        """Partitions of which nothing arrives that was to be read again, though later ones do.

        Kafka has removed it meanwhile, by compaction or for its age. To be called now and then.
        """
        found = []
        for partition, rereading in self._rereading.items():
            rereading.looks += rereading.dropped >= 0
            if rereading.looks >= OVERDUE_AFTER:
                found.append(partition)
        return found
