"""Moves a group to more or fewer shards while it serves: topics, the move, what is left over."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from models.errors import ReshardRefused, Unavailable
from models.personalize.resources.job_queue import Jobs
from models.personalize.resources.registry import Registry
from models.settings import Settings
from models.state.clients.client import RedisClient, client_of
from models.state.clients.redis_errors import AWAY_ERRORS, unavailable
from models.state.groups.group_registry import registered_groups
from models.state.operations.memory import read_memory
from models.state.resharding.group_move import GroupMove, TellMove
from models.state.resharding.leftovers import remove_leftovers, stay_frozen
from models.state.resharding.owner_pages import mend_owner_pages
from models.state.resharding.record_copy import RecordMark
from models.state.shards.shard_names import MAX_SHARDS
from models.state.shards.stored_layout import (
    ShardLayout,
    fix_layout,
    next_generation,
    stored_layout,
)
from streams.kafka.topics import Topics, ensure_topics, remove_topics, topic_ids

KEPT_S = 10.0
"""Time for which the keys of before stay behind the switch: for answers that began with them."""


class Resharded(NamedTuple):
    """Report of a move.

    Attributes
    ----------
    before, after
        Numbers of shards.
    pause_s
        Time for which no event took effect.
    n_histories, n_items
        What was copied.
    n_removed
        Keys of other layouts that were removed.
    """

    before: int
    after: int
    pause_s: float
    n_histories: int
    n_items: int
    n_removed: int


async def reshard(
    settings: Settings, shards: int, *, longest_pause_s: float = math.inf, tell: TellMove
) -> Resharded:
    """Move the settings' group to another number of shards; see `models.state.resharding`.

    It may be killed anywhere: run again, it goes on. Cancelled before the new layout is stored, it
    leaves everything as it was.

    Parameters
    ----------
    settings
        On the stored shards of the group.
    longest_pause_s
        Time for which events may wait, at most.
    tell
        Is told what is done.

    Raises
    ------
    ReshardRefused
        It cannot be done; nothing has changed.
    InvalidSetting
        A setting does not go with so many shards.
    TopicMismatch
        Kafka does not permit to make the topics of deltas, or to delete those of before.
    Unavailable
        Redis or Kafka does not answer.
    """
    if not 1 <= shards <= MAX_SHARDS:
        raise ReshardRefused(f"a group has 1 to {MAX_SHARDS} shards, not {shards}")
    settings.on_shards(shards, 0)
    client = client_of(settings)
    try:
        with unavailable():
            return await _reshard(client, settings, shards, longest_pause_s, tell)
    finally:
        await client.aclose()


async def _reshard(
    client: RedisClient, settings: Settings, shards: int, longest_pause_s: float, tell: TellMove
) -> Resharded:
    fields, of_records = await asyncio.to_thread(_fields, settings, shards)
    source = ShardLayout(settings.shards, settings.generation)
    await _refuse(client, settings, source, shards)
    target = ShardLayout(shards, await next_generation(client, settings.group))
    move = GroupMove(client, settings, source, target, fields=fields, records=of_records, tell=tell)
    # At the group's own name those of metadata have the name that they have with one shard.
    gone = [*fields, *(min(one.source, one.target, key=len) for one in of_records)]
    async with move.begun():
        # What another process has stored since these settings were made.
        if await stored_layout(client, settings.group) not in {None, source}:
            raise ReshardRefused("somebody else has moved the group meanwhile: run it again")
        move.doing("removing what an earlier run has left")
        n_removed = await remove_leftovers(client, settings, source, gone)
        await asyncio.to_thread(_remove_topics, settings, source.generation, target.generation)
        if shards == source.shards:
            return Resharded(shards, shards, 0.0, 0, 0, n_removed)
        await fix_layout(client, settings.group, source.shards)
        moved = settings.on_shards(*target)
        await asyncio.to_thread(ensure_topics, moved)
        move.doing("looking at the names of histories")
        await mend_owner_pages(client, settings, source)
        try:
            await move.run(longest_s=longest_pause_s)
        finally:
            if not move.has_switched and move.is_ours:
                await asyncio.shield(_give_up(client, settings, source, target, gone))
        move.doing("waiting for answers under way")
        await asyncio.sleep(KEPT_S)
        move.doing("removing the keys of before")
        await stay_frozen(client, source.all_prefixes(settings.group))
        n_removed += await remove_leftovers(client, settings, target, gone)
        await asyncio.to_thread(_remove_topics, settings, target.generation, target.generation)
    return Resharded(source.shards, shards, move.pause_s, move.n_histories, move.n_items, n_removed)


def _fields(settings: Settings, shards: int) -> tuple[list[str], list[RecordMark]]:
    """Fields of the watermarks of all partitions of events, and of metadata."""
    topics = Topics.of(settings)
    moved = dataclasses.replace(topics, has_shards=shards > 1)
    events = {topics.clicks, topics.purchases}
    ids = topic_ids(settings, [*events, topics.items, topics.users])
    fields, of_records = [], []
    for name, incarnation in ids.items():
        for number in range(settings.partitions):
            field = topics.field(name, incarnation, number)
            if name in events:
                fields.append(field)
                continue
            target = moved.field(name, incarnation, number)
            of_records.append(RecordMark("i" if name == topics.items else "u", field, target))
    return fields, of_records


def _remove_topics(settings: Settings, current: int, newest: int) -> None:
    """Delete the topics of deltas of all layouts but the current one."""
    topics = Topics.of(settings)
    others = (n for n in range(newest + 1) if n != current)
    remove_topics(
        settings,
        [name for n in others for name in dataclasses.replace(topics, generation=n).deltas(2)],
    )


async def _give_up(
    client: RedisClient,
    settings: Settings,
    source: ShardLayout,
    target: ShardLayout,
    fields: Sequence[str],
) -> None:
    """Remove what has been copied; a later run does what fails here."""
    try:
        await remove_leftovers(client, settings, source, fields)
        await asyncio.to_thread(_remove_topics, settings, source.generation, target.generation)
    except (Unavailable, *AWAY_ERRORS):
        return


async def _refuse(
    client: RedisClient, settings: Settings, source: ShardLayout, shards: int
) -> None:
    """Refuse what cannot be done.

    Raises
    ------
    ReshardRefused
        The text says why, and what to do.
    """
    group = settings.group
    home = f"{{{group}}}:"
    first = source.prefixes(group, "u")[0]
    is_known = await stored_layout(client, group) or await client.exists(first + "counts")
    if not is_known:
        raise ReshardRefused(
            f"group {group} has no state yet: set RECOMMENDER_SHARDS={shards} in all its processes"
        )
    if shards != source.shards and await Jobs(Registry(client, settings)).unfinished(1):
        raise ReshardRefused(
            "jobs are under way, which read the state for as long as they run: wait for them, "
            "see `recommender status`"
        )
    if source.shards > 1 or shards == 1:
        return
    for what, is_there, remedy in (
        ("other dataset groups", bool(await registered_groups(client) - {group}), "delete them"),
        (
            "contextual columns",
            bool(await client.exists(home + "columns")),
            "delete the solutions that name them",
        ),
    ):
        if is_there:
            raise ReshardRefused(
                f"group {group} has {what}, which do not know shards: {remedy} first, see "
                "docs/scaling.md#what-is-refused"
            )
    if not settings.redis_cluster:
        memory = await read_memory(client)
        if memory.limit_bytes and 2 * memory.used_bytes > memory.limit_bytes:
            raise ReshardRefused(
                f"Redis has {memory.used_bytes:,} of {memory.limit_bytes:,} bytes in use, and a "
                "move needs room for all state a second time: raise maxmemory for it"
            )
