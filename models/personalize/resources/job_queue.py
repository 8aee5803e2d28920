"""Queue of jobs: resources that take time, claimed by one runner at a time.

A job can be claimed from its creation on. The runner holds it for a lease, which it renews; if the
runner dies, the lease expires and the job is claimed again. Progress and end of a job are stored
only while the claim holds: nothing counts twice.

Besides the types that `resource_types` marks as jobs, a dataset group whose deletion was requested
is one: erase its data (`models.state.tenants`), then `remove` it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from models.errors import ClaimLost, ResourceNotFound
from models.personalize.resources.registry import PREFIX, Claim, Registry
from models.personalize.resources.resource import Resource
from models.personalize.resources.statuses import (
    ACTIVE,
    CREATE_PENDING,
    CREATE_STOPPED,
    CREATE_STOPPING,
    FAILING,
    STARTED,
    SUCCEEDED,
)
from models.state.scripts.registered_scripts import Script, run_script

MAX_TRIES = 5
"""Claims of one job that may expire before it fails: it may be the job that kills its runners."""

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
    """A claimed job: the resource as of the claim, and the claim."""

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
        """Claim the job that waits longest, for `lease_s`; None if there is none.

        On the way, jobs without a runner that should stop are stopped, and those claimed
        `MAX_TRIES` times fail.
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
        """Renew the lease for `lease_s` from now; returns the job as it is.

        A solution version that is CREATE STOPPING must be ended at once, by `succeed` or `fail`.

        Raises
        ------
        ClaimLost
            Another runner has claimed it, or it is deleted. An expired lease of an unclaimed job is
            renewed.
        """
        keys = [f"{PREFIX}queue", f"{PREFIX}claims"]
        held = await run_script(self._redis, _RENEW, keys, *job.claim, now_s + lease_s)
        found = await self._registry.find(job.path) if held else None
        if found is None:
            raise ClaimLost(f"{job.path} was claimed by another since")
        return Job(found, job.claim)

    async def leave(self, job: Job, *, now_s: float) -> None:
        """Return the job to the queue: it can be claimed at once, and the try does not count.

        Raises `ClaimLost` as `renew` does.
        """
        keys = [PREFIX + name for name in ("queue", "claims", "tries")]
        if not await run_script(self._redis, _LEAVE, keys, *job.claim, now_s):
            raise ClaimLost(f"{job.path} was claimed by another since")

    async def unfinished(self, most: int = 100) -> list[Resource]:
        """At most `most` jobs that have not ended, in the order in which they are claimed."""
        paths = await self._redis.zrange(f"{PREFIX}queue", 0, most - 1)
        found = [await self._registry.find(path.decode()) for path in paths]
        return [resource for resource in found if resource is not None]

    async def note(self, job: Job, *, now_s: float, **hidden: Any) -> None:  # noqa: ANN401  any JSON
        """Store members of `Resource.hidden` for a job under way, above all its progress."""

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
        """End the job as ACTIVE (COMPLETED, or CREATE STOPPED if it should stop).

        Parameters
        ----------
        data, hidden
            Changed members of the API, and others. A version of a solution that performs AutoML
            gets its `recipeArn` here.
        remark
            Failure reason of a job that succeeded in part.

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
        """Remove a dataset group whose deletion was the job, with its children."""
        await self._registry.remove(job.path, claim=job.claim)

    async def stop(self, path: str, *, now_s: float) -> Resource:
        """Stop a solution version: at once without a runner, else it becomes CREATE STOPPING.

        Raises
        ------
        ResourceNotFound, ResourceInUse
            It does not exist; it has ended.
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
                reason = f"Given up after {MAX_TRIES} tries: its runners ended without a result."
                await self.fail(job, reason, now_s=now_s)
            elif resource.status in STARTED.values():
                return job
        except (ClaimLost, ResourceNotFound):
            # It was stopped, or claimed by another runner, since the claim.
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
