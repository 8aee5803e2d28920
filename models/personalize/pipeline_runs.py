"""Runs of the batch pipeline in Redis: who runs now, and a bounded history.

{group}:batch:lease     string  id of the run under way; it runs out unless renewed
{group}:batch:runs      list    the newest runs as JSON, the latest first
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
import redis.asyncio

from models.errors import ClaimLost, Unavailable
from models.state.redis_errors import AWAY_ERRORS
from models.state.scripts import Script, run_script

RunsClient: TypeAlias = redis.asyncio.Redis

MAX_RUNS = 100
"""Runs that are remembered."""

MAX_REASON_CHARACTERS = 500

_RENEW = Script.of(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)

_RELEASE = Script.of(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
redis.call('LPUSH', KEYS[2], ARGV[2])
redis.call('LTRIM', KEYS[2], 0, tonumber(ARGV[3]) - 1)
"""
)


class Run(msgspec.Struct, frozen=True):
    """One run of the pipeline.

    Attributes
    ----------
    step
        The last step that was begun.
    reason
        Why it failed; empty if it did not.
    arns
        What it made, by step.
    """

    id: str
    began_s: float
    ended_s: float
    outcome: Literal["succeeded", "failed", "interrupted"]
    step: str = ""
    reason: str = ""
    output: str = ""
    arns: dict[str, str] = {}


async def acquire(client: RunsClient, group: str, run_id: str, *, lease_s: float) -> bool:
    """Whether this run may go on: False while another of the group is under way."""
    key = _key(group, "lease")
    try:
        return bool(await client.set(key, run_id, nx=True, px=int(lease_s * 1000)))
    except AWAY_ERRORS as error:
        raise Unavailable(f"Redis does not answer: {error}") from error


async def extend(client: RunsClient, group: str, run_id: str, *, lease_s: float) -> None:
    """Hold the lease for `lease_s` from now on; raises `ClaimLost` where another may run."""
    try:
        held = await run_script(client, _RENEW, [_key(group, "lease")], run_id, int(lease_s * 1000))
    except AWAY_ERRORS as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
    if not held:
        raise ClaimLost(f"run {run_id} of {group} was away for too long: another may run")


async def release(client: RunsClient, group: str, run: Run) -> None:
    """Remember a run, and let the next begin; the oldest of too many are forgotten."""
    keys = (_key(group, "lease"), _key(group, "runs"))
    bounded = msgspec.structs.replace(run, reason=run.reason[:MAX_REASON_CHARACTERS])
    try:
        await run_script(client, _RELEASE, keys, run.id, msgspec.json.encode(bounded), MAX_RUNS)
    except AWAY_ERRORS as error:
        raise Unavailable(f"Redis does not answer: {error}") from error


async def history(client: RunsClient, group: str, *, n: int = MAX_RUNS) -> list[Run]:
    """The newest runs, the latest first; raises `Unavailable` if Redis does not answer."""
    try:
        stored = await client.lrange(_key(group, "runs"), 0, n - 1)
    except AWAY_ERRORS as error:
        raise Unavailable(f"Redis does not answer: {error}") from error
    return [msgspec.json.decode(one, type=Run) for one in stored]


def _key(group: str, name: str) -> str:
    return f"{{{group}}}:batch:{name}"
