"""Registry of the resources of the Amazon Personalize API: documents in Redis, changed atomically.

Keys, all on one node of a cluster; a path is the last part of an ARN (`resource_types`):

    {recommender}:resources:document:<path>   string  the resource as JSON
    {recommender}:resources:index:<name>      zset    paths by creation number (resource.py)
    {recommender}:resources:sequence          string  the last assigned number
    {recommender}:resources:queue             zset    jobs by the time of their next claim
    {recommender}:resources:claims            hash    path -> number of the claim that holds the job
    {recommender}:resources:tries             hash    path -> number of claims of the job
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple

import msgspec

from models.errors import (
    ClaimLost,
    ResourceAlreadyExists,
    ResourceInUse,
    ResourceNotFound,
    ServiceError,
)
from models.personalize.resources.resource import Resource, index_name, indexes_of
from models.personalize.resources.resource_types import KINDS
from models.personalize.resources.statuses import UNFINISHED
from models.settings import Settings
from models.state.clients.client import RedisClient
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.scripts.registered_scripts import Script, run_script

PREFIX = "{recommender}:resources:"

CACHED = 1000
"""Resources that `Registry.recent` caches."""

LATEST = "/$LATEST"
"""Suffix of a solution's ARN that stands for its newest version."""

ATTEMPTS = 10
"""Attempts at a change while others change the same resource."""

JOBS_KEPT = 1000
"""Ended jobs that are kept of one parent: no operation deletes one."""

PAGE = 100

NO_LONGER = -1.0
"""Claim time of a job that has ended: never."""

_COMMIT = Script.of(resources.files(__package__).joinpath("commit_resources.lua").read_text())

_PAGE = Script.of(
    """
local paths = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])
local found = {}
for n, path in ipairs(paths) do found[n] = redis.call('GET', ARGV[3] .. path) end
return found
"""
)

Done = Literal["done", "claim", "expect", "alive", "bounds"]
"""Result of commit_resources.lua: the change is done, or the condition that did not hold."""


class IndexLimit(NamedTuple):
    """Condition of a change: the size of an index, and the error outside its limits.

    Without an error the change is retried on the state by then.
    """

    of: str
    most: int
    error: ServiceError | None
    least: int = 0


class Claim(NamedTuple):
    """A runner's claim on a job; its number is greater than those of all earlier claims."""

    path: str
    number: int


