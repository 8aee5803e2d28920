"""Status of the stream: lag of each partition, freshness, counts, dead letters, forwarding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from models.errors import Unavailable
from models.kafka_operations import RunningWorker
from models.personalize.resources.job_queue import Jobs
from models.personalize.resources.registry import Registry
from models.personalize.resources.resource import Resource
from models.ranking.champions import stored_champions
from models.settings import Settings
from models.state.clients.client import client_of
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.operations import forwarding_ledger, stuck_readers
from models.state.operations.catch_ups import CatchUpState, stored_catch_up
from models.state.operations.memory import Family, Memory, read_families, read_memory
from models.state.operations.running_workers import running_workers
from models.state.operations.shard_figures import ShardFigures, read_shard_figures
from models.state.shards.sharded_store import store_of
from models.state.shards.stored_layout import move_text, settings_on_stored_shards
from models.state.stored_ranker import load_ranker
from streams.kafka.consuming.assignment import Partition
from streams.kafka.consuming.offsets import (
    FirstWaiting,
    PartitionEnd,
    first_waiting,
    partition_ends,
)
from streams.kafka.dead_letters import waiting_letters
from streams.kafka.topics import Topics, topic_ids


class PartitionStatus(msgspec.Struct, frozen=True):
    """One partition of a topic: the next offset to write, and the last one in effect."""

    topic: str
    partition: int
    end: int
    watermark: int
    lag: int


class JobStatus(msgspec.Struct, frozen=True):
    """An unfinished job, and the progress of its current step.

    Attributes
    ----------
    what, done, known
        Unit of progress, such as `rows sent`; number done, and in total; 0 if unknown.
    """

    path: str
    status: str
    what: str
    done: int
    known: int


class ShardStatus(msgspec.Struct, frozen=True):
    """One shard of several: `ShardFigures`, and the messages of deltas that wait for it."""

    name: str
    lag: int
    waiting: int
    applied: int
    keys: int
    bytes: int


class Status(msgspec.Struct, frozen=True):
    """Everything `recommender status` shows.

    Attributes
    ----------
    lag
        Messages that are not in effect yet.
    oldest_unapplied_age_s
        Time since Kafka got the oldest of them; 0 if there are none.
    newest_event_age_s
        Age of the newest event in effect, by its acceptance; None before the first.
    serving, examples, quality
        By objective: the champion, the number of examples learned, and running HR@20, MRR@20 and
        NDCG@20 of the ranker and the models compared with it.
    forward
        Counts of the forwarder, messages that wait for it, and the age of the oldest; empty if it
        never ran.
    trackers
        Its counts by tracker, and the events under way to AWS.
    jobs
        Unfinished jobs of every group; 100 at most.
    redis
        Memory of the Redis server.
    unreadable
        Partitions that stand still at an unreadable batch.
    families
        Estimated memory by family of keys, of all groups.
    catch_up
        The ranker's last catch-up with kept events.
    workers
        Workers that are running, with their partitions.
    shards
        Each shard of a group of several.
    moving
        What is done of a move to other shards, for which events wait; empty without one.
    """

    group: str
    lag: int
    oldest_unapplied_age_s: float
    newest_event_age_s: float | None
    counts: dict[str, int]
    dead_letters: int
    partitions: list[PartitionStatus]
    serving: dict[str, str]
    examples: dict[str, int]
    quality: dict[str, dict[str, dict[str, float]]]
    forward: dict[str, float | str]
    trackers: dict[str, dict[str, float | str]] = {}
    jobs: list[JobStatus] = []
    redis: Memory = Memory()
    unreadable: list[stuck_readers.StuckReader] = []
    families: dict[str, Family] = {}
    catch_up: CatchUpState | None = None
    workers: list[RunningWorker] = []
    shards: list[ShardStatus] = []
    moving: str = ""


async def read_status(settings: Settings, *, now_s: float) -> Status:
    """The status, read from Kafka and Redis.

    Raises
    ------
    Unavailable
        One of them does not answer.
    """
    client = client_of(settings)
    try:
        settings = await settings_on_stored_shards(client, settings)
        moving = await move_text(client, settings)
    except AWAY_ERRORS as error:
        await client.aclose()
        raise Unavailable(f"Redis at {settings.redis} does not answer: {error}") from error
    topics = Topics.of(settings)
    events = (topics.clicks, topics.purchases)
    others = (topics.items, topics.users, topics.served, *topics.deltas(settings.shards))
    ids = topic_ids(settings, [*events, *others])
    ends = partition_ends(settings, [*ids, topics.dead_letters])
    store = store_of(client, settings)
    try:
        fields = {tp: topics.field(tp[0], ids[tp[0]], tp[1]) for tp in ends if tp[0] in ids}
        marks = await store.watermarks(list(fields.values()))
        counts = await store.counts()
        ranker = await load_ranker(store)
        forward = await forwarding_ledger.forward_counts(store.redis, settings.group)
        positions = await forwarding_ledger.forward_positions(store.redis, settings.group)
        trackers = await forwarding_ledger.tracker_status(store.redis, settings.group, now_s=now_s)
        stuck = await stuck_readers.reported(store.redis, settings.group, now_s=now_s)
        workers = await running_workers(store.redis, settings.group, now_s=now_s)
        jobs = await Jobs(Registry(store.redis, settings)).unfinished()
        memory = await read_memory(store.redis)
        families = await read_families(store)
        shards = await read_shard_figures(store)
    except AWAY_ERRORS as error:
        raise Unavailable(f"Redis at {settings.redis} does not answer: {error}") from error
    finally:
        await store.close()
    nexts = {tp: mark + 1 for tp, mark in zip(fields, marks, strict=True)}
    unapplied = first_waiting(settings, nexts, ends)
    partitions = [
        PartitionStatus(*tp, ends[tp].written, at - 1, _behind(unapplied, ends, [tp]))
        for tp, at in nexts.items()
    ]
    is_forwarding = bool(positions or trackers)
    unsent = (
        first_waiting(
            settings,
            {tp: positions.get(field, 0) for tp, field in fields.items() if tp[0] in events},
            ends,
        )
        if is_forwarding
        else {}
    )
    champions = stored_champions(ranker)
    accepted_at = counts.pop("accepted_at", 0.0)
    hidden = ("format", "item_index", "owner_index", "session_index", "clock", "applied_at")
    return Status(
        group=settings.group,
        lag=sum(partition.lag for partition in partitions),
        oldest_unapplied_age_s=_age_s(unapplied, now_s),
        newest_event_age_s=round(now_s - accepted_at, 3) if accepted_at else None,
        counts={name: int(count) for name, count in sorted(counts.items()) if name not in hidden},
        dead_letters=waiting_letters(settings, {tp: end.stable for tp, end in ends.items()}),
        partitions=partitions,
        serving={name: champion.name for name, champion in champions.items()},
        examples={name: champion.measures.n for name, champion in champions.items()},
        quality={name: champion.measures.means for name, champion in champions.items()},
        forward=msgspec.to_builtins(forward)
        | {
            "waiting": _behind(unsent, ends, list(unsent)),
            "oldest_waiting_age_s": _age_s(unsent, now_s),
        }
        if is_forwarding
        else {},
        trackers=trackers,
        jobs=[_job(job) for job in jobs],
        redis=memory,
        unreadable=stuck,
        families=families,
        catch_up=stored_catch_up(ranker),
        workers=workers,
        shards=[_shard(one, partitions, topics) for one in shards],
        moving=moving,
    )


def _shard(
    figures: ShardFigures, partitions: Iterable[PartitionStatus], topics: Topics
) -> ShardStatus:
    topic = topics.session_deltas if figures.name[0] == "u" else topics.item_deltas
    place = topic, int(figures.name[1:])
    lag = sum(one.lag for one in partitions if (one.topic, one.partition) == place)
    return ShardStatus(
        figures.name, lag, figures.waiting, figures.applied, figures.keys, figures.bytes
    )


def _job(job: Resource) -> JobStatus:
    return JobStatus(job.path, job.status, *job.hidden.get("progress", ("", 0, 0)))


def _behind(
    waiting: Mapping[Partition, FirstWaiting],
    ends: Mapping[Partition, PartitionEnd],
    partitions: Iterable[Partition],
) -> int:
    """Number of offsets from the first waiting message to the end, in these partitions."""
    return sum(ends[tp].written - waiting[tp].offset for tp in partitions if tp in waiting)


def _age_s(waiting: Mapping[Partition, FirstWaiting], now_s: float) -> float:
    since_s = [first.since_s for first in waiting.values() if first.since_s is not None]
    return round(max(0.0, now_s - min(since_s, default=now_s)), 3)
