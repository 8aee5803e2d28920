"""Runs of the batch pipeline in Redis: a lease, so that no two overlap, and a bounded history.

    {group}:batch:lease     string  id of the run under way; expires unless it is renewed
    {group}:batch:runs      list    the newest runs as JSON, the latest first

The lease is redis-py's `Lock`: one name, no queue. That of `models.personalize.resources.job_queue`
is another thing: it picks one of many jobs, and its number goes into each change of the job, so
that a runner which lost it cannot write.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

import msgspec

from models.errors import ClaimLost
from models.state.clients.client import RedisClient
from models.state.clients.redis_errors import NOT_HELD, unavailable

MAX_RUNS = 100
"""Runs in the history."""

MAX_REASON_CHARACTERS = 500


class Run(msgspec.Struct, frozen=True):
    """One run of the pipeline.

    Attributes
    ----------
    step
        The last step that began.
    reason
        Why it failed; empty if it did not.
    arns
        What it created, by step.
    """

    id: str
    began_s: float
    ended_s: float
    outcome: Literal["succeeded", "failed", "interrupted"]
    step: str = ""
    reason: str = ""
    output: str = ""
    arns: dict[str, str] = {}


async def acquire(client: RedisClient, group: str, run_id: str, *, lease_s: float) -> bool:
    """Acquire the group's lease for a run; False while another run holds it.

    Raises `Unavailable` if Redis does not answer, as all functions here do.
    """
    with unavailable():
        return bool(await _lease(client, group, run_id, lease_s).acquire(token=run_id))


async def extend(client: RedisClient, group: str, run_id: str, *, lease_s: float) -> None:
    """Renew a run's lease for `lease_s` from now; raises `ClaimLost` if it does not hold it."""
    with unavailable():
        try:
            await _lease(client, group, run_id, lease_s).reacquire()
        except NOT_HELD as error:
            raise ClaimLost(
                f"run {run_id} of {group} lost its lease: another may have begun"
            ) from error


async def release(client: RedisClient, group: str, run: Run) -> None:
    """Add a run that has ended to the history, and release its lease."""
    bounded = msgspec.structs.replace(run, reason=run.reason[:MAX_REASON_CHARACTERS])
    key = _key(group, "runs")
    with unavailable():
        pipe = client.pipeline(transaction=True)
        pipe.lpush(key, msgspec.json.encode(bounded))
        pipe.ltrim(key, 0, MAX_RUNS - 1)
        await pipe.execute()
        # A lease that has expired may be another run's.
        with suppress(NOT_HELD):
            await _lease(client, group, run.id).release()


async def history(client: RedisClient, group: str, *, n: int = MAX_RUNS) -> list[Run]:
    """The newest runs, the latest first."""
    with unavailable():
        stored = await client.lrange(_key(group, "runs"), 0, n - 1)
    return [msgspec.json.decode(one, type=Run) for one in stored]


def _lease(client: RedisClient, group: str, run_id: str, lease_s: float | None = None) -> Any:  # noqa: ANN401  redis-py's `Lock`
    """The group's lease, as its holder would be if that is this run."""
    lease = client.lock(_key(group, "lease"), timeout=lease_s, blocking=False, thread_local=False)
    lease.local.token = run_id.encode()
    return lease


def _key(group: str, name: str) -> str:
    return f"{{{group}}}:batch:{name}"
