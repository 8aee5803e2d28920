"""The runner of jobs in this process: claims, completes and releases jobs, on a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from models.personalize.training.solution_metrics import METRICS
from models.state.catalogue.metadata import put_items
from models.state.groups.group_registry import SCRATCH_GROUPS
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from streams.jobs import runner as jobs_runner
from streams.jobs import training
from streams.jobs.job import JobContext, JobResult
from streams.jobs.runner import Runner
from streams.object_store import Objects
from tests.personalize.control_fixtures import ROLE, Control, recipe_arn

START_S = 1_700_000_000


def runner_of(control: Control, folder: Path) -> Runner:
    """A runner of a control plane's jobs, with a folder for S3."""
    context = control.context
    (folder / "data").mkdir(exist_ok=True)
    (folder / "results").mkdir(exist_ok=True)
    return Runner(context.registry, context.tenants, Objects(str(folder)), lambda: control.now_s)


async def run_next(control: Control, runner: Runner) -> None:
    """Run the job that waits longest."""
    await runner.run_one(await control.claim_next())


async def events(control: Control, group: str, n_users: int, each: int) -> None:
    """Apply events: user n takes items of its own kind."""
    store = control.context.tenants.store(group)
    for user in range(n_users):
        message = StoredMessage(
            user,
            f"u{user}",
            f"u{user}",
            shard_of(f"u{user}"),
            control.now_s,
            [
                StoredEvent(
                    f"i{3 * ((n + user) % 20) + user % 3}",
                    START_S + 100 * n + user,
                    "watch",
                    0.0,
                    False,
                    1000 * user + n,
                )
                for n in range(each)
            ],
        )
        await store.apply([Part("test/0", user - 1, [message])], now_s=control.now_s)


async def deletion(control: Control, group: str, name: str = "d") -> Callable[[], Any]:
    """The description of a new job that deletes the users in data/users.csv."""
    created = await control(
        "CreateDataDeletionJob",
        jobName=name,
        datasetGroupArn=group,
        dataSource={"dataLocation": "s3://data/users.csv"},
        roleArn=ROLE,
    )

    async def described() -> dict[str, Any]:
        arn = created["dataDeletionJobArn"]
        answer = await control("DescribeDataDeletionJob", dataDeletionJobArn=arn)
        return dict(answer["dataDeletionJob"])

    return described


async def test_a_missing_file_fails_a_job(control: Control, tmp_path: Path) -> None:
    """The failure reason names the file, and a possible cause; the metrics count the failure."""

    def n_failed() -> float:
        labels = {"kind": "data-deletion-job", "outcome": "failed"}
        return REGISTRY.get_sample_value("recommender_jobs_total", labels) or 0.0

    before = n_failed()
    described = await deletion(control, await control.group())
    await run_next(control, runner_of(control, tmp_path))
    failed = await described()

    assert failed["status"] == "FAILED"
    assert n_failed() == before + 1
    assert "no object at s3://data/users.csv" in failed["failureReason"]


@pytest.mark.slow
async def test_a_version_measures_its_recipe(control: Control, tmp_path: Path) -> None:
    """Its metrics are stored, and the scratch group is deleted, an abandoned one included."""
    group, runner = await control.group(), runner_of(control, tmp_path)
    await events(control, "g", 60, 20)
    await control.context.tenants.redis.hset(SCRATCH_GROUPS, "scratch.gone", "solution/x/gone")
    await control.context.tenants.redis.set("{scratch.gone}:items", "left")
    for n, recipe in enumerate(
        ("aws-user-personalization-v2", "aws-similar-items", "aws-popularity-count")
    ):
        solution = await control.solution(group, f"s{n}", recipe)
        created = await control("CreateSolutionVersion", solutionArn=solution)
        await run_next(control, runner)
        metrics = (await control("GetSolutionMetrics", **created))["metrics"]

        assert len(metrics) == 8
        # None of the test users takes the most popular item next.
        assert (metrics["mean_reciprocal_rank_at_25"] > 0) is (n < 2)
        assert 0 < metrics["coverage"] <= 1
    assert await control.context.tenants.redis.keys("{scratch.*") == []
    assert await control.context.tenants.redis.exists(SCRATCH_GROUPS) == 0


async def test_a_recommender_is_measured(control: Control, tmp_path: Path) -> None:
    """By its own recipe, in metrics of Amazon's names; without events it says why it has none."""
    group, runner = await control.group(domain="ECOMMERCE"), runner_of(control, tmp_path)

    async def found(recipe: str) -> dict[str, Any]:
        arn = await control.recommender(group, recipe, recipe)
        await run_next(control, runner)
        return dict((await control("DescribeRecommender", recommenderArn=arn))["recommender"])

    empty = await found("popular-items-by-purchases")
    await events(control, "g", 60, 20)
    personal, popular = [await found(f"{name}") for name in ("recommended-for-you",
                                                             "popular-items-by-views")]  # fmt: skip

    assert (empty["status"], empty["modelMetrics"]) == ("ACTIVE", {})
    assert empty["failureReason"].startswith("There are no metrics: Dataset has fewer than 25")
    assert set(personal["modelMetrics"]) == set(popular["modelMetrics"]) == set(METRICS)
    # None of the test users takes the most popular item next.
    assert personal["modelMetrics"]["mean_reciprocal_rank_at_25"] > 0
    assert popular["modelMetrics"]["mean_reciprocal_rank_at_25"] == 0
    assert (personal["status"], "failureReason" in personal) == ("ACTIVE", False)
    assert await control.context.tenants.redis.keys("{scratch.*") == []


