"""The batch pipeline by real boto3 against this project's own API, with its history in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import boto3
import pytest
from prometheus_client import REGISTRY

from models.errors import CannotProvision, ClaimLost, Unavailable
from models.personalize.batches import pipeline_runs
from models.personalize.batches.pipeline_runs import MAX_RUNS, Run
from models.state.clients.client import RedisClient, connect
from streams.provisioning.apply import run as provision
from streams.provisioning.batch_pipeline import (
    restore_last_success,
    run_id_of,
    run_on_schedule,
    run_once,
)
from tests.streams.provisioning.provisioning_fixtures import FILE, Cloud, a_cloud

T = TypeVar("T")
LEASE_S = 60.0


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An empty cloud."""
    with a_cloud(tmp_path, monkeypatch) as made:
        yield made


def with_redis(cloud: Cloud, call: Callable[[RedisClient], Awaitable[T]]) -> T:
    """The response of a call on a client."""

    async def called() -> T:
        async with connect(cloud.settings.redis) as client:
            return await call(client)

    return asyncio.run(called())


def batch(cloud: Cloud, run_id: str, text: str = FILE) -> Run | None:
    """Run the pipeline once, as a new process does."""
    context, resources = cloud.context(text)
    return with_redis(
        cloud,
        lambda client: run_once(context, resources, client, cloud.wait_options(), run_id=run_id),
    )


def counted(outcome: str) -> float:
    """Runs with this outcome, as the metrics have it."""
    return REGISTRY.get_sample_value("recommender_batch_runs_total", {"outcome": outcome}) or 0.0


def test_a_run_imports_trains_and_infers(cloud: Cloud) -> None:
    """New rows are imported, a new version is trained, and a job infers with it into S3."""
    first = provision(*cloud.context(), cloud.wait_options())
    path = cloud.folder / "interactions.csv"
    path.write_text(path.read_text() + "8,51,1700002000\n")
    before = counted("succeeded")

    run = batch(cloud, "20261125T030000")

    assert run is not None
    assert (run.outcome, run.reason, run.step) == ("succeeded", "", "infer")
    assert run.arns["import.interactions"] != first["datasets.interactions.import"]
    assert run.arns["version"] != first["solutions.recommended.version"]
    job = boto3.client("personalize").describe_batch_inference_job(
        batchInferenceJobArn=run.arns["inference"]
    )["batchInferenceJob"]
    assert job["solutionVersionArn"] == run.arns["version"]
    assert job["numResults"] == 10
    assert job["filterArn"] == first["filters.not-seen"]
    source = job["jobInput"]["s3DataSource"]["path"]
    assert source.startswith("s3://movies-data/batch/movies-input-")
    target = job["jobOutput"]["s3DataDestination"]["path"]
    assert target == "s3://movies-data/results/20261125T030000/"
    assert with_redis(cloud, lambda client: pipeline_runs.history(client, "movies")) == [run]
    assert counted("succeeded") == before + 1


def test_a_failed_run_is_recorded_and_counted(cloud: Cloud) -> None:
    """A failed step is the outcome with its key and reason; the next run succeeds."""
    provision(*cloud.context(), cloud.wait_options())
    cloud.failing["batch-inference-job"] = "no such object"
    before = counted("failed")

    failed = batch(cloud, "20261125T030000")
    again = batch(cloud, "20261125T040000")

    assert failed is not None
    assert again is not None
    assert (failed.outcome, failed.step) == ("failed", "infer")
    assert failed.reason == "batch: CREATE FAILED: no such object"
    assert counted("failed") == before + 1
    assert again.outcome == "succeeded"


def test_a_resource_in_use_is_awaited(cloud: Cloud) -> None:
    """An import of another hand that is under way delays the run, and does not fail it."""
    remote = FILE.replace('"interactions.csv"', '"s3://movies-data/theirs/rows.csv"')
    boto3.client("s3").create_bucket(Bucket="movies-data")
    boto3.client("s3").put_object(Bucket="movies-data", Key="theirs/rows.csv", Body=b"rows")
    known = provision(*cloud.context(remote), cloud.wait_options())
    boto3.client("personalize").create_dataset_import_job(
        jobName="by-hand",
        datasetArn=known["datasets.interactions"],
        dataSource={"dataLocation": "s3://movies-data/theirs/rows.csv"},
        roleArn="arn:aws:iam::123456789012:role/theirs",
    )
    cloud.reported.clear()

    run = batch(cloud, "20261125T030000", remote)

    assert ("import of interactions", "ResourceInUse, trying again") in cloud.reported
    assert run is not None
    assert run.outcome == "succeeded"
    assert run.arns["import.interactions"].endswith("/movies-interactions-20261125T030000")


