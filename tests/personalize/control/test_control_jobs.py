"""Jobs of the control plane: import, export, deletion, batch inference and batch segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from models.errors import (
    InvalidInput,
    LimitExceeded,
    ResourceAlreadyExists,
    ResourceInUse,
    ResourceNotFound,
)
from tests.personalize.control_fixtures import NOW, ROLE, Control

SOURCE = {"dataLocation": "s3://bucket/rows.csv"}
INPUT = {"s3DataSource": {"path": "s3://bucket/in.json"}}
OUTPUT = {"s3DataDestination": {"path": "s3://bucket/out/"}}


async def imports(control: Control, dataset: str, name: str = "j", **more: Any) -> str:
    """The ARN of a new import job."""
    answer = await control(
        "CreateDatasetImportJob",
        jobName=name,
        datasetArn=dataset,
        **({"dataSource": SOURCE, "roleArn": ROLE} | more),
    )
    return str(answer["datasetImportJobArn"])


async def batch(control: Control, version: str, name: str = "b", **more: Any) -> str:
    """The ARN of a new batch inference job."""
    answer = await control(
        "CreateBatchInferenceJob",
        jobName=name,
        solutionVersionArn=version,
        **({"jobInput": INPUT, "jobOutput": OUTPUT, "roleArn": ROLE} | more),
    )
    return str(answer["batchInferenceJobArn"])


async def test_an_import_goes_through_its_statuses(control: Control) -> None:
    """Pending, in progress once claimed, then ACTIVE with the count of bad rows as reason."""
    dataset = await control.dataset(await control.group())
    arn = await imports(control, dataset)

    async def described() -> dict[str, Any]:
        answer = await control("DescribeDatasetImportJob", datasetImportJobArn=arn)
        return dict(answer["datasetImportJob"])

    assert await described() == {
        "jobName": "j",
        "datasetImportJobArn": arn,
        "datasetArn": dataset,
        "dataSource": SOURCE,
        "roleArn": ROLE,
        "importMode": "FULL",
        "status": "CREATE PENDING",
        "creationDateTime": NOW + 4,
        "lastUpdatedDateTime": NOW + 4,
    }
    job = await control.claim_next()
    assert (await described())["status"] == "CREATE IN_PROGRESS"
    await control.jobs.note(job, now_s=control.now_s, rows=10)
    await control.jobs.succeed(job, now_s=NOW + 99, remark="2 of 10 rows were left out")
    ended = await described()
    assert (ended["status"], ended["lastUpdatedDateTime"]) == ("ACTIVE", NOW + 99)
    assert ended["failureReason"] == "2 of 10 rows were left out"
    (listed,) = (await control("ListDatasetImportJobs", datasetArn=dataset))["datasetImportJobs"]
    assert listed == {
        name: ended[name]
        for name in (
            "datasetImportJobArn",
            "jobName",
            "status",
            "creationDateTime",
            "lastUpdatedDateTime",
            "failureReason",
            "importMode",
        )
    }


async def test_a_failed_import_says_why(control: Control) -> None:
    """The failure reason is the runner's text, unchanged."""
    dataset = await control.dataset(await control.group())
    arn = await imports(control, dataset, importMode="INCREMENTAL")
    reason = "Input CSV is missing the following columns:[TIMESTAMP]"
    await control.jobs.fail(await control.claim_next(), reason, now_s=control.now_s)
    job = (await control("DescribeDatasetImportJob", datasetImportJobArn=arn))["datasetImportJob"]

    assert (job["status"], job["failureReason"]) == ("CREATE FAILED", reason)


async def test_one_import_into_a_dataset_at_a_time(control: Control) -> None:
    """Another is ResourceInUse until the first has ended; names cannot be used again."""
    group = await control.group()
    dataset = await control.dataset(group)
    await imports(control, dataset)
    with pytest.raises(ResourceInUse, match="another import"):
        await imports(control, dataset, "k")
    await control.jobs.succeed(await control.claim_next(), now_s=control.now_s)
    await imports(control, dataset, "k")
    with pytest.raises(ResourceAlreadyExists):
        await imports(control, dataset)
    with pytest.raises(InvalidInput, match="dataLocation is missing"):
        await imports(control, dataset, "l", dataSource={})
    with pytest.raises(ResourceNotFound):
        await imports(control, control.arn("dataset/g/USERS"), "l")


