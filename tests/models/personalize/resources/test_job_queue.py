"""Queue of jobs on a real Redis: one runner per job, none lost, documented transitions only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import ClaimLost, ResourceInUse
from models.personalize.resources import statuses
from models.personalize.resources.job_queue import MAX_REASON_CHARACTERS, MAX_TRIES, Job, Jobs
from models.personalize.resources.registry import PREFIX, Registry
from models.personalize.resources.resource import Resource
from models.personalize.resources.statuses import ACTIVE, CREATE_IN_PROGRESS, CREATE_PENDING
from models.settings import Settings
from models.state.clients.client import connect

NOW = 1_795_000_000.0
LEASE_S = 30.0

DATA = {"recipeArn": "arn:aws:personalize:::recipe/aws-sims"}
JOBS = ("solution/x/0000000a", "solution/x/0000000b", "data-deletion-job/d")
RUNNERS = ("r1", "r2", "r3")

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "claim", "renew", "note", "leave", "succeed", "fail", "stop"]),
        st.sampled_from(RUNNERS),
        st.sampled_from([0.0, 1.0, 1.0, LEASE_S / 2, LEASE_S, 3 * LEASE_S]),
    ),
    max_size=40,
)


class Naive:
    """The queue in dicts: each job's status, its time of the next claim, and its valid claim."""

    def __init__(self) -> None:
        self.status = {path: job_resource(path).status for path in JOBS}
        self.claimable_s = dict.fromkeys(JOBS, NOW)
        self.tries = dict.fromkeys(JOBS, 0)
        self.holder: dict[str, int] = {}

    def claim(self, number: int, now_s: float) -> str | None:
        """The job that a claim returns; others may end on the way."""
        while due := sorted((at, path) for path, at in self.claimable_s.items() if at <= now_s):
            path = due[0][1]
            self.claimable_s[path] = now_s + LEASE_S
            self.tries[path] += 1
            self.holder[path] = number
            self.status[path] = statuses.STARTED.get(self.status[path], self.status[path])
            if self.status[path] == statuses.CREATE_STOPPING or self.tries[path] > MAX_TRIES:
                self.end(path, statuses.FAILING)
            else:
                return path
        return None

    def end(self, path: str, ends: dict[str, str]) -> None:
        """The job has ended."""
        self.status[path] = ends[self.status[path]]
        self.forget(path)

    def forget(self, path: str) -> None:
        """It can no longer be claimed, and no claim on it counts."""
        del self.claimable_s[path]
        self.holder.pop(path, None)

    def leave(self, path: str, now_s: float) -> None:
        """The job is returned to the queue untried."""
        self.claimable_s[path] = now_s
        self.tries[path] -= 1
        del self.holder[path]

    def stop(self, path: str) -> None:
        """As StopSolutionVersionCreation does."""
        if self.status[path] == CREATE_PENDING:
            self.status[path] = statuses.CREATE_STOPPED
            self.forget(path)
        elif self.status[path] == CREATE_IN_PROGRESS:
            self.status[path] = statuses.CREATE_STOPPING


@pytest.fixture
async def resources(redis_url: str) -> AsyncIterator[Registry]:
    """An empty registry."""
    async with connect(redis_url) as client:
        yield Registry(client, Settings())
        await client.flushdb()


def job_resource(path: str) -> Resource:
    """A job that was just requested."""
    pending = statuses.PENDING if path.startswith("data-deletion") else CREATE_PENDING
    return Resource(path, pending, NOW, NOW, dict(DATA), ("dataset-group/g",))


async def asked_for(resources: Registry, *paths: str) -> Jobs:
    """A queue with these jobs, of one group."""
    await resources.create(Resource("dataset-group/g", ACTIVE, NOW, NOW, {}))
    for path in paths:
        await resources.create(job_resource(path))
    return Jobs(resources)


async def claimed(jobs: Jobs, now_s: float = NOW) -> Job:
    """A job that can be claimed now."""
    job = await jobs.claim(now_s=now_s, lease_s=LEASE_S)
    assert job is not None
    return job


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_each_job_has_one_runner_and_none_is_lost(
    redis_url: str, steps: list[tuple[str, str, float]]
) -> None:
    """Whatever runners do and when they stop, the queue equals the naive one."""

    async def check() -> None:
        async with connect(redis_url) as client:
            try:
                await follow(Registry(client, Settings()), steps)
            finally:
                await client.flushdb()

    asyncio.run(check())


