"""Server-side scripts, each one atomic step also where the server's append-only file was torn.

Redis writes a step's effects to its append-only file as one transaction. Where a crash cuts the
file inside it, the server may drop the half that is there, leave its beginning in the file, append
what comes later, and carry out that half at its next start: the step, applied again meanwhile,
would count twice. So before the first step on a server that has started again, the file is written
anew from what the server holds. A server that was just started has no script in its cache, which
tells of it at no cost.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import redis.exceptions

LOG = logging.getLogger(__name__)

POLL_S = 0.05
TELL_EVERY_S = 10.0
REWRITES = 3
"""Failed attempts to write the file anew after which steps go on regardless."""


class Script(NamedTuple):
    """A script's text, and the name by which a server knows it."""

    text: str
    sha: str

    @classmethod
    def of(cls, text: str) -> Self:
        """The script of this text."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


async def run_script(client: Any, what: Script, keys: Sequence[str], *arguments: Any) -> Any:  # noqa: ANN401
    """What a script answers, run by its name; one round trip.

    Parameters
    ----------
    client
        A redis.asyncio client, typed as Any: redis-py types answers in part.

    Raises
    ------
    redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
        The step may or may not have happened.
    """
    try:
        return await client.evalsha(what.sha, len(keys), *keys, *arguments)
    except redis.exceptions.NoScriptError:
        await close_torn_file(client)
        return await client.eval(what.text, len(keys), *keys, *arguments)


async def close_torn_file(client: Any) -> None:  # noqa: ANN401
    """Have the server write its append-only file anew, if it has not since it loaded one.

    Returns when the file is written, at once where there is nothing to do. A server that does not
    let its clients do that (some that are rented) is told of in a warning, once for each start.

    Raises
    ------
    redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
        The server is away.
    """
    waited_s = 0.0
    for _ in range(REWRITES):
        state = await client.info("persistence")
        if not _may_be_torn(state):
            return
        try:
            await client.bgrewriteaof()
        except redis.exceptions.ResponseError as error:
            if "in progress" not in str(error):
                LOG.warning(
                    "Redis does not let its append-only file be written anew (%s): after a crash "
                    "that tore it, run redis-check-aof --fix before the server starts",
                    error,
                )
                return
        while True:
            await asyncio.sleep(POLL_S)
            waited_s += POLL_S
            state = await client.info("persistence")
            if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                break
            if waited_s % TELL_EVERY_S < POLL_S:
                LOG.warning("Redis started again and writes its append-only file anew: waiting")
    if _may_be_torn(await client.info("persistence")):
        LOG.error(
            "Redis could not write its append-only file anew, see its log: if a crash tore it, run "
            "redis-check-aof --fix before the next start"
        )


def _may_be_torn(state: dict[str, Any]) -> bool:
    """Whether the server loaded an append-only file at its start and goes on writing to it."""
    is_rewritten = (
        state.get("aof_last_rewrite_time_sec", -1) != -1
        and state.get("aof_last_bgrewrite_status") == "ok"
    )
    return bool(state.get("aof_enabled")) and state.get("aof_base_size", 0) > 0 and not is_rewritten
