"""Messages that Kafka still has: how far back a rebuild goes, what a restored state will lack."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from models.settings import Settings
from streams.kafka.consuming.assignment import Partition
from streams.kafka.consuming.offsets import (
    end_offsets,
    first_offsets,
    first_waiting,
    partition_ends,
)
from streams.kafka.topics import Topics, topic_ids


class KeptTopic(NamedTuple):
    """Messages of a topic, at most, and when Kafka got the oldest; None if there is none."""

    topic: str
    messages: int
    since_s: float | None


class Gap(NamedTuple):
    """Messages behind a watermark that Kafka no longer has."""

    topic: str
    partition: int
    first: int
    last: int


class MessagesBehind(NamedTuple):
    """Messages that Kafka has behind watermarks.

    Attributes
    ----------
    messages
        That wait, at most.
    gaps
        What is lost.
    renewed
        Topics that are not those of the watermarks: deleted and made again, or of another Kafka.
    """

    messages: int
    gaps: list[Gap]
    renewed: list[str]


def kept_topics(settings: Settings) -> list[KeptTopic]:
    """The topics that state is learned from, with the messages that each has.

    Raises
    ------
    Unavailable
        Kafka does not answer, or lacks a topic.
    """
    names = _names(settings)
    firsts, ends = first_offsets(settings, names), partition_ends(settings, names)
    oldest = first_waiting(settings, firsts, ends)
    found = []
    for name in names:
        own = [tp for tp in firsts if tp[0] == name]
        times = [since for tp in own if tp in oldest and (since := oldest[tp].since_s) is not None]
        kept = sum(ends[tp].stable - firsts[tp] for tp in own)
        found.append(KeptTopic(name, kept, min(times, default=None)))
    return found


def kept_text(settings: Settings) -> Iterator[str]:
    """Lines that say how far back a rebuild from Kafka goes."""
    topics = Topics.of(settings)
    for kept in kept_topics(settings):
        if kept.since_s is None:
            yield f"{kept.topic}: no messages"
        elif kept.topic in {topics.items, topics.users}:
            yield f"{kept.topic}: {kept.messages:,} messages at most; the newest record of each"
        else:
            yield f"{kept.topic}: {kept.messages:,} messages at most, since {_utc(kept.since_s)}"
    days = settings.event_retention_s / 86400
    yield f"events are kept for {days:g} days: what is older is in no rebuild, but in snapshots"


def messages_behind(settings: Settings, watermarks: Mapping[str, int]) -> MessagesBehind:
    """Messages that Kafka has behind the watermarks of a snapshot.

    Raises
    ------
    Unavailable
        Kafka does not answer, or lacks a topic.
    """
    names = _names(settings)
    ids = topic_ids(settings, names)
    firsts, ends = first_offsets(settings, names), end_offsets(settings, names)
    known = {field.rpartition("/")[0] for field in watermarks}
    # A topic that had no messages then has no watermark either.
    is_any_gone = not known <= set(ids.values())
    renewed = [name for name in names if is_any_gone and ids[name] not in known]
    messages, gaps = 0, []
    for tp, end in ends.items():
        following = watermarks.get(f"{ids[tp[0]]}/{tp[1]}", -1) + 1
        first = firsts[tp]
        messages += max(0, end - max(following, first))
        if first > following and tp[0] not in renewed and not _is_compacted(settings, tp):
            gaps.append(Gap(*tp, following, first - 1))
    return MessagesBehind(messages, gaps, renewed)


def messages_behind_text(settings: Settings, watermarks: Mapping[str, int]) -> Iterator[str]:
    """Lines that say what workers will apply to a restored state, and what is lost."""
    found = messages_behind(settings, watermarks)
    yield f"{found.messages:,} messages wait in Kafka, at most: workers apply them at their start"
    for name in found.renewed:
        yield (
            f"WARNING: {name} is another topic than that of the snapshot, or had no messages then: "
            "all of it is applied, and its events count again unless their eventIds are known"
        )
    for gap in found.gaps:
        yield (
            f"WARNING: {gap.topic}/{gap.partition}: messages {gap.first} to {gap.last} came after "
            "the snapshot and are no longer in Kafka: their events are lost, and so are erasures "
            "among them"
        )


def _names(settings: Settings) -> list[str]:
    topics = Topics.of(settings)
    return [topics.clicks, topics.purchases, topics.items, topics.users, topics.served]


def _is_compacted(settings: Settings, partition: Partition) -> bool:
    topics = Topics.of(settings)
    return partition[0] in {topics.items, topics.users}


def _utc(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_s))
