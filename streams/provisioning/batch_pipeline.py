"""The batch pipeline: import new data, train a version, and infer for many users into S3.

It runs once or on a schedule, one run of a group at a time under a lease in Redis, which also has
the history of runs. A step whose resource is in use waits for it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import prometheus_client
from croniter import croniter

from models.errors import CannotProvision, RecommenderError, Unavailable
from models.personalize.batches import pipeline_runs
from models.personalize.batches.pipeline_runs import Run
from models.state.clients.client import RedisClient
from streams.provisioning.apply import (
    WaitOptions,
    await_ready,
    find_resource,
    make_resource,
    retry_while_busy,
    wait_until_ready,
)
from streams.provisioning.bucket_and_role import upload_batch_input
from streams.provisioning.declaration import DeclaredBatch
from streams.provisioning.personalize_resources import start_import, start_version
from streams.provisioning.resource import (
    FoundResource,
    ManagedResource,
    ProvisioningContext,
    found_resource,
)

LOG = logging.getLogger(__name__)

LEASE_S = 120.0
RENEW_EVERY_S = 30.0
CHECK_EVERY_S = 30.0
"""Longest sleep between two checks of a due time: the clock may be set meanwhile."""

RUNS = prometheus_client.Counter(
    "recommender_batch_runs_total", "Runs of the batch pipeline by outcome", ["outcome"]
)
SECONDS = prometheus_client.Histogram(
    "recommender_batch_run_seconds",
    "Duration of runs of the batch pipeline",
    buckets=(10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, math.inf),
)
LAST_SUCCESS = prometheus_client.Gauge(
    "recommender_batch_last_success_timestamp_seconds",
    "When the newest run of the batch pipeline that succeeded has ended",
)
for _outcome in ("succeeded", "failed", "interrupted", "skipped"):
    RUNS.labels(_outcome)  # an alert on growth needs the zero before the first


@dataclass
class PipelineProgress:
    """Progress of a run: its present step, and the created ARNs by step."""

    step: str = ""
    arns: dict[str, str] = field(default_factory=dict)


class _Stopped(Exception):
    """The run was stopped."""


async def run_once(
    context: ProvisioningContext,
    resources: list[ManagedResource],
    client: RedisClient,
    wait_options: WaitOptions,
    *,
    run_id: str,
    clock: Callable[[], float] = time.time,
) -> Run | None:
    """Run the pipeline; gives its record, or None during another run.

    A failure is an outcome in the record, not an error.

    Parameters
    ----------
    run_id
        Names the jobs of this run: letters, digits, hyphens.

    Raises
    ------
    CannotProvision
        The file has no `[batch]`.
    Unavailable
        Redis does not answer: the run has not begun, or is not recorded.
    """
    group, batch = context.declaration.group, context.declaration.batch
    if batch is None:
        raise CannotProvision("batch: missing")
    if not await pipeline_runs.acquire(client, group, run_id, lease_s=LEASE_S):
        RUNS.labels("skipped").inc()
        return None
    began_s, progress, stopping = clock(), PipelineProgress(), threading.Event()
    outcome: Literal["succeeded", "failed", "interrupted"] = "interrupted"
    reason = "stopped"
    running = asyncio.create_task(
        asyncio.to_thread(
            _infer, context, resources, batch, _stoppable(wait_options, stopping), run_id, progress
        )
    )
    try:
        await _renew_until_done(running, client, group, run_id)
        outcome, reason = "succeeded", ""
    except RecommenderError as error:
        outcome, reason = "failed", str(error)
    except Exception as error:
        outcome, reason = "failed", type(error).__name__
        raise
    finally:
        stopping.set()
        # Its result is no longer needed; retrieving it avoids a warning of asyncio.
        running.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        run = Run(
            id=run_id, began_s=began_s, ended_s=clock(), outcome=outcome, step=progress.step,
            reason=reason, output=batch.output, arns=progress.arns,
        )  # fmt: skip
        RUNS.labels(outcome).inc()
        SECONDS.observe(run.ended_s - began_s)
        if outcome == "succeeded":
            LAST_SUCCESS.set(run.ended_s)
        await pipeline_runs.release(client, group, run)
    return run


async def restore_last_success(client: RedisClient, group: str) -> None:
    """Restore the metric of the last success from the history; raises `Unavailable`."""
    past = await pipeline_runs.history(client, group)
    ends = [run.ended_s for run in past if run.outcome == "succeeded"]
    if ends:
        LAST_SUCCESS.set(ends[0])


async def run_on_schedule(
    cron: str,
    start: Callable[[float], Awaitable[object]],
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Call `start` with each due time, for ever; times that pass during a run are skipped.

    A `RecommenderError` is logged, and the next due time awaited. Faust's `crontab` is the same
    sleep around the same croniter, in an app that needs Kafka to start; a batch run does not.

    Parameters
    ----------
    cron
        Minute, hour, day, month, day of the week; in UTC.

    Raises
    ------
    CannotProvision
        The expression is invalid.
    """
    if len(cron.split()) != 5 or not croniter.is_valid(cron):
        raise CannotProvision(f"--cron: {cron[:100]!r} is not five fields as in '0 3 * * *'")
    while True:
        now = dt.datetime.fromtimestamp(clock(), dt.UTC)
        due_s = float(croniter(cron, now).get_next(float))
        while (left_s := due_s - clock()) > 0:
            await sleep(min(left_s, CHECK_EVERY_S))
        try:
            await start(due_s)
        except RecommenderError as error:
            RUNS.labels("failed").inc()
            LOG.warning("run %s did not begin, or is not recorded: %s", run_id_of(due_s), error)


