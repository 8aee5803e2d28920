"""The runner of jobs: claims one after another, holds it while it works, and ends it.

A runner that is killed leaves its job to another once the lease has run out; one that is asked to
end leaves it at once. What servers that are away refuse is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from models.errors import ClaimLost, RecommenderError, Unavailable
from models.personalize.job_queue import Job, Jobs
from models.personalize.registry import Registry
from models.personalize.statuses import CREATE_STOPPING
from models.serving.tenants import Tenants
from models.settings import Settings
from models.state.client import connect
from models.state.redis_errors import AWAY_ERRORS
from streams.jobs.batch_inference import infer, segment
from streams.jobs.deletions import delete_group, delete_users
from streams.jobs.exports import export_dataset
from streams.jobs.imports import import_dataset
from streams.jobs.job import JobContext, JobResult
from streams.jobs.training import train
from streams.kafka.tracker import Tracker
from streams.object_store import Objects

IDLE_S = 0.2
"""How often an idle runner looks for a job."""

ATTEMPTS = 10
"""Times a job is begun while a server is away, and the longest pause between two."""
MAX_PAUSE_S = 30.0

RENEWALS = 3
"""Renewals of a claim within one lease."""

LINGER_MS = 5

Handler = Callable[[JobContext], Awaitable[JobResult | None]]

HANDLERS: Mapping[str, Handler] = {
    "dataset-import-job": import_dataset,
    "dataset-export-job": export_dataset,
    "data-deletion-job": delete_users,
    "dataset-group": delete_group,
    "solution-version": train,
    "batch-inference-job": infer,
    "batch-segment-job": segment,
}
"""What runs each kind of job; one that gives no outcome has ended its job itself."""

AWAY = (Unavailable, *AWAY_ERRORS)

log = logging.getLogger(__name__)


@dataclass
class Runner:
    """Runs jobs, one at a time; several runners share a queue."""

    resources: Registry
    tenants: Tenants
    objects: Objects
    clock: Callable[[], float] = time.time
    _trackers: list[Tracker] = field(default_factory=list)

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Run jobs for ever; `ready` is called once Redis has answered."""
        while True:
            try:
                job = await self._claim()
                ready()
            except AWAY_ERRORS as error:
                log.warning("trying again: %s", error)
                job = None
            if job is None:
                await asyncio.sleep(IDLE_S)
            else:
                await self.run_one(job)

    async def run_one(self, job: Job) -> None:
        """Run a claimed job to its end, or until the claim is lost."""
        context = JobContext(
            job, self.resources, self.tenants, self.objects, self._tracker, self.clock
        )
        working = asyncio.create_task(self._work(context))
        holding = asyncio.create_task(self._hold(context, working))
        try:
            await asyncio.wait({working, holding}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            context.stopping.set()
            for task in (working, holding):
                task.cancel()
            context.report_progress("", 0)
            for ended in await asyncio.gather(working, holding, return_exceptions=True):
                if isinstance(ended, Exception):
                    log.warning("%s is left to another runner: %s", job.path, ended)
            if working.cancelled():
                await self._leave(context)

    def close(self) -> None:
        """Disconnect from Kafka."""
        for tracker in self._trackers:
            tracker.close()

    async def _claim(self) -> Job | None:
        lease_s = self.resources.settings.job_lease_s
        return await Jobs(self.resources).claim(now_s=self.clock(), lease_s=lease_s)

    async def _work(self, context: JobContext) -> None:
        """Begin the job until it ends, however often servers are away."""
        for attempt in range(1, ATTEMPTS + 1):
            context.is_ending = False
            try:
                await self._end(context, await HANDLERS[context.job.resource.kind.name](context))
            except ClaimLost as error:
                log.warning("%s", error)
                await self._stopped(context)
            except AWAY as error:
                log.warning("%s, attempt %d: %s", context.job.path, attempt, error)
                if attempt == ATTEMPTS:
                    await self._fail(context, f"Given up after {ATTEMPTS} attempts: {error}")
                await asyncio.sleep(min(MAX_PAUSE_S, 2.0**attempt / 2))
                continue
            except RecommenderError as error:
                await self._fail(context, str(error))
            except Exception as error:
                log.exception("%s", context.job.path)
                await self._fail(context, f"Internal error: {type(error).__name__}: {error}")
            return

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
            await self._forget(context)

    async def _fail(self, context: JobContext, reason: str) -> None:
        if context.checkpointed.get("row"):
            reason += f" (the first {context.checkpointed['row']} rows are done)"
        context.is_ending = True
        with contextlib.suppress(ClaimLost):
            await Jobs(self.resources).fail(context.job, reason, now_s=self.clock())
            await self._forget(context)

    async def _stopped(self, context: JobContext) -> None:
        """End a version that was to stop; a job whose claim is lost is another's to end."""
        with contextlib.suppress(ClaimLost):
            lease_s = self.resources.settings.job_lease_s
            job = await Jobs(self.resources).renew(context.job, now_s=self.clock(), lease_s=lease_s)
            if job.resource.status == CREATE_STOPPING:
                await Jobs(self.resources).succeed(job, now_s=self.clock())

    async def _forget(self, context: JobContext) -> None:
        if "tracking_id" in context.checkpointed:
            await self.tenants.remove(context.checkpointed["tracking_id"])

    async def _hold(self, context: JobContext, working: asyncio.Task[None]) -> None:
        """Renew the claim while the work goes on, and keep how far it is; tell it where to end."""
        lease_s = self.resources.settings.job_lease_s
        kept = context.progress
        while not working.done():
            await asyncio.sleep(lease_s / RENEWALS)
            if _ends(context):
                continue
            try:
                job = await Jobs(self.resources).renew(
                    context.job, now_s=self.clock(), lease_s=lease_s
                )
                if context.progress != kept:
                    kept = context.progress
                    await Jobs(self.resources).note(job, now_s=self.clock(), progress=kept)
            except ClaimLost as error:
                # An ended job is nobody's; what is left to do after its end is not to be cut off.
                if _ends(context):
                    continue
                log.warning("%s", error)
                return
            except AWAY_ERRORS as error:
                log.warning("%s cannot be held: %s", context.job.path, error)
                continue
            if job.resource.status == CREATE_STOPPING:
                context.stopping.set()

    async def _leave(self, context: JobContext) -> None:
        """Let another go on with the job at once."""
        with contextlib.suppress(ClaimLost, *AWAY_ERRORS):
            await Jobs(self.resources).leave(context.job, now_s=self.clock())

    def _tracker(self) -> Tracker:
        if not self._trackers:
            self._trackers.append(Tracker(self.resources.settings, linger_ms=LINGER_MS))
        return self._trackers[0]


async def serve(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Run jobs until cancelled; `ready` is called once Redis has answered."""
    client = connect(settings.redis)
    runner = Runner(
        Registry(client, settings), Tenants(client, settings), Objects(settings.buckets_dir)
    )
    try:
        await runner.run(ready)
    finally:
        await asyncio.to_thread(runner.close)
        await runner.tenants.close()
        await client.aclose()


def run(settings: Settings, ready: Callable[[], None] = lambda: None) -> None:
    """Run jobs until SIGINT or SIGTERM; a job under way is left to others."""

    async def until_asked() -> None:
        task = asyncio.create_task(serve(settings, ready))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(until_asked())


def _ends(context: JobContext) -> bool:
    """Whether its end has begun; it may begin while something is awaited."""
    return context.is_ending
