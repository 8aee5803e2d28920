"""The topics of a broker: their identifiers and partitions."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from pathlib import Path

from kafka.errors import (
    InvalidPartitionsError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from ops.broker.stored_partition import StoredPartition

MAX_PARTITIONS = 4096
"""Most partitions of all topics together."""

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS

_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True)
class Topic:
    """A topic: its identifier, new whenever it is made, and its partitions."""

    name: str
    topic_id: uuid.UUID
    partitions: list[StoredPartition]


class TopicCatalog:
    """All topics by name.

    Parameters
    ----------
    folder
        Where files of messages are made.
    """

    def __init__(self, folder: Path) -> None:
        self.topics: dict[str, Topic] = {}
        self._folder = folder

    def create(
        self, name: str, n_partitions: int, n_replicas: int, configs: dict[str, str]
    ) -> Topic:
        """Make a topic; -1 stands for one partition, and for one replica.

        Of the configuration `retention.ms` and `segment.ms` have an effect, and
        `cleanup.policy=compact` keeps messages for ever; nothing is compacted.

        Raises
        ------
        TopicAlreadyExistsError, InvalidTopicError, InvalidPartitionsError
        InvalidReplicationFactorError
            There is one broker, so one replica.
        ValueError
            A time is no whole number.
        """
        if name in self.topics:
            raise TopicAlreadyExistsError(f"topic {name} exists already")
        if not _NAME.fullmatch(name) or name in {".", ".."}:
            raise InvalidTopicError(f"{name!r} is no name of a topic")
        n_partitions = 1 if n_partitions == -1 else n_partitions
        used = sum(len(topic.partitions) for topic in self.topics.values())
        if not 1 <= n_partitions <= MAX_PARTITIONS - used:
            raise InvalidPartitionsError(f"a topic has 1 to {MAX_PARTITIONS - used} partitions")
        if n_replicas not in {-1, 1}:
            raise InvalidReplicationFactorError("there is one broker, so one replica")
        retention_ms = int(configs.get("retention.ms", WEEK_MS))
        if "compact" in configs.get("cleanup.policy", "delete"):
            retention_ms = -1
        segment_ms = max(1, int(configs.get("segment.ms", DAY_MS)))
        logs = [
            StoredPartition(self._folder, retention_ms=retention_ms, segment_ms=segment_ms)
            for _ in range(n_partitions)
        ]
        topic = self.topics[name] = Topic(name, uuid.uuid4(), logs)
        return topic

    def delete(self, name: str) -> None:
        """Remove a topic and its messages; raises UnknownTopicOrPartitionError."""
        topic = self.topics.pop(name, None)
        if topic is None:
            raise UnknownTopicOrPartitionError
        for log in topic.partitions:
            log.close()

    def partition(self, name: str, number: int) -> StoredPartition:
        """The messages of a partition; raises UnknownTopicOrPartitionError."""
        topic = self.topics.get(name)
        if topic is None or not 0 <= number < len(topic.partitions):
            raise UnknownTopicOrPartitionError
        return topic.partitions[number]

    def drop_old(self, now_ms: int) -> None:
        """Remove messages older than their topic keeps them."""
        for topic in self.topics.values():
            for log in topic.partitions:
                log.drop_old(now_ms)
