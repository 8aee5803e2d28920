"""Solution versions: training jobs, and their metrics."""

from __future__ import annotations

import hashlib
from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.crud import (
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    pending_limit,
    quota_limit,
)
from api.personalize.protocol import Operation
from models.errors import InvalidInput, ResourceInUse, ResourceNotFound
from models.personalize.resources.job_queue import Jobs
from models.personalize.resources.registry import LATEST
from models.personalize.resources.resource import Resource
from models.personalize.resources.resource_types import path_of
from models.personalize.resources.statuses import ACTIVE, CREATE_PENDING, UNFINISHED
from models.personalize.training.automatic_training import copied_members

UPDATABLE = ("aws-user-personalization", "aws-hrnn-coldstart")
"""Recipes that can be trained on new data only."""


async def create_solution_version(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a job that trains and measures the solution."""
    solution = await get_resource(context, request["solutionArn"], "solution")
    mode = request.get("trainingMode", "FULL")
    await _check_mode(context, solution, mode)
    name = request.get("name")
    # A named version gets the same path each time, so a second one with that name is refused.
    unique = f"{solution.path}/{name}" if name else context.services.new_id()
    digest = hashlib.blake2b(unique.encode(), digest_size=4).hexdigest()
    version = new_resource(
        context,
        f"{solution.path}/{digest}",
        request,
        solution.path,
        solution.links[0],
        status=CREATE_PENDING,
        trainingMode=mode,
        trainingType="MANUAL",
        **copied_members(solution),
    )
    await context.registry.create(
        version,
        quota_limit(context, "solution-version", solution.path),
        pending_limit(context, "solution-version"),
    )
    return {"solutionVersionArn": context.registry.arn(version.path)}


async def stop_solution_version_creation(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Stop training: at once if it has not begun, else as soon as its runner notices."""
    version = await get_resource(context, request["solutionVersionArn"], "solution-version")
    await Jobs(context.registry).stop(version.path, now_s=context.services.clock())
    return {}


async def get_solution_metrics(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """The metrics that training measured."""
    version = await get_trained_version(context, request["solutionVersionArn"])
    return {
        "solutionVersionArn": context.registry.arn(version.path),
        "metrics": version.hidden.get("metrics", {}),
    }


async def get_trained_version(context: PersonalizeContext, arn: str) -> Resource:
    """The ACTIVE version with this ARN; of `<solution>/$LATEST`, the newest ACTIVE one.

    Raises
    ------
    ResourceInUse
        The version is not ACTIVE yet.
    InvalidInput
        The version will never be ACTIVE.
    """
    path = path_of(arn)
    solution, is_latest, _ = path.partition(LATEST)
    if is_latest:
        await get_resource(context, context.registry.arn(solution), "solution")
        try:
            return await context.registry.get(path)
        except ResourceNotFound as error:
            text = f"{context.registry.arn(solution)} has no version that is ACTIVE"
            raise ResourceInUse(text) from error
    version = await get_resource(context, arn, "solution-version")
    if version.status in UNFINISHED:
        raise ResourceInUse(f"{arn} is {version.status}, not ACTIVE")
    if version.status != ACTIVE:
        raise InvalidInput(f"{arn} is {version.status}: {version.failure_reason}")
    return version


async def _check_mode(context: PersonalizeContext, solution: Resource, mode: str) -> None:
    if mode == "AUTOTRAIN":
        raise InvalidInput("AUTOTRAIN is for versions that a schedule creates")
    if mode == "FULL":
        return
    recipe = solution.data.get("recipeArn", "").rpartition("/")[2]
    if recipe not in UPDATABLE:
        raise InvalidInput(f"trainingMode UPDATE is for recipes of {' and '.join(UPDATABLE)}")
    await get_trained_version(context, context.registry.arn(f"{solution.path}{LATEST}"))


OPERATIONS: dict[str, Operation] = {
    "CreateSolutionVersion": create_solution_version,
    "DescribeSolutionVersion": describe_operation("solution-version"),
    "ListSolutionVersions": list_operation("solution-version", must_exist=True),
    "StopSolutionVersionCreation": stop_solution_version_creation,
    "GetSolutionMetrics": get_solution_metrics,
}
