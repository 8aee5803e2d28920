"""Stored state that this release cannot read, or that is not whole, is refused before any work."""

from __future__ import annotations

import asyncio

from models.errors import CannotStart
from models.settings import Settings
from models.state import layout
from models.state.client import RedisClient, client_of
from models.state.groups import registered_groups, unfinished_replacement
from models.state.redis_errors import unavailable


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

    async def read() -> tuple[str | None, dict[str, int | None]]:
        async with client_of(settings) as client:
            groups = sorted({settings.group, *await registered_groups(client)})
            formats = {group: await stored_format(client, group) for group in groups}
            return await unfinished_replacement(client), formats

    with unavailable():
        unfinished, formats = asyncio.run(read())
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