async def test_the_best_recipe_wins(control: Control, tmp_path: Path) -> None:
    """AutoML takes the recipe with the better reciprocal rank, and the version has it."""
    group, runner = await control.group(), runner_of(control, tmp_path)
    await events(control, "g", 60, 20)
    solution = (
        await control("CreateSolution", name="s", datasetGroupArn=group, performAutoML=True)
    )["solutionArn"]
    created = await control("CreateSolutionVersion", solutionArn=solution)
    await run_next(control, runner)
    version = (await control("DescribeSolutionVersion", **created))["solutionVersion"]
    path = created["solutionVersionArn"].rpartition(":")[2]
    measured = (await control.context.registry.get(path)).hidden["measured"]
    best = max(measured, key=lambda name: measured[name]["mean_reciprocal_rank_at_25"])

    assert len(measured) == 2
    assert version["recipeArn"] == f"arn:aws:personalize:::recipe/{best}"
    assert version["trainingHours"] > 0


@pytest.mark.parametrize("metric", ["coverage", "precision_at_5"])
async def test_the_metric_says_which_recipe_is_best(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    """AutoML takes the recipe that is better by the configured one; its own list may be given."""
    group, runner = await control.group(), runner_of(control, tmp_path)
    await events(control, "g", 60, 20)
    names = training.AUTOML_RECIPES
    measured = dict(zip(names, ({"coverage": 0.2, "precision_at_5": 0.1}, {"coverage": 0.1,
                                "precision_at_5": 0.2}), strict=True))  # fmt: skip
    monkeypatch.setattr(training, "evaluate_recipes", lambda *_, **__: measured)
    solution = (
        await control(
            "CreateSolution",
            name="s",
            datasetGroupArn=group,
            performAutoML=True,
            solutionConfig={
                "autoMLConfig": {
                    "metricName": metric,
                    "recipeList": [recipe_arn(name) for name in names],
                }
            },
        )
    )["solutionArn"]
    created = await control("CreateSolutionVersion", solutionArn=solution)
    await run_next(control, runner)
    arn = (await control("DescribeSolutionVersion", **created))["solutionVersion"]["recipeArn"]

    assert arn == recipe_arn(names[metric == "precision_at_5"])


@pytest.mark.parametrize("recipe", ["aws-item-affinity", "aws-item-attribute-affinity"])
async def test_recipes_of_segments_have_metrics(
    control: Control, tmp_path: Path, recipe: str
) -> None:
    """Of a kind of items its users are found; of one item none, for nobody takes one twice."""
    group, runner = await control.group(), runner_of(control, tmp_path)
    await events(control, "g", 60, 20)
    kinds = [(f"i{n}", {"GENRE": f"kind {n % 3}"}) for n in range(60)]
    await put_items(control.context.tenants.store("g"), kinds, control.now_s)
    solution = await control.solution(group, "s", recipe)
    created = await control("CreateSolutionVersion", solutionArn=solution)
    await run_next(control, runner)
    metrics = (await control("GetSolutionMetrics", **created))["metrics"]

    assert set(metrics) == {"coverage", "hit", "recall"}
    assert 0.0 <= metrics["recall"] <= metrics["hit"] <= 1.0
    assert (metrics["hit"] > 0.5) == ("attribute" in recipe)
    assert 0.0 < metrics["coverage"] <= 1.0


async def test_minimums_have_amazons_text(control: Control, tmp_path: Path) -> None:
    """A group with 24 users fails, and one with too few interactions."""
    group, runner = await control.group(), runner_of(control, tmp_path)
    await events(control, "g", 24, 50)
    solution = await control.solution(group)
    created = await control("CreateSolutionVersion", solutionArn=solution)
    await run_next(control, runner)
    failed = (await control("DescribeSolutionVersion", **created))["solutionVersion"]

    assert (failed["status"], failed["failureReason"]) == (
        "CREATE FAILED",
        "Dataset has fewer than 25 users with at least 2 interactions each.",
    )


async def test_batches_answer_each_line(control: Control, tmp_path: Path) -> None:
    """Similar items without scores, filtered rankings, and errors, in the order of the lines."""
    group, runner = await control.group(), runner_of(control, tmp_path)
    await events(control, "g", 60, 20)
    await control(
        "CreateFilter",
        name="unseen",
        datasetGroupArn=group,
        filterExpression='EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("watch")',
    )
    asked = {
        "aws-similar-items": ['{"itemId": "i0"}', "nonsense", '{"itemId": "unknown"}'],
        "aws-personalized-ranking": ['{"userId": "u0", "itemList": ["i0", "i3", "i1", "i4"]}'],
    }
    answers = {}
    for recipe, lines in asked.items():
        (tmp_path / "data" / f"{recipe}.json").write_text("\n".join(lines))
        solution = await control.solution(group, recipe, recipe)
        version = await control.version(solution)
        more = {"filterArn": control.arn("filter/unseen")} if "ranking" in recipe else {}
        await control(
            "CreateBatchInferenceJob",
            jobName=recipe,
            solutionVersionArn=version,
            numResults=10,
            roleArn=ROLE,
            jobInput={"s3DataSource": {"path": f"s3://data/{recipe}.json"}},
            jobOutput={"s3DataDestination": {"path": "s3://results/"}},
            **more,
        )
        await run_next(control, runner)
        text = (tmp_path / "results" / f"{recipe}.json.out").read_text()
        answers[recipe] = [json.loads(line) for line in text.splitlines()]
    known, bad, unknown = answers["aws-similar-items"]
    (ranked,) = answers["aws-personalized-ranking"]

    assert len(known["output"]["recommendedItems"]) == 10
    assert "scores" not in known["output"]
    assert (bad["input"], bad["output"]) == ("nonsense", None)
    assert bad["error"]
    assert unknown["error"] is None
    assert set(ranked["output"]["recommendedItems"]) == {"i1", "i4"}
    assert sum(ranked["output"]["scores"]) == pytest.approx(1, abs=1e-5)


async def test_segments_by_attributes(control: Control, tmp_path: Path) -> None:
    """Users of items with the attributes; an invalid query gets an error."""
    group, runner = await control.group(), runner_of(control, tmp_path)
    await events(control, "g", 30, 5)
    store = control.context.tenants.store("g")
    kinds = [(f"i{n}", {"KIND": "odd" if n % 3 else "even"}) for n in range(60)]
    await put_items(store, kinds, control.now_s)
    solution = await control.solution(group, "s", "aws-item-attribute-affinity")
    version = await control.version(solution)
    lines = [{"itemAttributes": 'ITEMS.kind = "even"'}, {"itemAttributes": "what"}]
    (tmp_path / "data" / "q.json").write_text("\n".join(map(json.dumps, lines)))
    await control(
        "CreateBatchSegmentJob",
        jobName="s",
        solutionVersionArn=version,
        roleArn=ROLE,
        jobInput={"s3DataSource": {"path": "s3://data/q.json"}},
        jobOutput={"s3DataDestination": {"path": "s3://results/"}},
    )
    await run_next(control, runner)
    text = (tmp_path / "results" / "q.json.out").read_text()
    answer, bad = (json.loads(line) for line in text.splitlines())

    assert set(answer["output"]["recommendedUsers"]) == {f"u{n}" for n in range(0, 30, 3)}
    assert "line 1" in bad["error"]


async def test_progress_of_a_job_is_shown(
    make_control: Callable[..., Control], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress reported from a thread is stored, and in the metrics until the job ends."""
    seen = threading.Event()

    def telling(context: JobContext) -> None:
        context.report_progress("lines answered", 7, 9)
        seen.wait()

    async def busy(context: JobContext) -> JobResult:
        await context.run_in_thread(telling, context)
        return JobResult()

    monkeypatch.setattr(jobs_runner, "HANDLERS", {"data-deletion-job": busy})
    control = make_control(job_lease_s=1.0)
    described = await deletion(control, await control.group())
    job = await control.claim_next()
    task = asyncio.create_task(runner_of(control, tmp_path).run_one(job))
    try:
        found = await control.jobs.unfinished()
        while not found[0].hidden:
            await asyncio.sleep(0.01)
            found = await control.jobs.unfinished()
        counted = [shown_progress(f"recommender_job_{name}_rows") for name in ("done", "known")]
    finally:
        seen.set()
        await task

    assert [one.path for one in found] == ["data-deletion-job/d"]
    assert found[0].hidden == {"progress": ["lines answered", 7, 9]}
    assert counted == [7, 9]
    assert shown_progress("recommender_job_done_rows") == 0
    assert (await described())["status"] == "COMPLETED"
    assert await control.jobs.unfinished() == []


def shown_progress(name: str) -> float | None:
    """Progress of a deletion in this process's metrics."""
    return REGISTRY.get_sample_value(name, {"kind": "data-deletion-job"})


async def test_a_runner_that_ends_releases_its_job(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled, it waits for its threads, and another runner claims the job at once."""
    entered, ended = threading.Event(), threading.Event()

    def for_ever(context: JobContext) -> None:
        entered.set()
        try:
            for _ in context.until_stopped(iter(int, 1)):
                pass
        finally:
            ended.set()

    async def busy(context: JobContext) -> JobResult:
        await context.checkpoint(row=3)
        await context.run_in_thread(for_ever, context)
        return JobResult()

    monkeypatch.setattr(jobs_runner, "HANDLERS", {"data-deletion-job": busy})
    await deletion(control, await control.group())
    job = await control.claim_next()
    task = asyncio.create_task(runner_of(control, tmp_path).run_one(job))
    await asyncio.to_thread(entered.wait)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    again = await control.claim_next()

    assert ended.is_set()
    assert again.path == job.path
    assert again.resource.hidden["row"] == 3
