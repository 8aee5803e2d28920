"""Jobs: resources that take time, claimed by one runner at a time from a queue in Redis.

A job is claimable from its creation on. Who claims it holds it for the time of a lease, and longer
by renewing; a runner that dies lets the lease run out, and the job is claimed again. What is
noted of a job, and its end, are stored only while the claim holds: nothing counts twice.

Besides the kinds that `resource_types` calls jobs, a dataset group whose deletion was asked for is
one: erase what is in it (`models.serving.tenants`), then `remove` it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from models.errors import ClaimLost, ResourceNotFound
from models.personalize.registry import PREFIX, Claim, Registry
from models.personalize.resource import Resource
from models.personalize.statuses import (
    ACTIVE,
    CREATE_PENDING,
    CREATE_STOPPED,
    CREATE_STOPPING,
    FAILING,
    STARTED,
    SUCCEEDED,
)
from models.state.scripts import Script, run_script

MAX_TRIES = 5
"""Claims of one job that may run out before it fails: it may be what kills its runners."""

MAX_REASON_CHARACTERS = 2000

_CLAIM = Script.of(
    """
local queue, claims, tries = KEYS[1], KEYS[2], KEYS[3]
local path = redis.call('ZRANGEBYSCORE', queue, '-inf', ARGV[1], 'LIMIT', 0, 1)[1]
if not path then return nil end
local number = redis.call('INCR', KEYS[4])
redis.call('ZADD', queue, ARGV[2], path)
redis.call('HSET', claims, path, number)
return {path, number, redis.call('HINCRBY', tries, path, 1)}
"""
)

_RENEW = Script.of(
    """
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
return 1
"""
)

_LEAVE = Script.of(
    """
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[3], ARGV[1], -1)
return 1
"""
)


@dataclass(frozen=True)
class Job:
    """A claimed job: the resource as it was then, and the claim."""

    resource: Resource
    claim: Claim

    @property
    def path(self) -> str:
        """The path of the resource."""
        return self.resource.path


class Jobs:
    """The queue of jobs, for any number of runners at once; holds no state itself."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._redis = registry.redis

    async def claim(self, *, now_s: float, lease_s: float) -> Job | None:
        """The job that waits longest, begun and held for `lease_s`; None if none is claimable.

        Jobs that were to stop while nobody held them are stopped on the way, and those that were
        claimed `MAX_TRIES` times already have failed.
        """
        names = ("queue", "claims", "tries", "sequence")
        keys = [PREFIX + name for name in names]
        while True:
            until_s = now_s + lease_s
            found = await run_script(self._redis, _CLAIM, keys, now_s, until_s)
            if found is None:
                return None
            path, number, tries = found
            claim = Claim(path.decode(), int(number))
            job = await self._begin(claim, tries=int(tries), now_s=now_s)
            if job is not None:
                return job

    async def renew(self, job: Job, *, now_s: float, lease_s: float) -> Job:
        """Hold the job for `lease_s` from now on; gives it as it is.

        A solution version that is CREATE STOPPING is to be ended at once, by `succeed` or `fail`.

        Raises
        ------
        ClaimLost
            Another has claimed it, or it is no more. A lease that ran out unnoticed is renewed.
        """
        keys = [f"{PREFIX}queue", f"{PREFIX}claims"]
        held = await run_script(self._redis, _RENEW, keys, *job.claim, now_s + lease_s)
        found = await self._registry.find(job.path) if held else None
        if found is None:
            raise ClaimLost(f"{job.path} was claimed by another since")
        return Job(found, job.claim)

    async def leave(self, job: Job, *, now_s: float) -> None:
        """Give the job back: another may claim it at once, and the try does not count.

        Raises `ClaimLost` as `renew` does.
        """
        keys = [PREFIX + name for name in ("queue", "claims", "tries")]
        if not await run_script(self._redis, _LEAVE, keys, *job.claim, now_s):
            raise ClaimLost(f"{job.path} was claimed by another since")

    async def unfinished(self, most: int = 100) -> list[Resource]:
        """Jobs that have not ended, those that are claimed next first; `most` at most."""
        paths = await self._redis.zrange(f"{PREFIX}queue", 0, most - 1)
        found = [await self._registry.find(path.decode()) for path in paths]
        return [resource for resource in found if resource is not None]

    async def note(self, job: Job, *, now_s: float, **hidden: Any) -> None:  # noqa: ANN401  any JSON
        """Keep what `Resource.hidden` is to have of the job under way, its progress above all."""

        def noted(resource: Resource) -> Resource:
            merged = {**resource.hidden, **hidden}
            return msgspec.structs.replace(resource, hidden=merged, updated_s=now_s)

        await self._registry.change(job.path, noted, claim=job.claim)

    async def succeed(
        self,
        job: Job,
        *,
        now_s: float,
        data: dict[str, Any] | None = None,
        hidden: dict[str, Any] | None = None,
        remark: str = "",
    ) -> Resource:
        """End the job as ACTIVE (COMPLETED, or CREATE STOPPED if it was to stop).

        Parameters
        ----------
        data, hidden
            Members that are changed: of those the API describes, and of others. A version of a
            solution that performs AutoML gets its `recipeArn` here.
        remark
            Stands as the failure reason of a job that did what it could.

        Raises
        ------
        ClaimLost
            As in `renew`; the job is then not ended.
        ValueError
            A version has no recipe.
        """
        return await self._end(job, SUCCEEDED, now_s, remark, data or {}, hidden or {})

    async def fail(self, job: Job, reason: str, *, now_s: float) -> Resource:
        """End the job as CREATE FAILED (FAILED, or CREATE STOPPED); raises as `succeed` does."""
        return await self._end(job, FAILING, now_s, reason, {}, {})

    async def remove(self, job: Job) -> None:
        """Remove a dataset group whose deletion was the job, with all that hangs on it."""
        await self._registry.remove(job.path, claim=job.claim)

    async def stop(self, path: str, *, now_s: float) -> Resource:
        """Stop a solution version: at once while nobody holds it, else it is CREATE STOPPING.

        Raises
        ------
        ResourceNotFound, ResourceInUse
            It is not there; it has ended.
        """

        def stopped(resource: Resource) -> Resource:
            is_waiting = resource.status == CREATE_PENDING
            return resource.transition(
                CREATE_STOPPED if is_waiting else CREATE_STOPPING, now_s=now_s
            )

        return await self._registry.change(path, stopped)

    async def _begin(self, claim: Claim, *, tries: int, now_s: float) -> Job | None:
        """The claimed job, IN_PROGRESS; None if it has ended instead."""

        def begun(resource: Resource) -> Resource:
            following = STARTED.get(resource.status)
            return resource if following is None else resource.transition(following, now_s=now_s)

        try:
            resource = await self._registry.change(claim.path, begun, claim=claim)
            job = Job(resource, claim)
            if resource.status == CREATE_STOPPING:
                await self.succeed(job, now_s=now_s)
            elif tries > MAX_TRIES and resource.status in FAILING:
                reason = f"Given up after {MAX_TRIES} tries: whoever ran it ended without a word."
                await self.fail(job, reason, now_s=now_s)
            elif resource.status in STARTED.values():
                return job
        except (ClaimLost, ResourceNotFound):
            # It was stopped, or claimed by another, since the claim.
            return None
        return None

    async def _end(
        self,
        job: Job,
        ends: dict[str, str],
        now_s: float,
        reason: str,
        data: dict[str, Any],
        hidden: dict[str, Any],
    ) -> Resource:
        def ended(resource: Resource) -> Resource:
            if resource.status not in ends:
                raise ClaimLost(f"{job.path} has ended before")
            moved = resource.transition(
                ends[resource.status], now_s=now_s, failure_reason=reason[:MAX_REASON_CHARACTERS]
            )
            if moved.status == CREATE_STOPPED:
                return moved
            whole = {**moved.data, **data}
            is_trained = moved.kind.name == "solution-version" and moved.status == ACTIVE
            if is_trained and "recipeArn" not in whole:
                raise ValueError(f"{job.path}: who chooses among recipes gives the recipeArn")
            return msgspec.structs.replace(moved, data=whole, hidden={**moved.hidden, **hidden})

        return await self._registry.change(job.path, ended, claim=job.claim)
