"""A provisioning file, a service of this project and moto's S3 and IAM to make it true at."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from models.errors import ClaimLost
from models.personalize.resources.job_queue import Job, Jobs
from models.personalize.resources.registry import Registry
from models.settings import Settings
from models.state.clients.client import connect
from ops.embedded_servers import start_redis
from streams.provisioning.apply import WaitOptions, context_of, resources_of
from streams.provisioning.declaration import read_declaration
from streams.provisioning.resource import ManagedResource, ProvisioningContext
from tests.buckets import s3_server, use_aws_environment
from tests.personalize.calls_fixtures import serving
from tests.personalize.control_fixtures import INTERACTIONS, LEASE_S, schema_text
from tests.servers import own_port

FAR_S = 4e9
"""A time by which every job may be claimed."""

ROWS = "USER_ID,ITEM_ID,TIMESTAMP\n" + "".join(
    f"{n % 7 + 1},{n % 50},{1_700_000_000 + n}\n" for n in range(1000)
)

FILE = """
group = "movies"
account = "123456789012"

[bucket]
name = "movies-data"

[role]
name = "movies-personalize"

[datasets.interactions]
schema = "interactions.schema.json"
source = "interactions.csv"

[tracker]
name = "movies-tracker"

[solutions.recommended]
recipe = "aws-user-personalization-v2"

[solutions.best]
recipe = "automatic"

[campaigns.home]
solution = "recommended"

[filters.not-seen]
expression = 'EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("*")'

[batch]
solution = "recommended"
input = "batch-users.jsonl"
output = "s3://movies-data/results/"
num_results = 10
filter = "not-seen"
"""


@dataclass
class Cloud:
    """The services in which a file is applied.

    Attributes
    ----------
    reported
        Progress reports of a run.
    """

    settings: Settings
    url: str
    folder: Path
    reported: list[tuple[str, str]] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)

    def context(self, text: str = FILE) -> tuple[ProvisioningContext, list[ManagedResource]]:
        """The context of a file in a new process, and its resources."""
        path = self.folder / "movies.toml"
        path.write_text(text)
        context = context_of(read_declaration(path), self.settings)
        return context, resources_of(context, self.settings)

    def wait_options(self, **options: Any) -> WaitOptions:
        """Wait options whose waits run the queued jobs."""
        return WaitOptions(
            say=lambda label, status: self.reported.append((label, status)),
            pause=lambda _: self.run_jobs(),
            **options,
        )

    def run_jobs(self) -> None:
        """Claim every job, and end it as a runner does."""
        asyncio.run(self._run_jobs())

    async def _run_jobs(self) -> None:
        async with connect(self.settings.redis) as redis:
            jobs = Jobs(Registry(redis, self.settings))
            while (job := await jobs.claim(now_s=FAR_S, lease_s=LEASE_S)) is not None:
                with contextlib.suppress(ClaimLost):
                    await self._end(jobs, job)

    async def _end(self, jobs: Jobs, job: Job) -> None:
        kind = job.resource.kind.name
        if kind == "dataset-group":
            await jobs.remove(job)
        elif (reason := self.failing.pop(kind, None)) is not None:
            await jobs.fail(job, reason, now_s=FAR_S)
        else:
            chosen = {"recipeArn": "arn:aws:personalize:::recipe/aws-user-personalization-v2"}
            await jobs.succeed(
                job, now_s=FAR_S, data=chosen if kind == "solution-version" else None
            )

    def everything(self) -> dict[str, list[str]]:
        """Names of all that there is, at every service."""
        personalize, s3 = boto3.client("personalize"), boto3.client("s3")
        iam: Any = boto3.client("iam")
        buckets = [one["Name"] for one in s3.list_buckets()["Buckets"]]
        groups = [one["name"] for one in personalize.list_dataset_groups()["datasetGroups"]]
        return {
            "buckets": buckets,
            "objects": [
                one["Key"]
                for bucket in buckets
                for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])
            ],
            "roles": [one["RoleName"] for one in iam.list_roles()["Roles"]],
            "groups": [name for name in groups if name != self.settings.group],
            "schemas": [one["name"] for one in personalize.list_schemas()["schemas"]],
            "imports": [
                one["jobName"]
                for one in personalize.list_dataset_import_jobs()["datasetImportJobs"]
            ],
            "solutions": [one["name"] for one in personalize.list_solutions()["solutions"]],
            "versions": [
                one["solutionVersionArn"]
                for one in personalize.list_solution_versions()["solutionVersions"]
            ],
            "campaigns": [
                one["name"]
                for one in personalize.list_campaigns()["campaigns"]
                if one["name"] not in self.settings.campaigns
            ],
        }


@contextlib.contextmanager
def a_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[Cloud]:
    """Servers of their own, the files, and an AWS environment that leads there."""
    (tmp_path / "interactions.schema.json").write_text(schema_text(*INTERACTIONS, "EVENT_TYPE"))
    (tmp_path / "interactions.csv").write_text(ROWS)
    (tmp_path / "batch-users.jsonl").write_text('{"userId": "1"}\n')
    redis = start_redis(tmp_path / "redis")
    try:
        chosen = Settings(
            redis=redis.url, kafka="127.0.0.1:1", port=own_port(), cache_s=0, **settings
        )
        with s3_server() as moto, serving(chosen) as url:
            use_aws_environment(monkeypatch, tmp_path)
            monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            monkeypatch.setenv("AWS_ENDPOINT_URL_PERSONALIZE", url)
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto)
            monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", moto)
            yield Cloud(chosen, url, tmp_path)
    finally:
        redis.stop()
