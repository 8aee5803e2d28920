"""Batch inference and batch segment jobs: items, or users, for each line of a file in S3."""

from __future__ import annotations

from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.config_checks import check_config
from api.personalize.control.crud import (
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    pending_limit,
)
from api.personalize.control.solution_versions import get_trained_version
from api.personalize.dataset_columns import check_named_columns
from api.personalize.protocol import Operation
from models.errors import InvalidInput
from models.personalize.recipes import Recipe, recipe_of
from models.personalize.resources.resource import Resource
from models.personalize.resources.statuses import CREATE_PENDING
from models.serving.answers import MAX_RESULTS

DEFAULT_ITEMS = 25
DEFAULT_USERS = 50
MAX_USERS = 5_000_000
TRENDING = "aws-trending-now"
SIMILAR = "aws-similar-items"
BATCH = "BATCH_INFERENCE"


async def create_batch_inference_job(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a job that recommends items for each line of its input."""
    mode = request.get("batchInferenceJobMode", BATCH)
    version = await get_trained_version(context, request["solutionVersionArn"])
    recipe = recipe_of(version.data["recipeArn"])
    if recipe.type == "USER_SEGMENTATION":
        raise InvalidInput(f"{recipe.arn} segments users: create a batch segment job")
    if recipe.name == TRENDING or recipe.type == "PERSONALIZED_ACTIONS":
        raise InvalidInput(f"{recipe.arn} has no batch recommendations")
    await _check_themes(context, request, mode, version, recipe)
    check_config(request.get("batchInferenceJobConfig", {}), recipe)
    job = await _job(
        context,
        "batch-inference-job",
        request,
        version,
        numResults=_length(request, DEFAULT_ITEMS, MAX_RESULTS),
        batchInferenceJobMode=mode,
    )
    return {"batchInferenceJobArn": job}


async def _check_themes(
    context: PersonalizeContext,
    request: dict[str, Any],
    mode: str,
    version: Resource,
    recipe: Recipe,
) -> None:
    """Raise `InvalidInput` unless themes are configured in their mode only, for similar items."""
    config = request.get("themeGenerationConfig")
    if mode == BATCH:
        if config is not None:
            raise InvalidInput("themeGenerationConfig is for THEME_GENERATION, not BATCH_INFERENCE")
        return
    if config is None:
        raise InvalidInput("THEME_GENERATION needs a themeGenerationConfig")
    if recipe.name != SIMILAR:
        raise InvalidInput(f"THEME_GENERATION is for {SIMILAR}, not {recipe.name}")
    await check_named_columns(
        context,
        version.links[-1],
        "ITEMS",
        [config["fieldsForThemeGeneration"]["itemName"]],
        "themeGenerationConfig",
    )


async def create_batch_segment_job(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a job that finds the users most interested in the items of each input line."""
    version = await get_trained_version(context, request["solutionVersionArn"])
    recipe = recipe_of(version.data["recipeArn"])
    if recipe.type != "USER_SEGMENTATION":
        raise InvalidInput(f"{recipe.arn} recommends items: create a batch inference job")
    results = _length(request, DEFAULT_USERS, MAX_USERS)
    job = await _job(context, "batch-segment-job", request, version, numResults=results)
    return {"batchSegmentJobArn": job}


async def _job(
    context: PersonalizeContext,
    kind: str,
    request: dict[str, Any],
    version: Resource,
    **more: Any,  # noqa: ANN401  any JSON
) -> str:
    """Create a batch job of a solution version; gives its ARN."""
    group = version.links[-1]
    links = [version.path, *version.links]
    if "filterArn" in request:
        chosen = await get_resource(context, request["filterArn"], "filter")
        if chosen.links != (group,):
            raise InvalidInput(f"{request['filterArn']} is of another dataset group")
        links.append(chosen.path)
    source = request["jobInput"]["s3DataSource"]["path"]
    if source == request["jobOutput"]["s3DataDestination"]["path"]:
        raise InvalidInput("jobOutput must differ from jobInput")
    path = f"{kind}/{request['jobName']}"
    more["solutionVersionArn"] = context.registry.arn(version.path)
    job = new_resource(context, path, request, *links, status=CREATE_PENDING, **more)
    await context.registry.create(job, pending_limit(context, kind))
    return context.registry.arn(path)


def _length(request: dict[str, Any], default: int, most: int) -> int:
    """Results of each line; 0 stands for the default."""
    length: int = request.get("numResults") or default
    if not 1 <= length <= most:
        raise InvalidInput(f"numResults must be from 1 to {most}, not {length}")
    return length


OPERATIONS: dict[str, Operation] = {
    "CreateBatchInferenceJob": create_batch_inference_job,
    "DescribeBatchInferenceJob": describe_operation("batch-inference-job"),
    "ListBatchInferenceJobs": list_operation("batch-inference-job"),
    "CreateBatchSegmentJob": create_batch_segment_job,
    "DescribeBatchSegmentJob": describe_operation("batch-segment-job"),
    "ListBatchSegmentJobs": list_operation("batch-segment-job"),
}
