"""A whole service for tests of jobs: servers, worker, API, runner of jobs, and an S3."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from streams.kafka.topics import ensure_topics
from tests.buckets import s3_server
from tests.personalize.calls_fixtures import CREDENTIALS, client, serving
from tests.personalize.control_fixtures import ROLE
from tests.stack import Stack, embedded_servers, new_stack

START_S = 1_700_000_000
GENRES = ("drama", "comedy", "horror", "war")
PATIENCE_S = 240.0


@dataclass(frozen=True)
class Service:
    """A running service, and unmodified clients of it and of its S3."""

    stack: Stack
    personalize: Any
    runtime: Any
    s3: Any

    def put(self, bucket: str, key: str, text: str) -> str:
        """Upload an object; gives its address."""
        self.s3.put_object(Bucket=bucket, Key=key, Body=text.encode())
        return f"s3://{bucket}/{key}"

    def lines(self, bucket: str, key: str) -> list[Any]:
        """The lines of an object, decoded from JSON."""
        body = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return [json.loads(line) for line in body.splitlines()]

    def dataset(self, group: str, kind: str, schema: str) -> str:
        """The ARN of a new dataset with a schema of its own."""
        name = f"{group.rpartition('/')[2]}-{kind.lower()}"
        made = self.personalize.create_schema(name=name, schema=schema)
        return str(
            self.personalize.create_dataset(
                name=name, datasetType=kind, datasetGroupArn=group, schemaArn=made["schemaArn"]
            )["datasetArn"]
        )

    def imported(self, name: str, dataset: str, location: str, **more: Any) -> dict[str, Any]:
        """Run an import to its end; gives its description."""
        arn = self.import_job(name, dataset, location, **more)
        return self.wait_for_end(self.import_of(arn))

    def import_job(self, name: str, dataset: str, location: str, **more: Any) -> str:
        """The ARN of a new import."""
        created = self.personalize.create_dataset_import_job(
            jobName=name,
            datasetArn=dataset,
            dataSource={"dataLocation": location},
            roleArn=ROLE,
            **more,
        )
        return str(created["datasetImportJobArn"])

    def import_of(self, arn: str) -> Callable[[], dict[str, Any]]:
        """The description of an import."""
        return lambda: dict(
            self.personalize.describe_dataset_import_job(datasetImportJobArn=arn)[
                "datasetImportJob"
            ]
        )

    def exported(self, name: str, dataset: str, mode: str) -> list[str]:
        """The sorted rows of an export of a mode, run to its end."""
        arn = self.personalize.create_dataset_export_job(
            jobName=name,
            datasetArn=dataset,
            roleArn=ROLE,
            ingestionMode=mode,
            jobOutput={"s3DataDestination": {"path": "s3://results/exports/"}},
        )["datasetExportJobArn"]
        self.wait_for_end(
            lambda: dict(
                self.personalize.describe_dataset_export_job(datasetExportJobArn=arn)[
                    "datasetExportJob"
                ]
            )
        )
        kind = dataset.rpartition("/")[2].lower()
        body = self.s3.get_object(Bucket="results", Key=f"exports/{name}/{kind}.csv")["Body"]
        return sorted(body.read().decode().splitlines()[1:])

    def version(self, solution: str) -> dict[str, Any]:
        """Create a solution version and wait for its end; gives its description."""
        arn = self.personalize.create_solution_version(solutionArn=solution)["solutionVersionArn"]
        return self.wait_for_end(
            lambda: dict(
                self.personalize.describe_solution_version(solutionVersionArn=arn)[
                    "solutionVersion"
                ]
            )
        )

    def wait_for_end(self, describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The description once its status is final, by polling as programs do."""
        said: dict[str, Any] = {}

        def has_ended() -> bool:
            said.clear()
            said.update(describe())
            return said["status"] in {"ACTIVE", "CREATE FAILED", "COMPLETED", "FAILED"}

        try:
            self.stack.wait(has_ended, "the job has ended", PATIENCE_S)
        except TimeoutError as error:
            raise TimeoutError(f"{said}\n{error}") from error
        return said

    def counts(self, group: str) -> dict[str, float]:
        """The counters of a dataset group."""

        async def read(store: Any) -> dict[str, float]:
            stored = await store.redis.hgetall(f"{{{group}}}:counts")
            return {name.decode(): float(value) for name, value in stored.items()}

        return self.stack.stored(read)


@contextlib.contextmanager
def service(directory: Path, **settings: Any) -> Iterator[Service]:
    """A service with buckets `data` and `results`; only the API runs in this process."""
    with s3_server() as s3_url, embedded_servers(directory) as servers:
        stack = new_stack(
            servers,
            "jobs",
            directory / "stack",
            cache_s=0.1,
            job_lease_s=2.0,
            personalize_quotas={"dataset-groups": 50},
            **settings,
        )
        stack.environment |= {
            "AWS_ENDPOINT_URL_S3": s3_url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **{name.upper(): value for name, value in CREDENTIALS.items()},
        }
        ensure_topics(stack.settings)
        try:
            for command in ("worker", "jobs"):
                stack.start(command)
            s3 = boto3.client(
                "s3",
                endpoint_url=s3_url,
                region_name="us-east-1",
                aws_access_key_id=CREDENTIALS["aws_access_key_id"],
                aws_secret_access_key=CREDENTIALS["aws_secret_access_key"],
            )
            for bucket in ("data", "results"):
                s3.create_bucket(Bucket=bucket)
            with serving(stack.settings) as url:
                yield Service(
                    stack, client("personalize", url), client("personalize-runtime", url), s3
                )
        finally:
            stack.stop_all()


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV for an import."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def ratings(n_users: int = 60, n_items: int = 80, each: int = 25) -> list[dict[str, Any]]:
    """Random distinct ratings, most of a genre that the user likes."""
    rng = random.Random(7)
    rows = []
    for user in range(n_users):
        liked = [item for item in range(n_items) if item % len(GENRES) == user % len(GENRES)]
        others = [item for item in range(n_items) if item not in liked]
        chosen = rng.sample(liked, each * 3 // 5) + rng.sample(others, each - each * 3 // 5)
        for item in chosen:
            value = rng.choice([3.5, 4.0, 5.0]) if item in liked else rng.choice([1.0, 3.0])
            rows.append({"USER_ID": f"u{user}", "ITEM_ID": f"m{item}", "EVENT_VALUE": value})
    rng.shuffle(rows)
    for n, row in enumerate(rows):
        row |= {"TIMESTAMP": START_S + 60 * n, "EVENT_TYPE": "watch"}
    return rows
