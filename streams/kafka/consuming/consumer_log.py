"""Kafka's partitions as the consumer of a Faust app reads them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import faust
from aiokafka.errors import IllegalStateError, KafkaError
from faust.types import TP

from models.errors import Unreadable
from streams.kafka.consuming.assignment import Partition, ReadStart

LOG = logging.getLogger(__name__)


class ConsumerLog:
    """Kafka's partitions as an app's consumer reads them: a `PartitionLog`, in part."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    async def seek(self, starts: Mapping[Partition, ReadStart]) -> Mapping[Partition, int]:
        """Begin new reads; returns the offset at which each begins."""
        try:
            begun: Mapping[Partition, int] = await self._app.consumer.begin(starts)
        except (IllegalStateError, KafkaError) as error:
            LOG.warning("Kafka is away, the rewind is tried again later: %r", error)
            return {}
        return begun

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int | None:
        """First offset whose message is no older than this; None if there is none."""
        offset: int | None = await self._app.consumer.offset_at(partition, timestamp_ms)
        return offset

    def end(self, partition: Partition) -> int | None:
        """Next offset to be written, as of the last fetch; None if unknown."""
        end: int | None = self._app.consumer.highwater(TP(*partition))
        return end

    def next_readable(self, partition: Partition, offset: int) -> int:
        """First offset from this one on that may hold a message to read."""
        reached: int = self._app.consumer.next_readable(partition, offset)
        return reached

    def connection(self, partition: Partition) -> int | None:
        """Number that grows with each new connection to the partition's broker; None if unknown."""
        known: int | None = self._app.consumer.connections(partition)
        return known

    def unreadable(self) -> list[Unreadable]:
        """Unreadable messages, each of which has stopped its own partition."""
        try:
            found: list[Unreadable] = self._app.consumer.unreadable()
        except (AssertionError, IllegalStateError):  # an assignment may end at any moment
            return []
        return found

    async def reload(self) -> None:
        """Load the positions of all assigned partitions again, as after a rebalance."""
        try:
            await self._app.consumer.perform_seek()
        except KafkaError as error:
            LOG.warning("Kafka is away, positions are loaded again later: %r", error)
