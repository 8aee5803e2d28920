"""Server-side scripts, each an atomic step even after a crash that tore the append-only file.

Redis writes a step's effects to its append-only file as one transaction. After a crash inside it,
the server may ignore the torn transaction, leave its beginning in the file, append later commands,
and execute that half at its next start: the step, applied again meanwhile, would count twice. So
the file is rewritten from memory before the first step on a restarted server. Such a server has an
empty script cache, which tells of the restart at no cost.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import redis.exceptions

from models.state.clients.client import RedisClient

LOG = logging.getLogger(__name__)

POLL_S = 0.05
TELL_EVERY_S = 10.0
REWRITES = 3
"""Failed attempts to rewrite the file, after which steps go on regardless."""


class Script(NamedTuple):
    """A script's text, and its SHA1 in the server's cache."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Self:
        """The script of this text."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


async def run_script(
    client: RedisClient, script: Script, keys: Sequence[str], *arguments: str | bytes | float
) -> Any:  # noqa: ANN401  whatever a script returns
    """Run a script by its SHA1; returns its answer. One round trip.

    Raises
    ------
    redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
        The step may or may not have happened.
    """
    try:
        return await client.evalsha(script.sha, len(keys), *keys, *arguments)
    except redis.exceptions.NoScriptError:
        await rewrite_torn_file(client, keys[0])
        return await client.eval(script.text, len(keys), *keys, *arguments)


async def run_step(
    client: RedisClient, script: Script, keys: Sequence[str], *arguments: str | bytes | float
) -> Any:  # noqa: ANN401  whatever a script returns
    """Run a script that reaches keys of its slot beyond those that it is given; as `run_script`.

    While a slot of a cluster moves, each of two primaries has a part of its keys, and takes the
    others for absent where a script asks for one of them. So a key that never exists is named, too:
    neither then has all that are named, and both refuse, by errors that pass.
    """
    return await run_script(client, script, [*keys, keys[0].partition("}")[0] + "}:-"], *arguments)


async def rewrite_torn_file(client: RedisClient, key: str = "") -> None:
    """Have the server of a key rewrite its append-only file, if it has not since it loaded one.

    Returns when the file is written, at once if there is nothing to do. A server that does not
    permit it (some managed ones) causes a warning, once for each start.

    Raises
    ------
    redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
        The server is away.
    """
    waited_s = 0.0
    server = await client.server_of(key)
    for _ in range(REWRITES):
        state = await client.info("persistence", **server)
        if not _may_be_torn(state):
            return
        try:
            await client.bgrewriteaof(**server)
        except redis.exceptions.ResponseError as error:
            if "in progress" not in str(error):
                LOG.warning(
                    "Redis does not permit to rewrite its append-only file (%s): after a crash "
                    "that tore it, run redis-check-aof --fix before the server starts",
                    error,
                )
                return
        while True:
            await asyncio.sleep(POLL_S)
            waited_s += POLL_S
            state = await client.info("persistence", **server)
            if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                break
            if waited_s % TELL_EVERY_S < POLL_S:
                LOG.warning("Redis has restarted and rewrites its append-only file: waiting")
    if _may_be_torn(await client.info("persistence", **server)):
        LOG.error(
            "Redis could not rewrite its append-only file, see its log: if a crash tore it, run "
            "redis-check-aof --fix before the next start"
        )


def _may_be_torn(state: dict[str, Any]) -> bool:
    """True if the server loaded an append-only file at its start and appends to it."""
    is_rewritten = (
        state.get("aof_last_rewrite_time_sec", -1) != -1
        and state.get("aof_last_bgrewrite_status") == "ok"
    )
    return bool(state.get("aof_enabled")) and state.get("aof_base_size", 0) > 0 and not is_rewritten
