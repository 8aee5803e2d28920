"""Kafka as operators see it: waiting dead letters, events as they come, and the lag."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

SHOWN_BYTES = 4096
"""Bytes of a dead letter's message that are shown."""


class LetterPlace(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Partition and offset of a dead letter in its topic."""

    partition: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class WaitingLetter(msgspec.Struct, frozen=True, rename="camel"):
    """A dead letter that was neither replayed nor discarded."""

    partition: int
    offset: int
    at: Annotated[float, Meta(description="When it was given up, Unix seconds.")]
    stage: Annotated[str, Meta(description="What gave up on it: sessions, metadata, forward …")]
    reason: str
    detail: str
    group: Annotated[str, Meta(description="Dataset group it was for; empty if unknown.")]
    source: Annotated[str, Meta(description="Its message: <topic>/<partition>/<offset>.")]
    payload: Annotated[
        str, Meta(description=f"The message in base64, its first {SHOWN_BYTES} bytes.")
    ]
    payload_bytes: Annotated[int, Meta(description="Length of what the letter has of it.")]


class KeptLetter(msgspec.Struct, frozen=True, rename="camel"):
    """A dead letter whose message was not sent again, and why; it waits as a new one."""

    source: str
    reason: str


class ReplayResult(msgspec.Struct, frozen=True, rename="camel"):
    """Result of a replay."""

    sent: Annotated[int, Meta(description="Messages that were sent again.")]
    kept: list[KeptLetter]


class TailedEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An event as it came to Kafka."""

    topic: Annotated[str, Meta(description="clicks or purchases.")]
    partition: int
    offset: int
    accepted_at: Annotated[float | None, Meta(description="Unix seconds; null if not said.")]
    event_id: str
    event_type: str
    item_id: str | None
    user_id: str | None
    session_id: str
    after: Annotated[str, Meta(description="Token that follows it.")]


class TailedEvents(msgspec.Struct, frozen=True, rename="camel"):
    """Events since the last message of /tail."""

    events: list[TailedEvent]
    left_out: Annotated[int, Meta(description="Events that came too fast to be shown.")]


class FoundEvents(msgspec.Struct, frozen=True, rename="camel"):
    """Events of an id, in the order of each partition."""

    events: list[TailedEvent]
    searched: Annotated[int, Meta(description="Newest messages that were looked through.")]


class PartitionLag(msgspec.Struct, frozen=True, rename="camel"):
    """A partition of a topic, and how far its messages are in effect."""

    topic: str
    partition: int
    end: Annotated[int, Meta(description="Next offset to be written.")]
    watermark: Annotated[int, Meta(description="Offset of the last message in effect; -1: none.")]
    lag: int


class KeyFamily(msgspec.Struct, frozen=True, rename="camel"):
    """Keys of one kind in Redis, of all groups: estimates of a sample."""

    name: str
    keys: int
    bytes: int


class ShardLoad(msgspec.Struct, frozen=True, rename="camel"):
    """A shard of a group of several: session shards are named u00, item shards i00."""

    name: str
    lag: Annotated[int, Meta(description="Messages of deltas that are not in effect.")]
    waiting: Annotated[int, Meta(description="Values in outboxes that it has not applied.")]
    applied: Annotated[int, Meta(description="Events, or changes of items, since it began.")]
    keys: Annotated[int, Meta(description="About; 0: not known.")]
    bytes: int


class RunningWorker(msgspec.Struct, frozen=True, rename="camel"):
    """A worker, as it said last."""

    name: Annotated[str, Meta(description="Host and process id.")]
    started_at: Annotated[float, Meta(description="Unix seconds.")]
    at: Annotated[float, Meta(description="When it said so.")]
    partitions: Annotated[
        dict[str, list[int]], Meta(description="By topic, the partitions that it has.")
    ]
    lag: Annotated[int, Meta(description="Messages of these that are not in effect.")]


class StreamStatus(msgspec.Struct, frozen=True, rename="camel"):
    """State of the stream: what `recommender status` shows of Kafka and Redis."""

    lag: Annotated[int, Meta(description="Messages that are not in effect.")]
    oldest_unapplied_age_s: float
    dead_letters: Annotated[
        int, Meta(description="Those that were neither replayed nor discarded.")
    ]
    partitions: list[PartitionLag]
    unreadable: Annotated[list[str], Meta(description="Partitions that stand still, and why.")]
    memory_bytes: int
    memory_limit_bytes: Annotated[int, Meta(description="0: none.")]
    families: Annotated[list[KeyFamily], Meta(description="The largest first.")]
    serving: Annotated[dict[str, str], Meta(description="By objective, the order that serves.")]
    jobs: Annotated[list[str], Meta(description="Unfinished jobs, with their progress.")]
    workers: Annotated[
        list[RunningWorker], Meta(description="Workers that are running, with their partitions.")
    ]
    shards: Annotated[list[ShardLoad], Meta(description="Of a group of several shards.")]
