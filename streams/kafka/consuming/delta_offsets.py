"""Ends of the topics of deltas, which a group of several shards has."""

from __future__ import annotations

from models.settings import Settings
from streams.kafka.consuming.offsets import partition_ends
from streams.kafka.topics import Topics, topic_ids


def last_deltas(settings: Settings) -> dict[str, int]:
    """Last offset of each partition of deltas, by the field of its watermark; none for one shard.

    Topics that do not exist yet have none.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    if settings.shards == 1:
        return {}
    topics = Topics.of(settings)
    ends = partition_ends(settings, topics.deltas(settings.shards))
    ids = topic_ids(settings, sorted({name for name, _ in ends})) if ends else {}
    return {
        topics.field(name, ids[name], number): end.written - 1
        for (name, number), end in ends.items()
        if end.written
    }