async def follow(resources: Registry, steps: list[tuple[str, str, float]]) -> None:
    """Take the steps in both queues, and compare after each."""
    jobs, naive = await asked_for(resources, *JOBS), Naive()
    hands: dict[str, tuple[Job, int]] = {}
    now_s = NOW
    for number, (step, runner, passed_s) in enumerate(steps):
        now_s += passed_s
        before = dict(naive.status)
        if step == "claim":
            job = await jobs.claim(now_s=now_s, lease_s=LEASE_S)
            assert (job and job.path) == naive.claim(number, now_s)
            if job is not None:
                hands[runner] = (job, number)
        elif step == "stop":
            naive.stop(JOBS[0])
            with contextlib.suppress(ResourceInUse):
                await jobs.stop(JOBS[0], now_s=now_s)
        elif runner in hands:
            job, claim = hands[runner]
            counts = naive.holder.get(job.path) == claim
            assert await act(jobs, step, job, now_s) == counts
            if counts and step == "renew":
                naive.claimable_s[job.path] = now_s + LEASE_S
            elif counts and step == "leave":
                naive.leave(job.path, now_s)
            elif counts and step in {"succeed", "fail"}:
                ends = statuses.SUCCEEDED if step == "succeed" else statuses.FAILING
                naive.end(job.path, ends)
        stored = {path: (await resources.get(path)).status for path in JOBS}
        assert stored == naive.status
        assert all(is_documented(path, before[path], stored[path]) for path in JOBS)


async def act(jobs: Jobs, step: str, job: Job, now_s: float) -> bool:
    """True if a runner's action on a job counts."""
    try:
        if step == "renew":
            await jobs.renew(job, now_s=now_s, lease_s=LEASE_S)
        elif step == "leave":
            await jobs.leave(job, now_s=now_s)
        elif step == "note":
            await jobs.note(job, now_s=now_s, rows=1)
        elif step == "succeed":
            await jobs.succeed(job, now_s=now_s)
        else:
            await jobs.fail(job, "it broke", now_s=now_s)
    except ClaimLost:
        return False
    return True


def is_documented(path: str, before: str, after: str) -> bool:
    """True if documented transitions lead from one status to the other."""
    ways, reached = job_resource(path).kind.transitions, {before}
    for _ in range(3):
        reached |= {following for status in reached for following in ways.get(status, ())}
    return after in reached


async def test_the_oldest_job_comes_first(resources: Registry) -> None:
    """Jobs are claimed in the order of their requests, each once, and begun."""
    jobs = await asked_for(resources)
    for n in (3, 1, 2):
        one = job_resource(f"batch-inference-job/b{n}")
        await resources.create(msgspec.structs.replace(one, created_s=NOW + n))

    assert await jobs.claim(now_s=NOW, lease_s=LEASE_S) is None
    order = [await claimed(jobs, NOW + 5) for _ in range(3)]

    assert [job.path[-1] for job in order] == ["1", "2", "3"]
    assert {job.resource.status for job in order} == {CREATE_IN_PROGRESS}
    assert await jobs.claim(now_s=NOW + 5, lease_s=LEASE_S) is None


async def test_runners_at_once_share_the_jobs(redis_url: str, resources: Registry) -> None:
    """Each job goes to one of twenty runners that claim at the same moment."""
    await asked_for(resources, *(f"dataset-import-job/j{n}" for n in range(8)))
    async with connect(redis_url) as other:
        queues = [Jobs(resources), Jobs(Registry(other, resources.settings))]
        found = await asyncio.gather(
            *(queues[n % 2].claim(now_s=NOW, lease_s=LEASE_S) for n in range(20))
        )

    paths = [job.path for job in found if job is not None]
    assert sorted(paths) == [f"dataset-import-job/j{n}" for n in range(8)]


async def test_a_runner_without_its_lease_changes_nothing(resources: Registry) -> None:
    """After the lease expired and another runner claimed the job."""
    jobs = await asked_for(resources, JOBS[0])
    first = await claimed(jobs)
    second = await claimed(jobs, NOW + LEASE_S)

    for step in ("renew", "note", "leave", "succeed", "fail"):
        assert not await act(jobs, step, first, NOW + LEASE_S)
    ended = await jobs.succeed(second, now_s=NOW + LEASE_S, data={"trainingHours": 0.1})

    assert first.path == second.path
    assert (ended.status, ended.data, ended.hidden) == (ACTIVE, DATA | {"trainingHours": 0.1}, {})
    assert await jobs.claim(now_s=NOW + 1000, lease_s=LEASE_S) is None


