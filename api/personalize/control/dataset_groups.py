"""Dataset groups (tenants), and event trackers, whose tracking ids name the group of an event."""

from __future__ import annotations

from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.control import builtin_resources
from api.personalize.control.crud import (
    describe_operation,
    get_resource,
    list_operation,
    new_resource,
    quota_limit,
)
from api.personalize.protocol import Operation
from models.errors import InvalidInput, ResourceAlreadyExists, ResourceInUse, ServiceError
from models.personalize.resources.registry import IndexLimit
from models.personalize.resources.resource import Resource, index_name
from models.personalize.resources.resource_types import ResourcePath
from models.personalize.resources.statuses import DELETE_PENDING
from models.state.tenants import RESERVED


async def create_dataset_group(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create an empty dataset group."""
    await builtin_resources.ensure_builtin(context)
    name = request["name"]
    if name == RESERVED:
        raise InvalidInput(f"the name {name!r} is reserved")
    group = new_resource(context, f"dataset-group/{name}", request)
    # The built-in group does not count.
    await context.registry.create(group, quota_limit(context, "dataset-group", extra=1))
    await context.tenants.create(name)
    arn = context.registry.arn(group.path)
    return {"datasetGroupArn": arn} | {
        name: member for name, member in request.items() if name == "domain"
    }


async def delete_dataset_group(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Forbid new resources in the group; a job erases its data and the group."""
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    now_s = context.services.clock()
    await context.registry.change(
        group.path,
        lambda old: old.transition(DELETE_PENDING, now_s=now_s),
        *context.registry.blockers(group),
        claimable_s=now_s,
    )
    return {}


async def create_event_tracker(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Create a tracking id; events that carry it belong to the group from now on."""
    resources = context.registry
    group = await get_resource(context, request["datasetGroupArn"], "dataset-group")
    tracking_id = context.services.new_id()
    tracker = new_resource(
        context,
        builtin_resources.tracker_path(request["name"]),
        request,
        group.path,
        trackingId=tracking_id,
        accountId=resources.settings.personalize_account,
    )
    has_one = ResourceAlreadyExists(f"{resources.arn(group.path)} has an event tracker already")
    # Registered first: a tracker that was created and not registered would lose events unnoticed.
    await context.tenants.register(tracking_id, group_name(group))
    try:
        await resources.create(
            tracker, IndexLimit(index_name("event-tracker", group.path), 0, has_one)
        )
    except ServiceError:
        await context.tenants.remove(tracking_id, now_s=context.services.clock())
        raise
    return {"eventTrackerArn": resources.arn(tracker.path), "trackingId": tracking_id}


async def delete_event_tracker(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Delete a tracking id: new events that carry it are refused, earlier ones stay in effect."""
    tracker = await get_resource(context, request["eventTrackerArn"], "event-tracker")
    tracking_id = tracker.data["trackingId"]
    if tracking_id == context.registry.settings.tracking_id:
        raise ResourceInUse("this event tracker is built in: RECOMMENDER_TRACKING_ID")
    await context.tenants.remove(tracking_id, now_s=context.services.clock())
    await context.registry.remove(tracker.path)
    return {}


def group_name(group: Resource) -> str:
    """Name of a dataset group, as in `models.state.tenants`."""
    return ResourcePath.of(group.path).name


OPERATIONS: dict[str, Operation] = {
    "CreateDatasetGroup": create_dataset_group,
    "DescribeDatasetGroup": describe_operation("dataset-group"),
    "ListDatasetGroups": list_operation("dataset-group"),
    "DeleteDatasetGroup": delete_dataset_group,
    "CreateEventTracker": create_event_tracker,
    "DescribeEventTracker": describe_operation("event-tracker"),
    "ListEventTrackers": list_operation("event-tracker"),
    "DeleteEventTracker": delete_event_tracker,
}
