"""The sequence of the boto3 tutorial over HTTP; the test runs the jobs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from models.personalize.resources.job_queue import Job, Jobs
from models.personalize.resources.registry import Registry
from models.settings import Settings
from models.state.clients.client import connect
from streams.kafka.topics import ensure_topics
from tests.personalize.calls_fixtures import client, serving
from tests.personalize.control_fixtures import INTERACTIONS, LEASE_S, ROLE, schema_text
from tests.servers import wait_until
from tests.stack import PATIENCE_S, embedded_servers, new_stack

METRICS = {"coverage": 0.27, "mean_reciprocal_rank_at_25": 0.04, "precision_at_5": 0.01}
FAR_S = 4e9
"""A time by which every job may be claimed."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, str]]:
    """An API and a worker on servers of their own; gives the API's address."""
    directory = tmp_path_factory.mktemp("tutorial")
    with embedded_servers(directory) as servers:
        stack = new_stack(servers, "tutorial", directory / "stack", cache_s=0.1)
        ensure_topics(stack.settings)
        stack.start("worker")
        try:
            with serving(stack.settings) as url:
                yield stack.settings, url
        finally:
            stack.stop_all()


@pytest.fixture
def personalize(service: tuple[Settings, str]) -> Any:
    """A boto3 client of the control plane."""
    return client("personalize", service[1])


def run_next(settings: Settings, end: Callable[[Jobs, Job], Any]) -> None:
    """Claim a job and complete it, as a runner does."""

    async def run() -> None:
        async with connect(settings.redis) as redis:
            jobs = Jobs(Registry(redis, settings))
            job = await jobs.claim(now_s=FAR_S, lease_s=LEASE_S)
            assert job is not None
            await end(jobs, job)

    asyncio.run(run())


def test_the_tutorial(service: tuple[Settings, str], personalize: Any) -> None:
    """Schema, group, datasets, import, recipes, solution, version, metrics, campaign, answer."""
    settings, url = service
    schemas = {
        "INTERACTIONS": schema_text(*INTERACTIONS, "EVENT_TYPE", "EVENT_VALUE:float"),
        "ITEMS": schema_text("ITEM_ID", "GENRES:categorical", name="Items"),
        "USERS": schema_text("USER_ID", "GENDER:categorical", name="Users"),
    }
    group = personalize.create_dataset_group(name="movies")["datasetGroupArn"]
    described = personalize.describe_dataset_group(datasetGroupArn=group)
    assert described["datasetGroup"]["status"] == "ACTIVE"
    datasets = {}
    for kind, text in schemas.items():
        schema = personalize.create_schema(name=f"movies-{kind.lower()}", schema=text)["schemaArn"]
        assert json.loads(personalize.describe_schema(schemaArn=schema)["schema"]["schema"])
        datasets[kind] = personalize.create_dataset(
            name=f"movies-{kind.lower()}",
            datasetType=kind,
            datasetGroupArn=group,
            schemaArn=schema,
        )["datasetArn"]

    imported = personalize.create_dataset_import_job(
        jobName="movies-import",
        datasetArn=datasets["INTERACTIONS"],
        dataSource={"dataLocation": "s3://movies/interactions.csv"},
        roleArn=ROLE,
    )["datasetImportJobArn"]

    def import_status() -> str:
        answer = personalize.describe_dataset_import_job(datasetImportJobArn=imported)
        assert answer["datasetImportJob"].get("latestDatasetImportJobRun") is None
        return str(answer["datasetImportJob"]["status"])

    assert import_status() == "CREATE PENDING"
    run_next(settings, lambda jobs, job: jobs.succeed(job, now_s=FAR_S))
    assert import_status() == "ACTIVE"

    recipes = [recipe["recipeArn"] for recipe in personalize.list_recipes()["recipes"]]
    assert "arn:aws:personalize:::recipe/aws-user-personalization" in recipes
    solution = personalize.create_solution(
        name="movies-solution",
        datasetGroupArn=group,
        recipeArn="arn:aws:personalize:::recipe/aws-user-personalization",
    )["solutionArn"]
    version = personalize.create_solution_version(solutionArn=solution)["solutionVersionArn"]
    with pytest.raises(personalize.exceptions.ResourceInUseException):
        personalize.create_campaign(name="movies-campaign", solutionVersionArn=version)
    run_next(
        settings,
        lambda jobs, job: jobs.succeed(job, now_s=FAR_S, hidden={"metrics": METRICS}),
    )
    shown = personalize.describe_solution_version(solutionVersionArn=version)["solutionVersion"]
    assert shown["status"] == "ACTIVE"
    assert personalize.get_solution_metrics(solutionVersionArn=version)["metrics"] == METRICS

    campaign = personalize.create_campaign(
        name="movies-campaign", solutionVersionArn=version, minProvisionedTPS=1
    )["campaignArn"]
    status = personalize.describe_campaign(campaignArn=campaign)["campaign"]["status"]
    assert status == "ACTIVE"
    tracker = personalize.create_event_tracker(name="movies-tracker", datasetGroupArn=group)
    client("personalize-events", url).put_events(
        trackingId=tracker["trackingId"],
        userId="1",
        sessionId="s1",
        eventList=[{"eventType": "watch", "itemId": "242", "sentAt": 1_700_000_000}],
    )
    answer = client("personalize-runtime", url).get_recommendations(
        campaignArn=campaign, userId="1"
    )
    assert isinstance(answer["itemList"], list)
    assert answer["recommendationId"]


