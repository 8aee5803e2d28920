"""Schemas and datasets: the fields of records, and the records of one type in a group."""

from __future__ import annotations

from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control.crud import (
    delete_operation,
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    quota_limit,
)
from api.personalize.control.dataset_groups import group_name
from api.personalize.protocol import Operation
from models.action_groups import actions_group
from models.errors import InvalidInput, ResourceInUse, ServiceError
from models.personalize.datasets.dataset_schemas import (
    ACTION_TYPES,
    check_columns,
    check_replacement,
    contextual,
    dataset_type_of,
    parse_schema,
)
from models.personalize.resources.registry import IndexLimit
from models.personalize.resources.resource import Resource, index_name
from models.personalize.resources.statuses import ACTIVE


async def create_schema(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Create a valid schema; its dataset type is checked when a dataset is created."""
    parse_schema(request["schema"])
    schema = new_resource(context, f"schema/{request['name']}", request)
    await context.registry.create(schema, quota_limit(context, "schema"))
    return {"schemaArn": context.registry.arn(schema.path)}


async def create_dataset(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Create an empty dataset; a group has at most one of each type.

    One of interactions with actions has a tracking id of its own, for PutActionInteractions.
    """
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    schema = await get_resource(context, request["schemaArn"], "schema")
    dataset_type = dataset_type_of(request["datasetType"])
    _check(schema, dataset_type, group)
    # Repeated, because creating the group may have been interrupted.
    await context.tenants.create(group_name(group))
    if dataset_type in ACTION_TYPES:
        await context.tenants.create_actions(group_name(group))
    path = f"dataset/{group_name(group)}/{dataset_type}"
    has_tracker = dataset_type == "ACTION_INTERACTIONS"
    tracker = {"trackingId": context.services.new_id()} if has_tracker else {}
    dataset = new_resource(
        context, path, request, group.path, schema.path, datasetType=dataset_type, **tracker
    )
    if has_tracker:
        # Registered first: interactions with an unregistered tracking id would be lost.
        actions = actions_group(group_name(group))
        await context.tenants.register(tracker["trackingId"], actions)
    try:
        await context.registry.create(dataset)
    except ServiceError:
        if has_tracker:
            await context.tenants.remove(tracker["trackingId"], now_s=context.services.clock())
        raise
    await _name_columns(context, path)
    return {"datasetArn": context.registry.arn(path)}


async def update_dataset(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Change the schema of a dataset, if imported records still fit."""
    resources, now_s = context.registry, context.services.clock()
    dataset = await get_resource(context, request["datasetArn"], "dataset")
    schema = await get_resource(context, request["schemaArn"], "schema")
    group, old_schema = [await resources.get(link) for link in dataset.links]
    _check(schema, dataset.data["datasetType"], group)
    check_replacement(parse_schema(old_schema.data["schema"]), parse_schema(schema.data["schema"]))
    schema_arn = resources.arn(schema.path)
    update = {
        "schemaArn": schema_arn,
        "status": ACTIVE,
        "creationDateTime": now_s,
        "lastUpdatedDateTime": now_s,
    }

    def updated(old: Resource) -> Resource:
        if old.links != dataset.links:
            raise ResourceInUse("another request is changing the dataset's schema")
        return old.with_parents(group.path, schema.path).with_data(
            now_s=now_s, schemaArn=schema_arn, latestDatasetUpdate=update
        )

    importing = index_name("dataset-import-job", dataset.path, only="unfinished")
    await resources.change(
        dataset.path, updated, IndexLimit(importing, 0, ResourceInUse("an import is under way"))
    )
    await _name_columns(context, dataset.path)
    return {"datasetArn": resources.arn(dataset.path)}


async def delete_dataset(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Delete a dataset and its ended jobs; its records stay until the group is deleted."""
    dataset = await get_resource(context, request["datasetArn"], "dataset")
    training = index_name("solution-version", dataset.links[0], only="unfinished")
    error = ResourceInUse("a solution version of the dataset group is being created")
    await context.registry.remove(dataset.path, IndexLimit(training, 0, error))
    if "trackingId" in dataset.data:
        await context.tenants.remove(dataset.data["trackingId"], now_s=context.services.clock())
    if dataset.data["datasetType"] == "INTERACTIONS":
        group = await context.registry.get(dataset.links[0])
        await context.tenants.name_columns(group_name(group), ())
    return {}


async def _name_columns(context: PersonalizeContext, path: str) -> None:
    """Register the contextual columns of a group by its stored schema of interactions."""
    dataset = await context.registry.get(path)
    if dataset.data["datasetType"] == "INTERACTIONS":
        group, schema = [await context.registry.get(link) for link in dataset.links]
        columns = contextual(parse_schema(schema.data["schema"]))
        await context.tenants.name_columns(group_name(group), columns)


def _check(schema: Resource, dataset_type: str, group: Resource) -> None:
    """Raise `InvalidInput` if a schema does not fit the dataset type or the group's domain."""
    domain, of_schema = group.data.get("domain"), schema.data.get("domain")
    if domain != of_schema:
        theirs, its = domain or "none", of_schema or "none"
        raise InvalidInput(f"the schema is of domain {its}, the dataset group of {theirs}")
    check_columns(parse_schema(schema.data["schema"]), dataset_type, domain)


OPERATIONS: dict[str, Operation] = {
    "CreateSchema": create_schema,
    "DescribeSchema": describe_operation("schema"),
    "ListSchemas": list_operation("schema"),
    "DeleteSchema": delete_operation("schema"),
    "CreateDataset": create_dataset,
    "DescribeDataset": describe_operation("dataset"),
    "ListDatasets": list_operation("dataset"),
    "UpdateDataset": update_dataset,
    "DeleteDataset": delete_dataset,
}
