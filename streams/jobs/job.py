"""The context of a running job: its services, its progress, and its threads.

Progress has two forms. `report_progress` is for people, cheap and not durable; `checkpoint` is
durable, and the point from which another runner resumes the job.

Blocking work runs in a thread (`run_in_thread`) that ends soon after the job is stopped, as long as
its loop goes through `until_stopped`. It may run a coroutine on the runner's event loop meanwhile
(`run_on_loop`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from prometheus_client import Gauge

from models.errors import ClaimLost
from models.personalize.resources.job_queue import Job, Jobs
from models.personalize.resources.registry import Registry
from models.personalize.resources.resource_types import ResourcePath
from models.settings import Settings
from models.state.tenants import Tenants
from streams.kafka.producing.tracker import Tracker
from streams.object_store import Objects

if TYPE_CHECKING:
    from models.serving.recommenders import Recommenders

T = TypeVar("T")

CHECK_EVERY = 100
"""Elements that `until_stopped` passes on between two checks for a stop."""


DONE_ROWS = Gauge(
    "recommender_job_done_rows",
    "Rows or lines that the running job has done in its present step, by kind; 0 without a job.",
    ["kind"],
)
TOTAL_ROWS = Gauge(
    "recommender_job_known_rows",
    "Rows or lines of that step; 0 while their number is unknown.",
    ["kind"],
)


class JobProgress(NamedTuple):
    """Progress of a job in its present step: the unit, done units and all units (0: unknown)."""

    what: str = ""
    done: int = 0
    known: int = 0


NO_PROGRESS = JobProgress()
"""Progress before the first report."""


@dataclass(frozen=True)
class JobResult:
    """Result of a job that succeeded; see `job_queue.Jobs.succeed`."""

    data: Mapping[str, Any] = field(default_factory=dict)
    hidden: Mapping[str, Any] = field(default_factory=dict)
    remark: str = ""


@dataclass
class JobContext:
    """A claimed job with the services that its handler needs.

    Attributes
    ----------
    tracker
        Connects the sender of events and metadata at its first call; blocking.
    recommenders
        Recommenders by group, made at the first call.
    stopping
        Set when the job must stop at once: its claim is lost, it was stopped, or the runner ends.
    is_ending
        True while the end of the job is stored, which releases its claim.
    progress
        The last report; the runner stores it regularly for other processes.
    checkpointed
        The members of all checkpoints so far, those of earlier runners included.
    """

    job: Job
    resources: Registry
    tenants: Tenants
    objects: Objects
    tracker: Callable[[], Tracker]
    recommenders: Callable[[], Recommenders]
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
        """Name of the job's dataset group."""
        paths = map(ResourcePath.of, (self.job.path, *self.job.resource.links))
        return next(path.name for path in paths if path.kind == "dataset-group")

    def report_progress(self, what: str, done: int, known: int = 0) -> None:
        """Show the progress of the job in metrics and `recommender status`; cheap, thread-safe."""
        self.progress = JobProgress(what, done, known)
        kind = self.job.resource.kind.name
        DONE_ROWS.labels(kind).set(done)
        TOTAL_ROWS.labels(kind).set(known)

    async def checkpoint(self, **hidden: Any) -> None:  # noqa: ANN401  any JSON
        """Store a point from which another runner can resume the job; raises `ClaimLost`."""
        await Jobs(self.resources).note(
            self.job, now_s=self.clock(), progress=self.progress, **hidden
        )
        self.checkpointed |= hidden

    def until_stopped(self, elements: Iterable[T]) -> Iterator[T]:
        """The same elements; raises `ClaimLost` between two of them once the job must stop."""
        for n, element in enumerate(elements):
            if n % CHECK_EVERY == 0 and self.stopping.is_set():
                raise ClaimLost(f"{self.job.path} was stopped")
            yield element

    async def run_in_thread(self, call: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        """The result of a blocking call. If cancelled, stops the call and waits for its end."""
        calling = asyncio.create_task(asyncio.to_thread(call, *arguments))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            self.stopping.set()
            await asyncio.wait({calling})
            raise

    def run_on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the runner's event loop; only for threads of the job."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
