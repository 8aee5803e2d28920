"""Automatic training: versions that solutions get on their schedules."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from models.errors import ResourceAlreadyExists, ResourceInUse
from models.personalize.resources.registry import Registry
from models.personalize.resources.resource import Resource, index_name
from models.personalize.resources.statuses import ACTIVE, CREATE_PENDING, UNFINISHED
from models.state import layout

FIRST_AFTER_S = 3600.0
"""A solution without a version is trained this long after its creation, as Amazon documents it."""

DEFAULT_DAYS = 7

COPIED = (
    "performHPO",
    "performAutoML",
    "performIncrementalUpdate",
    "recipeArn",
    "eventType",
    "datasetGroupArn",
    "solutionConfig",
)
"""Members of a solution that a version copies when it is created."""


def copied_members(solution: Resource) -> dict[str, Any]:
    """The members of a solution that its version has, too."""
    return {name: solution.data[name] for name in COPIED if name in solution.data}


def period_s(config: Mapping[str, Any]) -> float:
    """Time between two automatic trainings of a solution with this solutionConfig, in seconds.

    >>> period_s({"autoTrainingConfig": {"schedulingExpression": "rate(2 days)"}}) / 86400
    2.0
    """
    text = config.get("autoTrainingConfig", {}).get("schedulingExpression", "")
    match = re.search(r"\d+", text)
    return (int(match[0]) if match else DEFAULT_DAYS) * layout.DAY_S


async def create_due_versions(registry: Registry, *, now_s: float) -> list[Resource]:
    """Create the versions that schedules ask for by now; gives them. O(solutions).

    A version of any kind puts the next automatic one off by a period; one that is unfinished is
    waited for. Any number of processes may do this at once.
    """
    made, after = [], 0
    while page := await registry.page("solution", after=after):
        after = page[-1].number
        for solution in page:
            if solution.status == ACTIVE and solution.data.get("performAutoTraining"):
                made += await _create_due(registry, solution, now_s)
    return made


async def _create_due(registry: Registry, solution: Resource, now_s: float) -> list[Resource]:
    newest = await registry.newest(index_name("solution-version", solution.path))
    if newest is None:
        due_s = solution.created_s + FIRST_AFTER_S
    else:
        due_s = newest.created_s + period_s(solution.data.get("solutionConfig", {}))
    if now_s < due_s or (newest is not None and newest.status in UNFINISHED):
        return []
    # The same path in every process: only one of them creates it.
    digest = hashlib.blake2b(f"{solution.path} {due_s}".encode(), digest_size=4).hexdigest()
    version = Resource(
        f"{solution.path}/{digest}",
        CREATE_PENDING,
        now_s,
        now_s,
        {
            "solutionArn": registry.arn(solution.path),
            "trainingMode": "FULL",
            "trainingType": "AUTOMATIC",
            **copied_members(solution),
        },
        (solution.path, solution.links[0]),
    )
    try:
        return [await registry.create(version)]
    except (ResourceAlreadyExists, ResourceInUse):
        return []  # another process was first, or the solution is being deleted
