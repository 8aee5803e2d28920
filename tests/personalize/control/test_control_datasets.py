"""Operations on schemas and datasets."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from models.errors import (
    InvalidInput,
    LimitExceeded,
    ResourceAlreadyExists,
    ResourceInUse,
    ResourceNotFound,
)
from tests.personalize.control_fixtures import INTERACTIONS, NOW, ROLE, Control, schema_text


async def test_a_schema_is_described_unchanged(control: Control) -> None:
    """The description equals the request; a second schema with the name is refused."""
    text = schema_text(*INTERACTIONS, "EVENT_TYPE") + "\n "
    created = await control("CreateSchema", name="clicks", schema=text)
    described = await control("DescribeSchema", schemaArn=created["schemaArn"])

    assert described["schema"] == {
        "name": "clicks",
        "schemaArn": control.arn("schema/clicks"),
        "schema": text,
        "creationDateTime": NOW + 1,
        "lastUpdatedDateTime": NOW + 1,
    }
    with pytest.raises(ResourceAlreadyExists, match="schema/clicks already exists"):
        await control("CreateSchema", name="clicks", schema=text)
    with pytest.raises(InvalidInput, match="not JSON"):
        await control("CreateSchema", name="broken", schema=text.rstrip()[:-1])


async def test_datasets_of_all_three_types(control: Control) -> None:
    """A group has one of each type, named in any case, ACTIVE at once."""
    group = await control.group()
    columns = {
        "INTERACTIONS": INTERACTIONS,
        "ITEMS": ["ITEM_ID", "GENRES:categorical"],
        "USERS": ["USER_ID", "AGE:int"],
    }
    for kind, names in columns.items():
        schema = await control.schema(kind.lower(), *names)
        created = await control(
            "CreateDataset",
            name=f"my-{kind.lower()}",
            schemaArn=schema,
            datasetGroupArn=group,
            datasetType=kind.title(),
        )
        assert created["datasetArn"] == control.arn(f"dataset/g/{kind}")
        described = await control("DescribeDataset", datasetArn=created["datasetArn"])
        assert described["dataset"] == {
            "name": f"my-{kind.lower()}",
            "datasetArn": created["datasetArn"],
            "datasetGroupArn": group,
            "datasetType": kind,
            "schemaArn": schema,
            "status": "ACTIVE",
            "creationDateTime": control.now_s - 1,
            "lastUpdatedDateTime": control.now_s - 1,
        }
        with pytest.raises(ResourceAlreadyExists):
            await control(
                "CreateDataset",
                name="again",
                schemaArn=schema,
                datasetGroupArn=group,
                datasetType=kind,
            )
    listed = await control("ListDatasets", datasetGroupArn=group)
    assert [one["datasetType"] for one in listed["datasets"]] == [*columns]


async def test_other_types_of_datasets_are_refused(control: Control) -> None:
    """The error names the type, and the supported types."""
    group, schema = await control.group(), await control.schema("s", *INTERACTIONS)
    with pytest.raises(InvalidInput, match="is not supported; there are INTERACTIONS"):
        await control(
            "CreateDataset",
            name="d",
            schemaArn=schema,
            datasetGroupArn=group,
            datasetType="Everything",
        )


async def test_a_schema_must_fit_the_dataset(control: Control) -> None:
    """Columns must fit the type, the domain the group, and the schema must exist."""
    group = await control.group()
    shop = await control.group("shop2", domain="ECOMMERCE")
    plain = await control.schema("plain", *INTERACTIONS)
    items = await control.schema("items", "ITEM_ID")
    domain = await control.schema("domain", *INTERACTIONS, "EVENT_TYPE", domain="ECOMMERCE")
    narrow = await control.schema("narrow", *INTERACTIONS, domain="ECOMMERCE")

    async def create(group_arn: str, schema: str, kind: str = "INTERACTIONS") -> None:
        await control(
            "CreateDataset", name="d", schemaArn=schema, datasetGroupArn=group_arn, datasetType=kind
        )

    with pytest.raises(InvalidInput, match="ITEMS schema must have one metadata column"):
        await create(group, items, "ITEMS")
    with pytest.raises(InvalidInput, match="INTERACTIONS schema must have the column USER_ID"):
        await create(group, items)
    with pytest.raises(InvalidInput, match="the schema is of domain none, the dataset group of EC"):
        await create(shop, plain)
    with pytest.raises(InvalidInput, match="the schema is of domain ECOMMERCE, the dataset group"):
        await create(group, domain)
    with pytest.raises(InvalidInput, match="of domain ECOMMERCE must have the column EVENT_TYPE"):
        await create(shop, narrow)
    with pytest.raises(ResourceNotFound):
        await create(group, control.arn("schema/none"))
    with pytest.raises(InvalidInput, match="is not the ARN of a schema"):
        await create(group, group)
    await create(shop, domain)


async def test_a_schema_stays_while_a_dataset_uses_it(control: Control) -> None:
    """A schema in use cannot be deleted."""
    dataset = await control.dataset(await control.group())
    schema = control.arn("schema/g-INTERACTIONS")
    with pytest.raises(ResourceInUse, match="has datasets"):
        await control("DeleteSchema", schemaArn=schema)
    await control("DeleteDataset", datasetArn=dataset)
    await control("DeleteSchema", schemaArn=schema)
    with pytest.raises(ResourceNotFound):
        await control("DescribeSchema", schemaArn=schema)
    with pytest.raises(ResourceNotFound):
        await control("DeleteSchema", schemaArn=schema)


async def test_a_dataset_takes_a_wider_schema(control: Control) -> None:
    """The update is described; it frees the old schema and holds the new one."""
    dataset = await control.dataset(await control.group())
    wider = await control.schema("wider", *INTERACTIONS, "EVENT_TYPE:string|null")
    other = await control.schema("other", *INTERACTIONS, "EVENT_TYPE:string")

    answer = await control("UpdateDataset", datasetArn=dataset, schemaArn=wider)
    described = (await control("DescribeDataset", datasetArn=dataset))["dataset"]

    assert answer == {"datasetArn": dataset}
    assert described["schemaArn"] == wider
    update = described["latestDatasetUpdate"]
    assert (update["schemaArn"], update["status"]) == (wider, "ACTIVE")
    assert described["lastUpdatedDateTime"] == update["creationDateTime"] == control.now_s - 1
    await control("DeleteSchema", schemaArn=control.arn("schema/g-INTERACTIONS"))
    with pytest.raises(ResourceInUse):
        await control("DeleteSchema", schemaArn=wider)
    with pytest.raises(InvalidInput, match="must have EVENT_TYPE as the old one has it"):
        await control("UpdateDataset", datasetArn=dataset, schemaArn=other)


async def test_a_dataset_stays_while_work_on_it_is_under_way(control: Control) -> None:
    """It cannot be deleted or changed during an import, nor deleted during training."""
    group = await control.group()
    dataset = await control.dataset(group)
    wider = await control.schema("wider", *INTERACTIONS, "EVENT_TYPE:string|null")
    await control(
        "CreateDatasetImportJob",
        jobName="j",
        datasetArn=dataset,
        dataSource={"dataLocation": "s3://bucket/rows.csv"},
        roleArn=ROLE,
    )
    with pytest.raises(ResourceInUse, match="an import is under way"):
        await control("UpdateDataset", datasetArn=dataset, schemaArn=wider)
    with pytest.raises(ResourceInUse, match="has unfinished dataset-import-jobs"):
        await control("DeleteDataset", datasetArn=dataset)
    await control.jobs.succeed(await control.claim_next(), now_s=control.now_s)

    solution = await control.solution(group)
    await control("CreateSolutionVersion", solutionArn=solution)
    with pytest.raises(ResourceInUse, match="solution version"):
        await control("DeleteDataset", datasetArn=dataset)
    await control.jobs.fail(await control.claim_next(), "too few users", now_s=control.now_s)
    await control("DeleteDataset", datasetArn=dataset)
    with pytest.raises(ResourceNotFound):
        await control(
            "DescribeDatasetImportJob", datasetImportJobArn=control.arn("dataset-import-job/j")
        )


async def test_schemas_have_a_quota(
    make_control: Callable[..., Control],
) -> None:
    """One more is LimitExceeded; a deletion makes room."""
    control = make_control(personalize_quotas={"schemas": 2})
    first = await control.schema("a", *INTERACTIONS)
    await control.schema("b", *INTERACTIONS)
    with pytest.raises(LimitExceeded, match="there may be 2 schemas"):
        await control.schema("c", *INTERACTIONS)
    await control("DeleteSchema", schemaArn=first)
    await control.schema("c", *INTERACTIONS)


async def test_a_schema_of_the_largest_size(control: Control) -> None:
    """A schema of the longest allowed text is stored and listed."""
    text = schema_text(*INTERACTIONS)
    padded = json.dumps(json.loads(text) | {"doc": "é" * 3000}, ensure_ascii=False)
    padded += " " * (20_000 - len(padded))
    created = await control("CreateSchema", name="large", schema=padded)
    described = await control("DescribeSchema", schemaArn=created["schemaArn"])

    assert described["schema"]["schema"] == padded


async def test_contextual_columns_follow_the_schema(control: Control) -> None:
    """They are registered with the dataset, extended with its schema, and removed with it."""

    async def columns() -> set[bytes]:
        found: set[bytes] = await control.context.tenants.redis.smembers("{g}:columns")
        return found

    group = await control.group()
    own = [*INTERACTIONS, "EVENT_TYPE", "EVENT_VALUE:float"]
    dataset = await control.dataset(
        group, *own, "DEVICE:categorical", "PRICE:float", "HOUR_OF_DAY:int"
    )
    assert await columns() == {b"device", b"hourofday"}
    await control.dataset(group, "USER_ID", "CITY:categorical", kind="USERS")
    assert await columns() == {b"device", b"hourofday"}

    wider = await control.schema(
        "wider", *own, "DEVICE:categorical", "PRICE:float", "HOUR_OF_DAY:int", "WEATHER:categorical"
    )
    await control("UpdateDataset", datasetArn=dataset, schemaArn=wider)
    assert await columns() == {b"device", b"hourofday", b"weather"}

    await control("DeleteDataset", datasetArn=dataset)
    assert await columns() == set()
