"""The job runner: claims one job after another, renews its lease, and stores its end.

The job of a runner that is killed is claimed by another once its lease has expired; a runner that
is stopped releases its job at once. Jobs are retried while servers are away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import tenacity
from prometheus_client import Counter

from models.background_tasks import end_tasks
from models.errors import ClaimLost, RecommenderError
from models.personalize.resources.job_queue import Job, Jobs
from models.personalize.resources.registry import Registry
from models.personalize.resources.resource_types import KINDS
from models.personalize.resources.statuses import CREATE_STOPPING
from models.personalize.training.automatic_training import create_due_versions
from models.settings import Settings
from models.state.clients.client import client_of
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.stored_layout import stored_layout
from models.state.tenants import Tenants
from streams.jobs.deletions import delete_group, delete_users
from streams.jobs.exports import export_dataset
from streams.jobs.imports import import_dataset
from streams.jobs.job import JobContext, JobResult
from streams.jobs.metric_reports import publish_due_reports
from streams.kafka.producing.tracker import Tracker
from streams.object_store import Objects
from streams.retry_policy import AWAY, backoff, failure_of

if TYPE_CHECKING:
    from models.serving.recommenders import Recommenders

SCHEDULES_S = 60.0
"""Interval between two looks at the schedules of automatic training and of reports."""

IDLE_S = 0.2
"""Interval between two claims of an idle runner."""

ATTEMPTS = 10
"""Attempts at a job while servers are away, and the longest wait between two."""
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 30.0

RENEWALS = 3
"""Renewals of a claim within the time of one lease."""

LINGER_MS = 5

Handler = Callable[[JobContext], Awaitable[JobResult | None]]

HANDLERS: Mapping[str, Handler] = {
    "dataset-import-job": import_dataset,
    "dataset-export-job": export_dataset,
    "data-deletion-job": delete_users,
    "dataset-group": delete_group,
}
"""Handler of each kind of job that ranks nothing; one that returns None has ended its job itself.