def test_a_missing_resource_is_named(cloud: Cloud) -> None:
    """Without its resources a run fails, and the error names the remedy."""
    run = batch(cloud, "20261125T030000")

    assert run is not None
    assert run.reason == ("datasets.interactions: is not there; run `recommender provision` first")


def test_runs_do_not_overlap(cloud: Cloud) -> None:
    """A second run does not begin under another's lease; a run without its lease stops."""

    async def check(client: RedisClient) -> None:
        assert await pipeline_runs.acquire(client, "movies", "one", lease_s=LEASE_S)
        context, resources = cloud.context()
        assert (
            await run_once(context, resources, client, cloud.wait_options(), run_id="two") is None
        )
        await pipeline_runs.extend(client, "movies", "one", lease_s=LEASE_S)
        with pytest.raises(ClaimLost):
            await pipeline_runs.extend(client, "movies", "two", lease_s=LEASE_S)
        await pipeline_runs.release(client, "movies", Run("one", 1.0, 2.0, "succeeded"))
        assert await pipeline_runs.acquire(client, "movies", "two", lease_s=LEASE_S)

    with_redis(cloud, check)


def test_an_interrupted_run_releases_its_lease(cloud: Cloud) -> None:
    """A cancelled run is recorded as interrupted, and its lease released."""
    provision(*cloud.context(), cloud.wait_options())

    async def check(client: RedisClient) -> None:
        context, resources = cloud.context()
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()
        wait_options = cloud.wait_options()

        def say(_: str, __: str) -> None:
            loop.call_soon_threadsafe(begun.set)

        waiting = type(wait_options)(say=say, pause=lambda _: time.sleep(0.01))
        work = asyncio.create_task(run_once(context, resources, client, waiting, run_id="one"))
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        (run,) = await pipeline_runs.history(client, "movies")
        assert run.outcome == "interrupted"
        assert await pipeline_runs.acquire(client, "movies", "two", lease_s=LEASE_S)

    with_redis(cloud, check)


def test_the_history_is_bounded(cloud: Cloud) -> None:
    """Only the newest runs are remembered, the latest first."""

    async def check(client: RedisClient) -> None:
        for n in range(MAX_RUNS + 5):
            await pipeline_runs.release(
                client, "movies", Run(str(n), 1.0, 2.0, "succeeded", reason="x" * 999)
            )
        kept = await pipeline_runs.history(client, "movies")
        assert [run.id for run in kept] == [str(n) for n in range(MAX_RUNS + 4, 4, -1)]
        assert {len(run.reason) for run in kept} == {pipeline_runs.MAX_REASON_CHARACTERS}

    with_redis(cloud, check)


class _Enough(Exception):
    """Ends a schedule that would go on for ever."""


def test_the_last_success_is_known_after_a_restart(cloud: Cloud) -> None:
    """A new process has the end of the last successful run in its metrics."""

    async def check(client: RedisClient) -> None:
        await pipeline_runs.release(client, "movies", Run("1", 1.0, 20.0, "succeeded"))
        await pipeline_runs.release(client, "movies", Run("2", 3.0, 40.0, "succeeded"))
        await pipeline_runs.release(client, "movies", Run("3", 5.0, 60.0, "failed"))
        await restore_last_success(client, "movies")

    with_redis(cloud, check)

    assert REGISTRY.get_sample_value("recommender_batch_last_success_timestamp_seconds") == 40.0


async def test_a_schedule_starts_runs_when_due() -> None:
    """Each due time starts one run, in UTC, also after failures; times during a run are skipped."""
    now_s, started = 1_795_000_000.0, []

    async def sleep(wait_s: float) -> None:
        nonlocal now_s
        now_s += wait_s

    async def start(due_s: float) -> None:
        nonlocal now_s
        started.append(run_id_of(due_s)[9:])
        now_s += 3 * 86400 if len(started) == 2 else 5
        if len(started) == 4:
            raise _Enough
        raise Unavailable("Redis is away")

    with pytest.raises(_Enough):
        await run_on_schedule("0 3 * * *", start, clock=lambda: now_s, sleep=sleep)

    assert started == ["030000"] * 4
    assert now_s > 1_795_000_000 + 5 * 86400


@pytest.mark.parametrize("cron", ["", "0 3 * *", "0 3 * * * *", "61 3 * * *", "a" * 1000])
async def test_an_invalid_schedule_is_refused(cron: str) -> None:
    """An invalid schedule is refused before anything starts."""

    async def start(_: float) -> None:
        raise AssertionError

    with pytest.raises(CannotProvision, match="--cron"):
        await run_on_schedule(cron, start)