class Registry:
    """The resources of the service, for any number of processes at once.

    Every method raises one of `redis_errors.AWAY_ERRORS` when Redis is away; a change has then
    happened as a whole or not at all.
    """

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self.redis = client
        self.settings = settings
        self._recent: dict[str, tuple[float, Resource]] = {}

    def arn(self, path: str) -> str:
        """The ARN of a path, in the region and account of the settings; recipes have none."""
        if path.startswith("recipe/"):
            return f"arn:aws:personalize:::{path}"
        settings = self.settings
        place = f"{settings.personalize_region}:{settings.personalize_account}"
        return f"arn:aws:personalize:{place}:{path}"

    async def find(self, path: str) -> Resource | None:
        """The resource at a path, or None."""
        text = await self.redis.get(f"{PREFIX}document:{path}")
        return None if text is None else msgspec.json.decode(text, type=Resource)

    async def get(self, path: str) -> Resource:
        """The resource at a path; at `<solution>/$LATEST` the solution's newest ACTIVE version.

        Raises
        ------
        ResourceNotFound
            There is none.
        """
        solution, is_latest, _ = path.partition(LATEST)
        if is_latest:
            found = await self.newest(index_name("solution-version", solution, only="active"))
        else:
            found = await self.find(path)
        if found is None:
            raise ResourceNotFound(f"{self.arn(path)} does not exist")
        return found

    async def recent(self, path: str, *, now_s: float) -> Resource:
        """The same from a cache, at most `cache_s` old; this process's own changes show at once.

        While Redis is away, the cached resource is returned however old it is.
        """
        read_s, resource = self._recent.get(path, (0.0, None))
        if resource is None or abs(now_s - read_s) >= self.settings.cache_s:
            try:
                resource = await self.get(path)
            except AWAY_ERRORS:
                if resource is None:
                    raise
            # After a failure, too: not every request should wait for a server that is away.
            if len(self._recent) >= CACHED:
                self._recent.clear()
            self._recent[path] = (now_s, resource)
        return resource

    def to_api(self, resource: Resource) -> dict[str, Any]:
        """All members of a resource, as the API names them."""
        return resource.to_api(self.arn(resource.path))

    async def page(
        self, kind: str, parent: str = "", *, after: int = 0, limit: int = PAGE
    ) -> list[Resource]:
        """Resources of a type, all or one parent's children, by number, from above `after`."""
        index = f"{PREFIX}index:{index_name(kind, parent)}"
        texts = await run_script(
            self.redis, _PAGE, [index], f"({after}", limit, f"{PREFIX}document:"
        )
        return [msgspec.json.decode(text, type=Resource) for text in texts]

    async def count(self, index: str) -> int:
        """Size of an index."""
        return int(await self.redis.zcard(f"{PREFIX}index:{index}"))

    async def newest(self, index: str) -> Resource | None:
        """The resource of an index that was created last, or None."""
        paths = await self.redis.zrange(f"{PREFIX}index:{index}", 0, 0, desc=True)
        return await self.find(paths[0].decode()) if paths else None

    async def create(self, resource: Resource, *bounds: IndexLimit) -> Resource:
        """Store a new resource, if its path is free and its parents are ACTIVE.

        A job can be claimed from then on.

        Raises
        ------
        ResourceAlreadyExists
            Its path is taken.
        ResourceNotFound, ResourceInUse
            A parent does not exist, or is not ACTIVE.
        """
        number = await self._next()
        new = msgspec.structs.replace(resource, number=number, revision=number)
        done, at = await self._commit(
            expect=[(new.path, 0, 0)],
            alive=new.links,
            bounds=bounds,
            put=[(new, None)],
            queue=[(new.path, new.created_s)] if new.kind.is_job else [],
        )
        # The client repeats a command whose answer was lost: the stored one may be this very one.
        if done == "expect" and await self.find(new.path) != new:
            raise ResourceAlreadyExists(f"{self.arn(new.path)} already exists")
        if done == "alive":
            parent = await self.get(new.links[at])
            raise ResourceInUse(f"{self.arn(parent.path)} is {parent.status}, not ACTIVE")
        if new.kind.is_pruned:
            await self._prune_ended_jobs(new.kind.name, new.links[0])
        return new

    async def change(
        self,
        path: str,
        edit: Callable[[Resource], Resource],
        *bounds: IndexLimit,
        claim: Claim | None = None,
        claimable_s: float | None = None,
    ) -> Resource:
        """Replace a resource by `edit` of it; returns the stored resource.

        Parameters
        ----------
        edit
            Raises if the change is not permitted. It is called again if others have changed the
            resource in the meantime; it returns the same object if nothing changes. New parents
            must be ACTIVE.
        claim
            Claim on the job, which must still hold.
        claimable_s
            Time from which the job may be claimed; None: unchanged, until the job ends.

        Raises
        ------
        ResourceNotFound, ResourceInUse, ClaimLost
            It does not exist; others change it again and again; the claim does not hold.
        """
        for _ in range(ATTEMPTS):
            old = await self.get(path)
            new = edit(old)
            if new is old:
                return old
            new = msgspec.structs.replace(new, number=old.number, revision=await self._next())
            if old.status in UNFINISHED and new.status not in UNFINISHED:
                claimable_s = NO_LONGER
            done, _at = await self._commit(
                claim=claim,
                expect=[(path, old.number, old.revision)],
                alive=[link for link in new.links if link not in old.links],
                bounds=bounds,
                put=[(new, old)],
                queue=[] if claimable_s is None else [(path, claimable_s)],
            )
            if done == "done" or (done == "expect" and await self.find(path) == new):
                return new
        raise ResourceInUse(f"{self.arn(path)} is being changed by others: try again")

    async def remove(self, path: str, *more: IndexLimit, claim: Claim | None = None) -> None:
        """Remove a resource and the children that go with it, unless other children block that.

        Raises
        ------
        ResourceNotFound, ResourceInUse, ClaimLost
            It does not exist; a child lives or is unfinished; the claim does not hold.
        """
        for _ in range(ATTEMPTS):
            resource = await self.get(path)
            bounds = [*more, *self.blockers(resource)]
            removed = [resource]
            for kind in resource.kind.cascades_to:
                children = await self._all(kind, path)
                bounds.append(
                    IndexLimit(index_name(kind, path), len(children), None, len(children))
                )
                removed += children
            done, _at = await self._commit(
                claim=claim,
                expect=[(one.path, one.number, one.revision) for one in removed],
                bounds=bounds,
                remove=removed,
            )
            if done == "done" or (done == "expect" and await self.find(path) is None):
                return
        raise ResourceInUse(f"{self.arn(path)} is being changed by others: try again")

    def blockers(self, resource: Resource) -> list[IndexLimit]:
        """Conditions for deleting a resource: no living and no unfinished children."""
        arn, path, kind = self.arn(resource.path), resource.path, resource.kind
        lives = [
            IndexLimit(index_name(one, path), 0, ResourceInUse(f"{arn} has {KINDS[one].plural}"))
            for one in kind.blocked_by
        ]
        works = [
            IndexLimit(
                index_name(one, path, only="unfinished"),
                0,
                ResourceInUse(f"{arn} has unfinished {KINDS[one].plural}"),
            )
            for one in kind.cascades_to
        ]
        return [*lives, *works]

    async def _next(self) -> int:
        """A new number: no two writes of a document have the same."""
        return int(await self.redis.incr(f"{PREFIX}sequence"))

    async def _commit(
        self,
        *,
        expect: Sequence[tuple[str, int, int]],
        bounds: Sequence[IndexLimit],
        alive: Sequence[str] = (),
        put: Sequence[tuple[Resource, Resource | None]] = (),
        remove: Sequence[Resource] = (),
        queue: Sequence[tuple[str, float]] = (),
        claim: Claim | None = None,
    ) -> tuple[Done, int]:
        """Change the registry if all conditions hold; raises the error of an `IndexLimit`."""
        request = {
            "prefix": PREFIX,
            "claim": claim,
            "expect": expect,
            "alive": alive,
            "bounds": [(bound.of, bound.least, bound.most) for bound in bounds],
            "put": [_as_put(new, old) for new, old in put],
            "remove": [(one.path, list(indexes_of(one))) for one in remove],
            "queue": queue,
        }
        packed = msgspec.msgpack.encode({name: one for name, one in request.items() if one})
        verdict, at = await run_script(self.redis, _COMMIT, [f"{PREFIX}sequence"], packed)
        done: Done = verdict.decode()
        for path in (*(new.path for new, _ in put), *(one.path for one in remove)):
            self._recent.pop(path, None)
        if done == "claim":
            raise ClaimLost(f"{expect[0][0]} was claimed by another since")
        if done == "bounds" and (error := bounds[at].error) is not None:
            raise error
        return done, at

    async def _prune_ended_jobs(self, kind: str, parent: str) -> None:
        """Remove ended jobs beyond `JOBS_KEPT`, oldest first."""
        over = await self.count(index_name(kind, parent)) - JOBS_KEPT
        if over > 0:
            for old in await self.page(kind, parent, limit=over):
                if old.status not in UNFINISHED:
                    await self.remove(old.path)

    async def _all(self, kind: str, parent: str) -> list[Resource]:
        found: list[Resource] = []
        while page := await self.page(kind, parent, after=found[-1].number if found else 0):
            found += page
        return found


def _as_put(new: Resource, old: Resource | None) -> tuple[str, str, int, list[str], list[str]]:
    """A document to store, with the indexes it joins and those it leaves."""
    after, before = indexes_of(new), set() if old is None else indexes_of(old)
    text = msgspec.json.encode(new).decode()
    return new.path, text, new.number, list(after - before), list(before - after)