async def test_progress_and_results_are_kept(resources: Registry) -> None:
    """Hidden members, under way and at the end, are stored beside those of the API."""
    jobs = await asked_for(resources, JOBS[1])
    job = await claimed(jobs)
    await jobs.note(job, now_s=NOW + 1, rows=10, bad=1)
    await jobs.note(job, now_s=NOW + 2, rows=20)
    under_way = await jobs.renew(job, now_s=NOW + 3, lease_s=LEASE_S)
    ended = await jobs.succeed(
        under_way, now_s=NOW + 4, hidden={"metrics": {"coverage": 0.5}}, remark="1 bad row"
    )

    assert under_way.resource.hidden == {"rows": 20, "bad": 1}
    assert under_way.resource.updated_s == NOW + 2
    assert ended.hidden == {"rows": 20, "bad": 1, "metrics": {"coverage": 0.5}}
    assert (ended.failure_reason, ended.updated_s) == ("1 bad row", NOW + 4)


async def test_a_version_without_a_recipe_does_not_become_active(resources: Registry) -> None:
    """The runner must name the recipe, or the version could answer nothing."""
    jobs = await asked_for(resources)
    one = job_resource(JOBS[0])
    await resources.create(msgspec.structs.replace(one, data={}))
    job = await claimed(jobs)

    with pytest.raises(ValueError, match="gives the recipeArn"):
        await jobs.succeed(job, now_s=NOW)
    ended = await jobs.succeed(job, now_s=NOW, data=DATA)
    assert (ended.status, ended.data) == (ACTIVE, DATA)


async def test_the_failure_reason_is_bounded(resources: Registry) -> None:
    """It is the runner's, shortened."""
    jobs = await asked_for(resources, "data-deletion-job/d")
    failed = await jobs.fail(await claimed(jobs), "x" * 9999, now_s=NOW)

    assert failed.status == statuses.FAILED
    assert failed.failure_reason == "x" * MAX_REASON_CHARACTERS


async def test_a_job_that_ends_its_runners_fails(resources: Registry) -> None:
    """After MAX_TRIES expired leases it has failed."""
    jobs = await asked_for(resources, JOBS[0])
    for n in range(MAX_TRIES):
        await claimed(jobs, NOW + n * LEASE_S)

    assert await jobs.claim(now_s=NOW + MAX_TRIES * LEASE_S, lease_s=LEASE_S) is None
    failed = await resources.get(JOBS[0])
    assert failed.status == statuses.CREATE_FAILED
    assert f"after {MAX_TRIES} tries" in failed.failure_reason


async def test_runners_that_are_stopped_harm_no_job(resources: Registry) -> None:
    """However often its runner is stopped, as by a deployment, another goes on with a job."""
    jobs = await asked_for(resources, JOBS[0])
    for _ in range(2 * MAX_TRIES):
        await jobs.leave(await claimed(jobs), now_s=NOW)

    assert (await jobs.succeed(await claimed(jobs), now_s=NOW)).status == ACTIVE


async def test_a_job_whose_path_is_taken_again_does_not_inherit_claims(
    resources: Registry,
) -> None:
    """Removed with its parent and requested again, a job starts from nothing."""
    await resources.create(Resource("dataset/g/ITEMS", ACTIVE, NOW, NOW, {}))
    jobs = Jobs(resources)
    for _ in range(2):
        one = job_resource("dataset-import-job/j")
        await resources.create(msgspec.structs.replace(one, links=("dataset/g/ITEMS",)))
        await jobs.succeed(await claimed(jobs), now_s=NOW)
        await resources.remove("dataset/g/ITEMS")
        await resources.create(Resource("dataset/g/ITEMS", ACTIVE, NOW, NOW, {}))

    assert await resources.redis.exists(f"{PREFIX}queue", f"{PREFIX}claims", f"{PREFIX}tries") == 0


async def test_a_stopped_job_is_not_begun(resources: Registry) -> None:
    """Stopped before its claim, or between claim and begin."""
    jobs = await asked_for(resources, *JOBS[:2])
    await jobs.stop(JOBS[0], now_s=NOW)
    await resources.redis.zadd(f"{PREFIX}queue", {JOBS[0]: NOW - 1})

    job = await claimed(jobs)

    assert job.path == JOBS[1]
    assert (await resources.get(JOBS[0])).status == statuses.CREATE_STOPPED
