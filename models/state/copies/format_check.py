"""Stored state that this release cannot read, or that is not whole, is refused before any work."""

from __future__ import annotations

import asyncio

from models.errors import CannotStart
from models.settings import Settings
from models.state import layout
from models.state.clients.client import RedisClient, client_of
from models.state.clients.redis_errors import unavailable
from models.state.groups.group_registry import registered_groups, unfinished_replacement


def check_format(settings: Settings) -> None:
    """Return when the state of every group in Redis is of this release's format and whole.

    None at all is whole.

    Some round trips, whatever the store holds. Not to be called inside an event loop.

    Raises
    ------
    CannotStart
        A group's state is of another format; or a restore is under way or was broken off.
    Unavailable
        Redis does not answer.
    """

    async def read() -> tuple[str | None, dict[str, int | None], int]:
        async with client_of(settings) as client:
            groups = sorted({settings.group, *await registered_groups(client)})
            if settings.shards > 1:
                groups.append(f"{settings.group}/u00")
            formats = {group: await stored_format(client, group) for group in groups}
            shards = await stored_shards(client, settings.group)
            return await unfinished_replacement(client), formats, shards

    with unavailable():
        unfinished, formats, shards = asyncio.run(read())
    if unfinished is not None:
        raise CannotStart(
            f"{unfinished} is under way or was broken off, so the state in Redis is not whole: "
            "wait for it, or run it again"
        )
    # State of one shard says nothing of shards.
    shards = shards or int(formats[settings.group] is not None)
    if shards not in {0, settings.shards}:
        raise CannotStart(
            f"the state of group {settings.group} in Redis is on {shards} shard(s), and "
            f"RECOMMENDER_SHARDS={settings.shards}: the number is fixed with the group"
        )
    for group, stored in formats.items():
        if stored not in {None, layout.STATE_FORMAT}:
            raise CannotStart(
                f"the state of group {group} in Redis is in format {stored}, and this release "
                f"reads format {layout.STATE_FORMAT}: stop all processes and run `recommender "
                "rebuild`, which has it learned again from what Kafka holds (of embedded servers, "
                f"delete the folder {settings.data_dir})"
            )


async def stored_shards(client: RedisClient, group: str) -> int:
    """Number of shards of a group of several; 0 for one shard, or without state."""
    return int(await client.hget(f"{{{group}}}:counts", "shards") or 0)


async def note_shards(client: RedisClient, settings: Settings) -> None:
    """Fix the number of shards of a group of several, before anything is applied.

    Raises
    ------
    CannotStart
        It is another already.
    """
    if settings.shards == 1:
        return
    await client.hsetnx(f"{{{settings.group}}}:counts", "shards", settings.shards)
    stored = await stored_shards(client, settings.group)
    if stored != settings.shards:
        raise CannotStart(
            f"group {settings.group} has {stored} shards, and RECOMMENDER_SHARDS={settings.shards}"
        )


async def stored_format(client: RedisClient, group: str) -> int | None:
    """The format of a group's state; None if there is none yet, 0 if it is older than the numbers.

    The scripts note `layout.STATE_FORMAT` in a group's counts before its first event.

    Raises
    ------
    redis.exceptions.RedisError
        Redis does not answer.
    """
    stored, events = await client.hmget(f"{{{group}}}:counts", "format", "events")
    if stored is None:
        return None if events is None else 0
    return int(stored)