def run_id_of(now_s: float) -> str:
    """Id of a run that begins at this time.

    >>> run_id_of(0)
    '19700101T000000'
    """
    return f"{dt.datetime.fromtimestamp(now_s, dt.UTC):%Y%m%dT%H%M%S}"


async def _renew_until_done(
    running: asyncio.Task[None], client: RedisClient, group: str, run_id: str
) -> None:
    """Wait for the run, renewing its lease."""
    while True:
        done, _ = await asyncio.wait({running}, timeout=RENEW_EVERY_S)
        if done:
            return running.result()
        try:
            await pipeline_runs.extend(client, group, run_id, lease_s=LEASE_S)
        except Unavailable as error:
            # The lease may outlast the outage; if not, the next renewal fails.
            LOG.warning("the lease of run %s was not renewed: %s", run_id, error)


def _stoppable(wait_options: WaitOptions, stopping: threading.Event) -> WaitOptions:
    """The same options, with waits that end within a second of a stop."""

    def pause(wait_s: float) -> None:
        while wait_s > 0:
            if stopping.is_set():
                raise _Stopped
            wait_options.pause(min(wait_s, 1.0))
            wait_s -= 1.0

    return replace(wait_options, pause=pause)


def _infer(
    context: ProvisioningContext,
    resources: list[ManagedResource],
    batch: DeclaredBatch,
    wait_options: WaitOptions,
    run_id: str,
    progress: PipelineProgress,
) -> None:
    """Run the steps of the pipeline. Blocking."""
    progress.step = "look"
    for resource in resources:
        find_resource(context, resource)
    needed = [f"datasets.{kind}" for kind in context.declaration.datasets]
    needed += [f"solutions.{batch.solution}"]
    needed += [f"filters.{batch.filter}"] if batch.filter else []
    for key in needed:
        if context.arn(key) is None:
            raise CannotProvision(f"{key}: is not there; run `recommender provision` first")
    progress.step = "import"
    for kind, dataset in context.declaration.datasets.items():
        if dataset.source is not None:
            progress.arns[f"import.{kind}"] = _import(
                context, resources, kind, wait_options, run_id
            )
    progress.step = "train"
    progress.arns["version"] = version = _train(context, batch.solution, wait_options)
    progress.step = "infer"
    progress.arns["inference"] = _recommend(context, batch, version, wait_options, run_id)


def _import(
    context: ProvisioningContext,
    resources: list[ManagedResource],
    kind: str,
    wait_options: WaitOptions,
    run_id: str,
) -> str:
    """Import a dataset's newest rows; gives the ARN of the import job."""
    key = f"datasets.{kind}"
    source = context.declaration.datasets[kind].source or ""  # type: ignore[index]
    if not source.startswith("s3://"):
        # A file is identified by its content: an imported one is not imported again.
        for resource in resources:
            if resource.key in {f"{key}.source", f"{key}.import"}:
                existing = find_resource(context, resource)
                if existing is None or existing.is_failed:
                    make_resource(context, resource, existing, wait_options)
                await_ready(context, resource, wait_options)
        return context.needed(f"{key}.import")
    name = f"{context.declaration.group[:30]}-{kind}-{run_id}"
    personalize = context.account.personalize
    arn = retry_while_busy(
        lambda: start_import(context, kind, name), key, f"import of {kind}", wait_options
    )

    def describe() -> FoundResource:
        answer: Any = personalize.describe_dataset_import_job(datasetImportJobArn=arn)
        return found_resource(answer["datasetImportJob"], "datasetImportJobArn")

    return wait_until_ready(describe, f"{key}.source", f"import of {kind}", wait_options).arn


def _train(context: ProvisioningContext, solution: str, wait_options: WaitOptions) -> str:
    """Train a version of a solution; gives its ARN."""
    key, label = f"solutions.{solution}", f"version of {solution}"
    arn = retry_while_busy(lambda: start_version(context, solution), key, label, wait_options)
    personalize = context.account.personalize

    def describe() -> FoundResource:
        answer: Any = personalize.describe_solution_version(solutionVersionArn=arn)
        return found_resource(answer["solutionVersion"], "solutionVersionArn")

    return wait_until_ready(describe, key, label, wait_options).arn


def _recommend(
    context: ProvisioningContext,
    batch: DeclaredBatch,
    version: str,
    wait_options: WaitOptions,
    run_id: str,
) -> str:
    """Infer for the whole input; gives the ARN of the inference job."""
    personalize, request = context.account.personalize, _job(context, batch, version, run_id)
    key, label = "batch", f"inference {request['jobName']}"
    arn = retry_while_busy(
        lambda: personalize.create_batch_inference_job(**request)["batchInferenceJobArn"],
        key, label, wait_options,
    )  # fmt: skip

    def describe() -> FoundResource:
        answer: Any = personalize.describe_batch_inference_job(batchInferenceJobArn=arn)
        return found_resource(answer["batchInferenceJob"], "batchInferenceJobArn")

    return wait_until_ready(describe, key, label, wait_options).arn


def _job(
    context: ProvisioningContext, batch: DeclaredBatch, version: str, run_id: str
) -> dict[str, Any]:
    source = upload_batch_input(context, batch.input)
    return {
        "jobName": f"{context.declaration.group[:40]}-{run_id}",
        "solutionVersionArn": version,
        "jobInput": {"s3DataSource": {"path": source}},
        "jobOutput": {"s3DataDestination": {"path": f"{batch.output}{run_id}/"}},
        "numResults": batch.num_results,
        "roleArn": context.role(),
        **({"filterArn": context.needed(f"filters.{batch.filter}")} if batch.filter else {}),
    }