async def test_no_more_pending_imports_than_the_quota(
    make_control: Callable[..., Control],
) -> None:
    """The error has Amazon's text."""
    control = make_control(personalize_quotas={"pending-dataset-import-jobs": 2})
    for n in range(3):
        dataset = await control.dataset(await control.group(f"g{n}"))
        if n < 2:
            await imports(control, dataset, f"j{n}")
    with pytest.raises(
        LimitExceeded, match=r"^More than 2 resources with PENDING or IN_PROGRESS status$"
    ):
        await imports(control, dataset, "j2")
    await control.jobs.fail(await control.claim_next(), "no", now_s=control.now_s)
    await imports(control, dataset, "j2")


async def test_an_export_is_a_job(control: Control) -> None:
    """It exports what was put, as at Amazon, unless it names another mode; and says so."""
    dataset = await control.dataset(await control.group())
    created = await control(
        "CreateDatasetExportJob",
        jobName="e",
        datasetArn=dataset,
        roleArn=ROLE,
        jobOutput=OUTPUT,
    )
    arn = created["datasetExportJobArn"]
    job = await control.claim_next()
    shown = (await control("DescribeDatasetExportJob", datasetExportJobArn=arn))["datasetExportJob"]
    (listed,) = (await control("ListDatasetExportJobs", datasetArn=dataset))["datasetExportJobs"]

    assert job.path == "dataset-export-job/e"
    assert (shown["ingestionMode"], shown["jobOutput"]) == ("PUT", OUTPUT)
    assert listed["status"] == shown["status"] == "CREATE IN_PROGRESS"


async def test_a_data_deletion_has_statuses_of_its_own(control: Control) -> None:
    """PENDING, IN_PROGRESS, COMPLETED, with the count of deleted users."""
    group = await control.group()
    created = await control(
        "CreateDataDeletionJob",
        jobName="d",
        datasetGroupArn=group,
        dataSource=SOURCE,
        roleArn=ROLE,
    )

    async def described() -> dict[str, Any]:
        arn = created["dataDeletionJobArn"]
        answer = await control("DescribeDataDeletionJob", dataDeletionJobArn=arn)
        return dict(answer["dataDeletionJob"])

    assert (await described())["status"] == "PENDING"
    job = await control.claim_next()
    assert (await described())["status"] == "IN_PROGRESS"
    with pytest.raises(ResourceInUse, match="has unfinished data-deletion-jobs"):
        await control("DeleteDatasetGroup", datasetGroupArn=group)
    await control.jobs.succeed(job, now_s=control.now_s, data={"numDeleted": 3})
    ended = await described()
    assert (ended["status"], ended["numDeleted"]) == ("COMPLETED", 3)
    (listed,) = (await control("ListDataDeletionJobs", datasetGroupArn=group))["dataDeletionJobs"]
    assert listed["datasetGroupArn"] == group
    await control("DeleteDatasetGroup", datasetGroupArn=group)


async def test_batch_inference_waits_for_the_version(control: Control) -> None:
    """ResourceInUse while the version is unfinished; invalid once it has failed."""
    solution = await control.solution(await control.group())
    created = await control("CreateSolutionVersion", solutionArn=solution)
    version = created["solutionVersionArn"]
    with pytest.raises(ResourceInUse, match="is CREATE PENDING, not ACTIVE"):
        await batch(control, version)
    await control.jobs.fail(await control.claim_next(), "too few users", now_s=control.now_s)
    with pytest.raises(InvalidInput, match="is CREATE FAILED: too few users"):
        await batch(control, version)
    version = await control.version(solution)
    arn = await batch(control, version)
    shown = await control("DescribeBatchInferenceJob", batchInferenceJobArn=arn)
    (listed,) = (await control("ListBatchInferenceJobs", solutionVersionArn=version))[
        "batchInferenceJobs"
    ]

    assert shown["batchInferenceJob"] == {
        "jobName": "b",
        "batchInferenceJobArn": arn,
        "solutionVersionArn": version,
        "numResults": 25,
        "jobInput": INPUT,
        "jobOutput": OUTPUT,
        "roleArn": ROLE,
        "batchInferenceJobMode": "BATCH_INFERENCE",
        "status": "CREATE PENDING",
        "creationDateTime": control.now_s - 2,
        "lastUpdatedDateTime": control.now_s - 2,
    }
    assert listed["solutionVersionArn"] == version
    with pytest.raises(ResourceInUse, match="unfinished batch-inference-jobs"):
        await control("DeleteSolution", solutionArn=solution)


