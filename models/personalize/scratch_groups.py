"""Scratch groups: state of a measurement beside that of the groups, gone when it ends.

    {recommender}:scratch   hash   scratch group -> path of the job that it is of

A runner that was killed leaves its scratch group behind; the next sweep finds it.
"""

from __future__ import annotations

from models.personalize.registry import Registry
from models.personalize.statuses import UNFINISHED
from models.serving.tenants import Tenants

SCRATCH = "{recommender}:scratch"


def name_of(path: str) -> str:
    """The scratch group of a job; no dataset group can have this name.

    >>> name_of("solution/clicks/0123abcd")
    'scratch.0123abcd'
    """
    return f"scratch.{path.rpartition('/')[2]}"


async def begin(tenants: Tenants, path: str) -> str:
    """An empty scratch group for a job; gives its name."""
    name = name_of(path)
    await tenants.redis.hset(SCRATCH, name, path)
    await tenants.erase(name)
    return name


async def end(tenants: Tenants, path: str) -> None:
    """Erase the scratch group of a job."""
    name = name_of(path)
    await tenants.erase(name)
    await tenants.redis.hdel(SCRATCH, name)


async def sweep(tenants: Tenants, resources: Registry) -> int:
    """Erase the scratch groups of jobs that have ended or are no more; gives how many."""
    swept = 0
    for raw in (await tenants.redis.hgetall(SCRATCH)).values():
        path = raw.decode()
        found = await resources.find(path)
        if found is None or found.status not in UNFINISHED:
            await end(tenants, path)
            swept += 1
    return swept
