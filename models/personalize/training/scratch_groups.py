"""Scratch groups: state of a measurement, apart from the dataset groups, erased when it ends.

A runner that was killed leaves its scratch group behind; the next sweep erases it.
"""

from __future__ import annotations

from models.personalize.resources.registry import Registry
from models.personalize.resources.statuses import UNFINISHED
from models.state.groups import group_registry as groups
from models.state.tenants import Tenants


def name_of(path: str) -> str:
    """Scratch group of a job; no dataset group can have this name.

    >>> name_of("solution/clicks/0123abcd")
    'scratch.solution.clicks.0123abcd'
    """
    return f"scratch.{path.replace('/', '.')}"


async def begin(tenants: Tenants, path: str) -> str:
    """Create an empty scratch group for a job; returns its name."""
    name = name_of(path)
    await groups.add_scratch_group(tenants.redis, name, path)
    await tenants.erase(name)
    return name


async def end(tenants: Tenants, path: str) -> None:
    """Erase the scratch group of a job."""
    await _erase(tenants, name_of(path))


async def sweep(tenants: Tenants, registry: Registry) -> int:
    """Erase the scratch groups of jobs that have ended or are deleted; returns their number."""
    n_erased = 0
    for name, path in (await groups.scratch_groups(tenants.redis)).items():
        found = await registry.find(path)
        if found is None or found.status not in UNFINISHED:
            await _erase(tenants, name)
            n_erased += 1
    return n_erased


async def _erase(tenants: Tenants, name: str) -> None:
    await tenants.erase(name)
    await groups.remove_scratch_group(tenants.redis, name)
