"""Jobs on datasets: import, export, and deletion of users."""

from __future__ import annotations

from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.crud import (
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    pending_limit,
)
from api.personalize.protocol import Operation
from models.errors import InvalidInput, ResourceInUse
from models.personalize.resources.registry import IndexLimit
from models.personalize.resources.resource import Resource, index_name
from models.personalize.resources.statuses import CREATE_PENDING, PENDING


async def create_dataset_import_job(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a job that imports rows of a dataset from S3; one at a time for each dataset."""
    dataset = await get_resource(context, request["datasetArn"], "dataset")
    _location(request)
    if request.get("publishAttributionMetricsToS3"):
        await _check_reported(context, dataset)
    job = new_resource(
        context,
        f"dataset-import-job/{request['jobName']}",
        request,
        dataset.path,
        dataset.links[0],
        status=CREATE_PENDING,
        importMode=request.get("importMode", "FULL"),
    )
    under_way = index_name("dataset-import-job", dataset.path, only="unfinished")
    error = ResourceInUse(f"another import into {request['datasetArn']} is under way")
    await context.registry.create(
        job, IndexLimit(under_way, 0, error), pending_limit(context, "dataset-import-job")
    )
    return {"datasetImportJobArn": context.registry.arn(job.path)}


async def create_dataset_export_job(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a job that exports a dataset's rows to S3: of imports, put singly, or both."""
    dataset = await get_resource(context, request["datasetArn"], "dataset")
    job = new_resource(
        context,
        f"dataset-export-job/{request['jobName']}",
        request,
        dataset.path,
        dataset.links[0],
        status=CREATE_PENDING,
        ingestionMode=request.get("ingestionMode", "PUT"),
    )
    await context.registry.create(job, pending_limit(context, "dataset-export-job"))
    return {"datasetExportJobArn": context.registry.arn(job.path)}


async def create_data_deletion_job(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a job that erases the users named in a file in S3 from a dataset group."""
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    _location(request)
    path = f"data-deletion-job/{request['jobName']}"
    job = new_resource(context, path, request, group.path, status=PENDING)
    await context.registry.create(job, pending_limit(context, "data-deletion-job", group.path))
    return {"dataDeletionJobArn": context.registry.arn(path)}


async def _check_reported(context: PersonalizeContext, dataset: Resource) -> None:
    """Raise `InvalidInput` unless a report of an import into this dataset can be written."""
    group = index_name("metric-attribution", dataset.links[0])
    attribution = await context.registry.newest(group)
    if dataset.data["datasetType"] != "INTERACTIONS":
        raise InvalidInput("publishAttributionMetricsToS3 is for imports of interactions")
    config = attribution.data.get("metricsOutputConfig", {}) if attribution is not None else {}
    if "s3DataDestination" not in config:
        raise InvalidInput(
            "publishAttributionMetricsToS3 needs a metric attribution of the dataset group, with an"
            " s3DataDestination"
        )


def _location(request: dict[str, Any]) -> None:
    """Raise `InvalidInput` for a source without a location, which its shape allows."""
    if "dataLocation" not in request["dataSource"]:
        raise InvalidInput("dataSource.dataLocation is missing")


OPERATIONS: dict[str, Operation] = {
    "CreateDatasetImportJob": create_dataset_import_job,
    "DescribeDatasetImportJob": describe_operation("dataset-import-job"),
    "ListDatasetImportJobs": list_operation("dataset-import-job"),
    "CreateDatasetExportJob": create_dataset_export_job,
    "DescribeDatasetExportJob": describe_operation("dataset-export-job"),
    "ListDatasetExportJobs": list_operation("dataset-export-job"),
    "CreateDataDeletionJob": create_data_deletion_job,
    "DescribeDataDeletionJob": describe_operation("data-deletion-job"),
    "ListDataDeletionJobs": list_operation("data-deletion-job"),
}
