"""Random sequences of operations on a few names keep the registry consistent."""

from __future__ import annotations

import random
from typing import Any

import pytest

from api.personalize.operations import OPERATIONS
from api.personalize.service_model import service_operations
from models.errors import ServiceError
from models.personalize.resources.registry import PREFIX, Registry
from models.personalize.resources.resource import indexes_of
from models.personalize.resources.resource_types import KINDS
from models.personalize.resources.statuses import UNFINISHED
from tests.personalize.control_fixtures import INTERACTIONS, ROLE, Control, recipe_arn, schema_text
from tests.personalize.resource_fixtures import ARN, Documents

NAMES = ["a", "b"]
GROUPS = [f"{ARN}dataset-group/{name}" for name in (*NAMES, "shop")]
KNOWN: dict[str, list[Any]] = {
    "name": NAMES,
    "jobName": [f"job-{n}" for n in range(40)],
    "domain": ["ECOMMERCE"],
    "datasetGroupArn": GROUPS,
    "schemaArn": [f"{ARN}schema/{name}" for name in NAMES],
    "schema": [
        schema_text(*INTERACTIONS, "EVENT_TYPE"),
        schema_text("ITEM_ID", "PRICE:float", "CATEGORY_L1:categorical"),
    ],
    "datasetType": ["Interactions", "ITEMS"],
    "datasetArn": [f"{group.replace('-group', '')}/{kind}" for group in GROUPS
                   for kind in ("INTERACTIONS", "ITEMS")],
    "solutionArn": [f"{ARN}solution/{name}" for name in NAMES],
    "campaignArn": [f"{ARN}campaign/{name}" for name in (*NAMES, "default")],
    "recommenderArn": [f"{ARN}recommender/{name}" for name in NAMES],
    "recipeArn": [recipe_arn("aws-user-personalization"), recipe_arn("aws-item-affinity"),
                  recipe_arn("aws-ecomm-recommended-for-you")],
    "resourceArn": [*GROUPS, *(f"{ARN}solution/{name}" for name in NAMES)],
    "filterArn": [f"{ARN}filter/{name}" for name in NAMES],
    "filterExpression": ['EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("Purchase")'],
    "roleArn": [ROLE],
    "solutionConfig": [{}, {"eventsConfig": {"eventParametersList": [{"eventType": "a"}]}}],
    "campaignConfig": [{}, {"syncWithLatestSolutionVersion": True}],
    "recommenderConfig": [{}, {"enableMetadataWithRecommendations": True}],
    "batchInferenceJobMode": ["BATCH_INFERENCE"],
    "numResults": [25],
    "tags": [[], [{"tagKey": "k", "tagValue": "v"}]],
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
async def test_any_sequence_keeps_the_registry_consistent(control: Control, seed: int) -> None:
    """Answers fit their shapes, refusals are typed, and all indexes and links are right."""
    chosen = random.Random(seed)
    known = dict(KNOWN)
    names = sorted(
        name for name in OPERATIONS if service_operations()[name].service == "personalize"
    )
    operations = {name: Documents(name, seed=seed, known=known) for name in names}
    creating = [name for name in operations if name.startswith("Create")]
    done = 0
    for _ in range(1200):
        name = chosen.choice(chosen.choice([creating, [*operations]]))
        try:
            await control(name, **operations[name].valid())
        except ServiceError:
            continue
        done += 1
        if chosen.random() < 0.3:
            await run_a_job(control, chosen)
        versions = await control.context.registry.page("solution-version")
        none = f"{ARN}solution/a/00000000"
        known["solutionVersionArn"] = [none, *(control.arn(one.path) for one in versions[:5])]

    assert done > 100
    await assert_consistent(control.context.registry)


async def run_a_job(control: Control, chosen: random.Random) -> None:
    """Claim a job, and let it succeed, fail, or lose its lease."""
    job = await control.jobs.claim(now_s=control.now_s, lease_s=10)
    how = chosen.random()
    if job is None or how < 0.2:
        return
    if job.path.startswith("dataset-group/"):
        await control.jobs.remove(job)
    elif how < 0.8:
        won = {"recipeArn": recipe_arn("aws-hrnn")} if job.path.startswith("solution/") else {}
        await control.jobs.succeed(job, now_s=control.now_s, data={**won, **job.resource.data})
    else:
        await control.jobs.fail(job, "it broke", now_s=control.now_s)


async def assert_consistent(resources: Registry) -> None:
    """Every link leads to a resource, and indexes and queue are complete."""
    stored = {one.path: one for kind in KINDS for one in await resources.page(kind, limit=10_000)}
    expected: dict[str, set[str]] = {}
    for one in stored.values():
        missing = [link for link in one.links if link not in stored]
        assert not [link for link in missing if not link.startswith("filter/")], one
        for name in indexes_of(one):
            expected.setdefault(name, set()).add(one.path)
    found = {
        key.decode().removeprefix(f"{PREFIX}index:"): {
            path.decode() for path in await resources.redis.zrange(key, 0, -1)
        }
        async for key in resources.redis.scan_iter(match=f"{PREFIX}index:*", count=1000)
    }
    assert found == expected
    queued = {path.decode() for path in await resources.redis.zrange(f"{PREFIX}queue", 0, -1)}
    assert queued == {path for path, one in stored.items() if one.status in UNFINISHED}
