"""The control plane in this process: operations driven directly, on a real Redis server."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any

from api.dependencies import ReadinessCheck, Services
from api.impressions import ImpressionLog
from api.live_figures import LiveFeed
from api.personalize.context import PersonalizeContext
from api.personalize.operations import OPERATIONS
from api.personalize.saved_filters import RegistryFilters
from api.personalize.service_model import service_operations
from api.read_your_writes import ReadYourWrites
from api.server.admission import Gate
from models.personalize.resources.job_queue import Job, Jobs
from models.personalize.resources.registry import Registry
from models.serving.merchandising.experiments import ExperimentCache
from models.serving.merchandising.placements import PlacementCache
from models.serving.merchandising.segments import Segments
from models.serving.recommenders import Recommenders
from models.settings import Settings
from models.state.clients.client import connect
from models.state.shards.reached_marks import field_of_kind
from models.state.store import Store
from models.state.tenants import Tenants
from tests.api_server import FakePublisher

NOW = 1_795_000_000.0
ROLE = "arn:aws:iam::000000000000:role/reader"
LEASE_S = 60.0

INTERACTIONS = ["USER_ID", "ITEM_ID", "TIMESTAMP"]


@dataclass
class Control:
    """Calls operations as the protocol does: input is checked before, output after.

    Attributes
    ----------
    now_s
        The present; a second later after each call.
    """

    context: PersonalizeContext
    settings: Settings
    now_s: float = NOW
    jobs: Jobs = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.context.registry)

    async def __call__(self, operation: str, **request: Any) -> dict[str, Any]:
        """The answer of the operation."""
        self.now_s += 1
        checked = service_operations()[operation].validate_input(request)
        answer = await OPERATIONS[operation](self.context, checked)
        service_operations()[operation].check_output(json.loads(json.dumps(answer)))
        return answer

    def arn(self, path: str) -> str:
        """The ARN of a path."""
        return self.context.registry.arn(path)

    async def group(self, name: str = "g", **request: Any) -> str:
        """The ARN of a new dataset group."""
        answer = await self("CreateDatasetGroup", name=name, **request)
        return str(answer["datasetGroupArn"])

    async def schema(self, name: str, *columns: str, **request: Any) -> str:
        """The ARN of a new schema; all columns but TIMESTAMP are text."""
        text = schema_text(*columns)
        answer = await self("CreateSchema", name=name, schema=text, **request)
        return str(answer["schemaArn"])

    async def dataset(
        self, group: str, *columns: str, kind: str = "INTERACTIONS", **schema_members: Any
    ) -> str:
        """The ARN of a new dataset, with a schema of its own."""
        name = f"{group.rpartition('/')[2]}-{kind}"
        schema = await self.schema(name, *(columns or INTERACTIONS), **schema_members)
        answer = await self(
            "CreateDataset", name=name, schemaArn=schema, datasetGroupArn=group, datasetType=kind
        )
        return str(answer["datasetArn"])

    async def solution(
        self, group: str, name: str = "s", recipe: str = "aws-user-personalization-v2", **more: Any
    ) -> str:
        """The ARN of a new solution."""
        answer = await self(
            "CreateSolution", name=name, datasetGroupArn=group, recipeArn=recipe_arn(recipe), **more
        )
        return str(answer["solutionArn"])

    async def version(self, solution: str, **results: Any) -> str:
        """The ARN of a new version that is ACTIVE."""
        answer = await self("CreateSolutionVersion", solutionArn=solution)
        job = await self.claim_next()
        assert self.arn(job.path) == answer["solutionVersionArn"]
        await self.jobs.succeed(job, now_s=self.now_s, **results)
        return str(answer["solutionVersionArn"])

    async def recommender(
        self, group: str, name: str = "r", recipe: str = "recommended-for-you", **more: Any
    ) -> str:
        """The ARN of a new recommender of a shop, not measured yet."""
        answer = await self(
            "CreateRecommender",
            name=name,
            datasetGroupArn=group,
            recipeArn=recipe_arn(f"aws-ecomm-{recipe}"),
            **more,
        )
        return str(answer["recommenderArn"])

    async def measured(self, recommender: str, **metrics: float) -> str:
        """The same ARN, once a job has measured the recommender."""
        job = await self.claim_next()
        assert self.arn(job.path) == recommender
        await self.jobs.succeed(job, now_s=self.now_s, hidden={"metrics": metrics})
        return recommender

    async def claim_next(self) -> Job:
        """The job that waits longest, claim_next; there must be one."""
        job = await self.jobs.claim(now_s=self.now_s, lease_s=LEASE_S)
        assert job is not None
        return job


def recipe_arn(name: str) -> str:
    """The ARN of a recipe."""
    return f"arn:aws:personalize:::recipe/{name}"


def schema_text(*columns: str, **more: Any) -> str:
    """An Avro schema with columns given as `NAME`, `NAME:type`, or `NAME:categorical`."""
    return json.dumps(
        {
            "type": "record",
            "name": "Interactions",
            "namespace": "com.amazonaws.personalize.schema",
            "fields": [_field(column) for column in columns],
            "version": "1.0",
            **more,
        }
    )


def _field(column: str) -> dict[str, Any]:
    name, _, kind = column.partition(":")
    if kind in {"categorical", "textual"}:
        return {"name": name, "type": ["null", "string"], kind: True}
    usual = "long" if name.endswith("TIMESTAMP") else "string"
    return {"name": name, "type": kind.split("|") if "|" in kind else kind or usual}


def make_control_plane(redis_url: str, **settings: Any) -> Control:
    """A control plane on a server; its settings' group is `shop`."""
    made = Settings(redis=redis_url, **({"cache_s": 0} | settings))
    store = Store(connect(redis_url), made)
    tenants = Tenants(store.redis, made)
    recommenders = Recommenders(tenants)
    numbers = itertools.count()

    async def nothing(*_: Any) -> Any:
        raise AssertionError("the control plane sends no events")

    publisher = FakePublisher(publish=nothing, put=nothing, incarnations=nothing, missing=nothing)
    services = Services(
        settings=made,
        store=store,
        recommender=recommenders.of(made.group),
        tenants=tenants,
        publisher=publisher,
        redis_gate=Gate(made.max_answering, "answers", "Redis"),
        readiness=ReadinessCheck(publisher, store),
        read_your_writes=ReadYourWrites(
            store.watermarks, nothing, most=10, field_of=field_of_kind(store)
        ),
        impressions=ImpressionLog(time.time),
        live=LiveFeed(store, time.time, most=1),
        placements=PlacementCache(store),
        segments=Segments(recommenders.of(made.group)),
        filters=RegistryFilters(made.group),
        experiments=ExperimentCache(store),
        clock=lambda: control.now_s,
        new_id=lambda: f"{next(numbers):032x}",
    )
    context = PersonalizeContext(Registry(store.redis, made), tenants, recommenders, services)
    control = Control(context, made)
    return control