async def test_invalid_batch_jobs_are_refused(control: Control) -> None:
    """Each error names the reason."""
    group = await control.group()
    version = await control.version(await control.solution(group))
    trending = await control.version(await control.solution(group, "t", "aws-trending-now"))
    segments = await control.version(await control.solution(group, "u", "aws-item-affinity"))

    themed: Any = {"batchInferenceJobMode": "THEME_GENERATION"}
    with pytest.raises(InvalidInput, match="THEME_GENERATION needs a themeGenerationConfig"):
        await batch(control, version, **themed)
    themes = {"fieldsForThemeGeneration": {"itemName": "TITLE"}}
    with pytest.raises(InvalidInput, match="themeGenerationConfig is for THEME_GENERATION"):
        await batch(control, version, themeGenerationConfig=themes)
    with pytest.raises(InvalidInput, match="THEME_GENERATION is for aws-similar-items, not"):
        await batch(control, version, **themed, themeGenerationConfig=themes)
    similar = await control.version(await control.solution(group, "s2", "aws-similar-items"))
    with pytest.raises(InvalidInput, match=r"themeGenerationConfig: .* has no dataset ITEMS"):
        await batch(control, similar, **themed, themeGenerationConfig=themes)
    await control.dataset(group, "ITEM_ID", "NAME", kind="ITEMS")
    with pytest.raises(InvalidInput, match="ITEMS has no column 'TITLE'"):
        await batch(control, similar, **themed, themeGenerationConfig=themes)
    with pytest.raises(InvalidInput, match="numResults must be from 1 to 500, not 501"):
        await batch(control, version, numResults=501)
    with pytest.raises(InvalidInput, match="numResults must be from 1 to 500, not -1"):
        await batch(control, version, numResults=-1)
    with pytest.raises(InvalidInput, match="must differ"):
        await batch(
            control, version, jobOutput={"s3DataDestination": {"path": "s3://bucket/in.json"}}
        )
    with pytest.raises(InvalidInput, match="no batch recommendations"):
        await batch(control, trending)
    with pytest.raises(InvalidInput, match="create a batch segment job"):
        await batch(control, segments)
    config = {"itemExplorationConfig": {"explorationWeight": "2"}}
    with pytest.raises(InvalidInput, match=r"explorationWeight must be from 0 to 1"):
        await batch(control, version, batchInferenceJobConfig=config)
    with pytest.raises(ResourceNotFound):
        await batch(control, version, filterArn=control.arn("filter/none"))
    assert await control.jobs.claim(now_s=control.now_s, lease_s=60) is None


async def test_segment_jobs_need_a_segmentation_recipe(control: Control) -> None:
    """The default is 50 users for each line."""
    group = await control.group()
    version = await control.version(await control.solution(group, "u", "aws-item-affinity"))
    items = await control.version(await control.solution(group))
    request = {"jobInput": INPUT, "jobOutput": OUTPUT, "roleArn": ROLE}
    created = await control(
        "CreateBatchSegmentJob", jobName="s", solutionVersionArn=version, **request
    )
    arn = created["batchSegmentJobArn"]
    shown = (await control("DescribeBatchSegmentJob", batchSegmentJobArn=arn))["batchSegmentJob"]
    listed = await control("ListBatchSegmentJobs", solutionVersionArn=version)

    assert (shown["numResults"], shown["status"]) == (50, "CREATE PENDING")
    assert [job["jobName"] for job in listed["batchSegmentJobs"]] == ["s"]
    with pytest.raises(InvalidInput, match="create a batch inference job"):
        await control("CreateBatchSegmentJob", jobName="t", solutionVersionArn=items, **request)
