"""Kafka's partitions as agents read them: questions about them wait while Kafka is away."""

from __future__ import annotations

import asyncio
import functools

import faust
from aiokafka.errors import KafkaError

from models.settings import Settings
from streams.kafka.consuming.assignment import Partition
from streams.kafka.consuming.consumer_log import ConsumerLog
from streams.kafka.producing.produce_errors import classified
from streams.kafka.topics import Topics, topic_ids
from streams.retry_policy import AWAY, retry_outages


class AgentLog(ConsumerLog):
    """Kafka's partitions as a worker's agents read them: a `PartitionLog`."""

    def __init__(self, app: faust.App, settings: Settings) -> None:
        super().__init__(app)
        self._settings = settings
        self._topics = Topics.of(settings)

    async def offset_at(self, partition: Partition, timestamp_ms: int) -> int | None:
        """First offset whose message is no older than this; waits while Kafka is away."""
        ask = functools.partial(super().offset_at, partition, timestamp_ms)

        async def find() -> int | None:
            try:
                return await ask()
            except KafkaError as error:
                explained = classified(error)
                if explained is None:
                    raise
                raise explained from error

        return await retry_outages(find, AWAY)

    async def is_renewed(self, partition: Partition, field: str) -> bool:
        """True if the topic was deleted and made again; waits while Kafka is away."""
        topic, number = partition

        async def renewed() -> bool:
            ids = await asyncio.to_thread(topic_ids, self._settings, [topic])
            return self._topics.field(topic, ids[topic], number) != field

        return await retry_outages(renewed, AWAY)
