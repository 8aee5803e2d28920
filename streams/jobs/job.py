"""A job under way: what it works with, how it notes and tells how far it is, what comes of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from prometheus_client import Gauge

from models.errors import ClaimLost
from models.personalize.job_queue import Job, Jobs
from models.personalize.registry import Registry
from models.personalize.resource_types import ResourcePath
from models.serving.tenants import Tenants
from models.settings import Settings
from streams.kafka.tracker import Tracker
from streams.object_store import Objects

T = TypeVar("T")

CHECK_EVERY = 100
"""Pieces of work in a thread between two looks at whether it is to end."""


DONE_ROWS = Gauge(
    "recommender_job_done_rows",
    "Rows or lines that the job under way has done in its present step, by kind; 0 without one.",
    ["kind"],
)
TOTAL_ROWS = Gauge(
    "recommender_job_known_rows",
    "Rows or lines of that step; 0 while nobody knows.",
    ["kind"],
)


class JobProgress(NamedTuple):
    """How far a job is in its present step: what is done, so many of so many (0: not known)."""

    what: str = ""
    done: int = 0
    known: int = 0


NO_PROGRESS = JobProgress()
"""Before a job has told anything."""


@dataclass(frozen=True)
class JobResult:
    """What comes of a job that did what it could; see `job_queue.Jobs.succeed`."""

    data: Mapping[str, Any] = field(default_factory=dict)
    hidden: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""


@dataclass
class JobContext:
    """A claimed job, and what it works with.

    Attributes
    ----------
    tracker
        Opens the sender of events and metadata at its first call; blocking.
    stopping
        Set when the work is to end at once: its claim is lost, it was stopped, or the runner ends.
    is_ending
        Whether the job is being ended: its claim goes with that.
    progress
        As it was told last; the runner keeps it where others see it.
    """

    job: Job
    resources: Registry
    tenants: Tenants
    objects: Objects
    tracker: Callable[[], Tracker]
    clock: Callable[[], float]
    stopping: threading.Event = field(default_factory=threading.Event)
    is_ending: bool = False
    progress: JobProgress = NO_PROGRESS
    checkpointed: dict[str, Any] = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)

    def __post_init__(self) -> None:
        self.checkpointed = dict(self.job.resource.hidden)
        self._loop = asyncio.get_running_loop()

    @property
    def settings(self) -> Settings:
        """The settings of the runner."""
        return self.resources.settings

    @property
    def group(self) -> str:
        """The name of the dataset group that the job is of."""
        paths = map(ResourcePath.of, (self.job.path, *self.job.resource.links))
        return next(path.name for path in paths if path.kind == "dataset-group")

    def report_progress(self, what: str, done: int, known: int = 0) -> None:
        """Let people see how far the job is; cheap, from any thread."""
        self.progress = JobProgress(what, done, known)
        kind = self.job.resource.kind.name
        DONE_ROWS.labels(kind).set(done)
        TOTAL_ROWS.labels(kind).set(known)

    async def checkpoint(self, **hidden: Any) -> None:  # noqa: ANN401  any JSON
        """Keep how far the job is, for whoever goes on with it; raises `ClaimLost`."""
        await Jobs(self.resources).note(
            self.job, now_s=self.clock(), progress=self.progress, **hidden
        )
        self.checkpointed |= hidden

    def until_stopped(self, parts: Iterable[T]) -> Iterator[T]:
        """The same parts; `ClaimLost` between two of them once the work is to end."""
        for n, part in enumerate(parts):
            if n % CHECK_EVERY == 0 and self.stopping.is_set():
                raise ClaimLost(f"{self.job.path} is to end")
            yield part

    async def run_in_thread(self, call: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        """What a blocking call gives; cancelled, the call is told to end, and has ended."""
        calling = asyncio.create_task(asyncio.to_thread(call, *arguments))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            self.stopping.set()
            await asyncio.wait({calling})
            raise

    def run_on_loop(self, asked: Coroutine[Any, Any, T]) -> T:
        """What comes of a coroutine on the runner's loop, for a call `in_thread`."""
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