Those of the others are in `ranking_handlers`.
"""

ENDED = Counter(
    "recommender_jobs_total",
    "Jobs that a runner has ended, by kind and outcome",
    ["kind", "outcome"],
)
for _kind in {*HANDLERS, *(kind.name for kind in KINDS.values() if kind.is_job)}:
    for _outcome in ("succeeded", "failed"):
        ENDED.labels(_kind, _outcome)  # an alert on growth needs the zero before the first

LOG = logging.getLogger(__name__)


def ranking_handlers() -> Mapping[str, Handler]:
    """Handler of each kind of job that ranks; loads the recommender at its first call, blocking.

    With its machine code that is a second of CPU and 150 MB, which most runners never need.
    """
    from streams.jobs.batch_inference import infer, segment  # noqa: PLC0415
    from streams.jobs.training import measure_recommender, train  # noqa: PLC0415

    return {
        "solution-version": train,
        "recommender": measure_recommender,
        "batch-inference-job": infer,
        "batch-segment-job": segment,
    }


async def handler_of(kind: str) -> Handler:
    """The handler of a kind of job."""
    if kind in HANDLERS:
        return HANDLERS[kind]
    # In a thread: the claim is renewed meanwhile.
    return (await asyncio.to_thread(ranking_handlers))[kind]


@dataclass
class Runner:
    """Runs one job at a time; any number of runners share the queue."""

    resources: Registry
    tenants: Tenants
    objects: Objects
    clock: Callable[[], float] = time.time
    _trackers: list[Tracker] = field(default_factory=list)
    _recommenders: list[Recommenders] = field(default_factory=list)

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Run jobs until the group has other shards; calls `ready` once Redis has answered."""
        looked_s, settings = -math.inf, self.tenants.settings
        while True:
            try:
                stored = await stored_layout(self.tenants.redis, settings.group)
                if stored not in {None, (settings.shards, settings.generation)}:
                    return
                if abs(self.clock() - looked_s) >= SCHEDULES_S:
                    looked_s = self.clock()
                    await create_due_versions(self.resources, now_s=looked_s)
                    await publish_due_reports(
                        self.resources, self.tenants, self.objects, now_s=looked_s
                    )
                job = await self._claim()
                ready()
            except AWAY_ERRORS as error:
                LOG.warning("trying again: %s", error)
                job = None
            if job is None:
                await asyncio.sleep(IDLE_S)
            else:
                await self.run_one(job)

    async def run_one(self, job: Job) -> None:
        """Run a claimed job until it ends or the claim is lost."""
        context = JobContext(
            job,
            self.resources,
            self.tenants,
            self.objects,
            self._tracker,
            self._shared_recommenders,
            self.clock,
        )
        working = asyncio.create_task(self._attempt(context))
        holding = asyncio.create_task(self._hold(context, working))
        try:
            await asyncio.wait({working, holding}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            context.stopping.set()
            working.cancel()
            context.report_progress("", 0)
            await end_tasks(holding)
            for ended in await asyncio.gather(working, holding, return_exceptions=True):
                if isinstance(ended, Exception):
                    LOG.warning("%s is left to another runner: %s", job.path, ended)
            if working.cancelled():
                await self._leave(context)

    async def close(self) -> None:
        """Disconnect from Kafka, and end background reads."""
        for tracker in self._trackers:
            await asyncio.to_thread(tracker.close)
        for recommenders in self._recommenders:
            await recommenders.close()

    async def _claim(self) -> Job | None:
        lease_s = self.resources.settings.job_lease_s
        return await Jobs(self.resources).claim(now_s=self.clock(), lease_s=lease_s)

    async def _attempt(self, context: JobContext) -> None:
        """Run the handler until the job ends, again after each outage."""

        async def attempt() -> None:
            context.is_ending = False
            handle = await handler_of(context.job.resource.kind.name)
            await self._end(context, await handle(context))

        def log_outage(state: tenacity.RetryCallState) -> None:
            error = failure_of(state)
            if isinstance(error, AWAY):
                LOG.warning("%s, attempt %d: %s", context.job.path, state.attempt_number, error)

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(AWAY),
            wait=backoff(FIRST_WAIT_S, MAX_WAIT_S),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            after=log_outage,
            reraise=True,
        )
        try:
            await retrying(attempt)
        except ClaimLost as error:
            LOG.warning("%s", error)
            await self._stopped(context)
        except AWAY as error:
            await self._fail(context, f"Given up after {ATTEMPTS} attempts: {error}")
        except RecommenderError as error:
            await self._fail(context, str(error))
        except Exception as error:
            LOG.exception("%s", context.job.path)
            await self._fail(context, f"Internal error: {type(error).__name__}: {error}")

    async def _end(self, context: JobContext, outcome: JobResult | None) -> None:
        context.is_ending = True
        if outcome is not None:
            await Jobs(self.resources).succeed(
                context.job,
                now_s=self.clock(),
                data=dict(outcome.data),
                hidden={**context.checkpointed, **outcome.hidden},
                remark=outcome.remark,
            )
            await self._unregister_tracking_id(context)
        ENDED.labels(context.job.resource.kind.name, "succeeded").inc()

    async def _fail(self, context: JobContext, reason: str) -> None:
        if context.checkpointed.get("row"):
            reason += f" (the first {context.checkpointed['row']} rows are done)"
        context.is_ending = True
        with contextlib.suppress(ClaimLost):
            await Jobs(self.resources).fail(context.job, reason, now_s=self.clock())
            ENDED.labels(context.job.resource.kind.name, "failed").inc()
            await self._unregister_tracking_id(context)

    async def _stopped(self, context: JobContext) -> None:
        """End a solution version that was stopped; a job whose claim is lost belongs to another."""
        with contextlib.suppress(ClaimLost):
            lease_s = self.resources.settings.job_lease_s
            job = await Jobs(self.resources).renew(context.job, now_s=self.clock(), lease_s=lease_s)
            if job.resource.status == CREATE_STOPPING:
                await Jobs(self.resources).succeed(job, now_s=self.clock())

    async def _unregister_tracking_id(self, context: JobContext) -> None:
        if "tracking_id" in context.checkpointed:
            await self.tenants.remove(context.checkpointed["tracking_id"], now_s=self.clock())

    async def _hold(self, context: JobContext, working: asyncio.Task[None]) -> None:
        """Renew the claim and store the progress while the job runs; stop it when asked to."""
        lease_s = self.resources.settings.job_lease_s
        stored = context.progress
        while not working.done():
            await asyncio.sleep(lease_s / RENEWALS)
            if _ends(context):
                continue
            try:
                job = await Jobs(self.resources).renew(
                    context.job, now_s=self.clock(), lease_s=lease_s
                )
                if context.progress != stored:
                    stored = context.progress
                    await Jobs(self.resources).note(job, now_s=self.clock(), progress=stored)
            except ClaimLost as error:
                # Ending a job releases its claim; the clean-up after that must not be cut off.
                if _ends(context):
                    continue
                LOG.warning("%s", error)
                return
            except AWAY_ERRORS as error:
                LOG.warning("%s cannot be held: %s", context.job.path, error)
                continue
            if job.resource.status == CREATE_STOPPING:
                context.stopping.set()

    async def _leave(self, context: JobContext) -> None:
        """Release the job, so that another runner resumes it at once."""
        with contextlib.suppress(ClaimLost, *AWAY_ERRORS):
            await Jobs(self.resources).leave(context.job, now_s=self.clock())

    def _tracker(self) -> Tracker:
        if not self._trackers:
            self._trackers.append(Tracker(self.resources.settings, linger_ms=LINGER_MS))
        return self._trackers[0]

    def _shared_recommenders(self) -> Recommenders:
        from models.serving.recommenders import Recommenders  # noqa: PLC0415  see ranking_handlers

        if not self._recommenders:
            self._recommenders.append(Recommenders(self.tenants))
        return self._recommenders[0]


async def serve(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """As `Runner.run`, with a client of its own."""
    client = client_of(settings)
    runner = Runner(
        Registry(client, settings), Tenants(client, settings), Objects(settings.buckets_dir)
    )
    try:
        await runner.run(ready)
    finally:
        await runner.close()
        await client.aclose()


def run(settings: Settings, ready: Callable[[], None] = lambda: None) -> bool:
    """Run jobs until SIGINT or SIGTERM; the running job is released then.

    True if it has ended because the group has other shards.
    """

    async def until_signalled() -> bool:
        task = asyncio.create_task(serve(settings, ready))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return not task.cancelled()

    return asyncio.run(until_signalled())


def _ends(context: JobContext) -> bool:
    """True once the job is being ended; read anew, since it may change in any await."""
    return context.is_ending
