"""Stored state that this release cannot read, or that is not whole, is refused before any work."""

from __future__ import annotations

import asyncio
import logging

from models.errors import CannotStart, SnapshotRefused
from models.settings import Settings
from models.state import layout
from models.state.clients.client import RedisClient, client_of
from models.state.clients.redis_errors import unavailable
from models.state.groups.group_registry import registered_groups, unfinished_replacement
from models.state.shards.stored_layout import (
    Move,
    ShardLayout,
    layout_and_move,
    settings_on_stored_shards,
    stored_layout,
)

LOG = logging.getLogger(__name__)


def check_format(settings: Settings) -> Settings:
    """The settings for the shards that the group has; its state can be read, and is whole.

    That of every group in Redis is of this release's format. None at all is whole.

    Some round trips, whatever the store holds. Not to be called inside an event loop.

    Raises
    ------
    CannotStart
        A group's state is of another format; or a restore is under way or was broken off.
    InvalidSetting
        Something in the settings does not go with the number of shards that the group has.
    Unavailable
        Redis does not answer.
    """

    async def read() -> tuple[str | None, dict[str, int | None], ShardLayout | None]:
        async with client_of(settings) as client:
            groups = sorted({settings.group, *await registered_groups(client)})
            formats = {group: await stored_format(client, group) for group in groups}
            layout = await stored_layout(client, settings.group)
            if layout is not None:
                first = layout.prefixes(settings.group, "u")[0].strip("{}:")
                formats[settings.group] = await stored_format(client, first)
            elif formats[settings.group] is not None:
                # State of one shard says nothing of shards.
                layout = ShardLayout(1)
            return await unfinished_replacement(client), formats, layout

    with unavailable():
        unfinished, formats, found = asyncio.run(read())
    if unfinished is not None:
        raise CannotStart(
            f"{unfinished} is under way or was broken off, so the state in Redis is not whole: "
            "wait for it, or run it again"
        )
    for group, stored in formats.items():
        if stored not in {None, layout.STATE_FORMAT}:
            raise CannotStart(
                f"the state of group {group} in Redis is in format {stored}, and this release "
                f"reads format {layout.STATE_FORMAT}: stop all processes and run `recommender "
                "rebuild`, which has it learned again from what Kafka holds (of embedded servers, "
                f"delete the folder {settings.data_dir})"
            )
    return settings if found is None else _told(settings, found)


def on_stored_shards(settings: Settings) -> Settings:
    """The settings for the layout of shards that the group has, whatever else is stored.

    Raises
    ------
    InvalidSetting, Unavailable
        As `check_format`.
    """

    async def read() -> Settings:
        async with client_of(settings) as client:
            return await settings_on_stored_shards(client, settings)

    with unavailable():
        return asyncio.run(read())


def _told(settings: Settings, found: ShardLayout) -> Settings:
    if found.shards != settings.shards:
        LOG.warning(
            "group %s is on %d shard(s), and RECOMMENDER_SHARDS=%d: the setting counts for a new "
            "group only, and `recommender reshard` moves this one",
            settings.group, found.shards, settings.shards,
        )  # fmt: skip
    return settings.on_shards(*found)


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


def refuse_while_moving(settings: Settings) -> None:
    """Return if the group does not move to other shards: nothing can be saved of two layouts.

    Raises
    ------
    SnapshotRefused
        It does.
    Unavailable
        Redis does not answer.
    """

    async def read() -> Move | None:
        async with client_of(settings) as client:
            return (await layout_and_move(client, settings.group))[1]

    with unavailable():
        move = asyncio.run(read())
    if move is not None:
        raise SnapshotRefused(
            f"group {settings.group} moves to {move.layout.shards} shard(s) ({move.doing}): save "
            "it behind that"
        )