def test_groups_never_see_each_others_events(service: tuple[Settings, str]) -> None:
    """Events change only the answers of their tracking id's group; a deleted id is refused."""
    control, events, runtime = (
        client(name, service[1])
        for name in ("personalize", "personalize-events", "personalize-runtime")
    )
    campaigns, trackers = {}, {}
    for name in ("red", "blue"):
        group = control.create_dataset_group(name=name)["datasetGroupArn"]
        trackers[name] = control.create_event_tracker(name=name, datasetGroupArn=group)
        solution = control.create_solution(
            name=name,
            datasetGroupArn=group,
            recipeArn="arn:aws:personalize:::recipe/aws-popularity-count",
        )["solutionArn"]
        version = control.create_solution_version(solutionArn=solution)["solutionVersionArn"]
        run_next(service[0], lambda jobs, job: jobs.succeed(job, now_s=FAR_S))
        campaigns[name] = control.create_campaign(name=name, solutionVersionArn=version)[
            "campaignArn"
        ]
        put(events, trackers[name]["trackingId"], f"{name}-item")

    def seen(name: str) -> list[str]:
        answer = runtime.get_recommendations(campaignArn=campaigns[name])
        return [item["itemId"] for item in answer["itemList"]]

    wait_until(
        lambda: seen("red") == ["red-item"] and seen("blue") == ["blue-item"],
        within_s=PATIENCE_S,
        what="each group sees its item",
    )
    control.delete_event_tracker(eventTrackerArn=trackers["red"]["eventTrackerArn"])
    with pytest.raises(events.exceptions.InvalidInputException):
        put(events, trackers["red"]["trackingId"], "late-item")


def put(events: Any, tracking_id: str, item_id: str) -> None:
    """Send one event."""
    one = {"eventType": "click", "itemId": item_id, "sentAt": time.time()}
    events.put_events(trackingId=tracking_id, userId="ada", sessionId="s", eventList=[one])


def test_exceptions_are_typed(personalize: Any) -> None:
    """Each error of the control plane raises the class that clients catch."""
    errors = personalize.exceptions
    group = personalize.create_dataset_group(name="errors")["datasetGroupArn"]
    with pytest.raises(errors.ResourceAlreadyExistsException):
        personalize.create_dataset_group(name="errors")
    with pytest.raises(errors.ResourceNotFoundException):
        personalize.describe_campaign(campaignArn=group.replace("dataset-group", "campaign"))
    with pytest.raises(errors.InvalidInputException):
        personalize.create_schema(name="broken", schema="{")
    with pytest.raises(errors.InvalidNextTokenException):
        personalize.list_schemas(nextToken="made up")
    many = [{"tagKey": f"k{n}", "tagValue": ""} for n in range(51)]
    with pytest.raises(errors.TooManyTagsException):
        personalize.tag_resource(resourceArn=group, tags=many)
    with pytest.raises(errors.TooManyTagKeysException):
        personalize.untag_resource(resourceArn=group, tagKeys=[f"k{n}" for n in range(51)])
    solution = personalize.create_solution(
        name="errors", datasetGroupArn=group, performAutoML=True
    )["solutionArn"]
    with pytest.raises(errors.ResourceInUseException):
        personalize.delete_dataset_group(datasetGroupArn=group)
    personalize.delete_solution(solutionArn=solution)
    metrics = {
        "datasetGroupArn": group,
        "metrics": [],
        "metricsOutputConfig": {"roleArn": ROLE},
    }
    personalize.create_metric_attribution(name="first", **metrics)
    with pytest.raises(errors.LimitExceededException):
        personalize.create_metric_attribution(name="second", **metrics)


def test_paginators_go_through_everything(personalize: Any) -> None:
    """boto3's paginators follow the tokens to the end."""
    for n in range(3):
        personalize.create_schema(name=f"page-{n}", schema=schema_text(*INTERACTIONS))
    pages = personalize.get_paginator("list_schemas").paginate(PaginationConfig={"PageSize": 1})
    names = [schema["name"] for page in pages for schema in page["schemas"]]

    assert [name for name in names if name.startswith("page-")] == ["page-0", "page-1", "page-2"]
    assert len(names) == len(set(names))
