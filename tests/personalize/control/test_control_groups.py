"""Dataset groups and event trackers: creation and deletion of tenants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from models.errors import (
    InvalidInput,
    LimitExceeded,
    ResourceAlreadyExists,
    ResourceInUse,
    ResourceNotFound,
)
from models.personalize.resources.registry import PREFIX
from tests.personalize.control_fixtures import NOW, Control

SHOP = "arn:aws:personalize:us-east-1:000000000000:dataset-group/shop"


async def test_a_group_is_active_at_once(control: Control) -> None:
    """It is described and listed as requested, ACTIVE at once."""
    created = await control("CreateDatasetGroup", name="video", domain="VIDEO_ON_DEMAND")
    described = await control("DescribeDatasetGroup", datasetGroupArn=created["datasetGroupArn"])
    listed = await control("ListDatasetGroups")

    assert created == {
        "datasetGroupArn": "arn:aws:personalize:us-east-1:000000000000:dataset-group/video",
        "domain": "VIDEO_ON_DEMAND",
    }
    assert described["datasetGroup"] == {
        "name": "video",
        "datasetGroupArn": created["datasetGroupArn"],
        "domain": "VIDEO_ON_DEMAND",
        "status": "ACTIVE",
        "creationDateTime": NOW + 1,
        "lastUpdatedDateTime": NOW + 1,
    }
    assert [group["name"] for group in listed["datasetGroups"]] == ["shop", "video"]


async def test_the_builtin_group_always_exists(control: Control) -> None:
    """It has its tracker, takes resources, and cannot be created or deleted."""
    described = await control("DescribeDatasetGroup", datasetGroupArn=SHOP)
    (tracker,) = (await control("ListEventTrackers", datasetGroupArn=SHOP))["eventTrackers"]
    arn = tracker["eventTrackerArn"]
    shown = (await control("DescribeEventTracker", eventTrackerArn=arn))["eventTracker"]

    assert described["datasetGroup"]["status"] == "ACTIVE"
    assert (shown["trackingId"], shown["datasetGroupArn"]) == ("shop", SHOP)
    assert shown["accountId"] == "000000000000"
    await control.solution(SHOP)
    with pytest.raises(ResourceAlreadyExists):
        await control.group("shop")
    with pytest.raises(ResourceAlreadyExists, match="has an event tracker already"):
        await control("CreateEventTracker", name="mine", datasetGroupArn=SHOP)
    with pytest.raises(ResourceInUse, match="RECOMMENDER_TRACKING_ID"):
        await control("DeleteEventTracker", eventTrackerArn=arn)
    with pytest.raises(ResourceInUse, match="has event-trackers"):
        await control("DeleteDatasetGroup", datasetGroupArn=SHOP)


async def test_a_changed_tracking_id_of_the_settings_is_described(
    make_control: Callable[..., Control],
) -> None:
    """After a start with another tracking id, the service describes the new one."""
    for tracking_id in ("first", "second"):
        control = make_control(tracking_id=tracking_id)
        (tracker,) = (await control("ListEventTrackers"))["eventTrackers"]
        shown = await control("DescribeEventTracker", eventTrackerArn=tracker["eventTrackerArn"])
        assert shown["eventTracker"]["trackingId"] == tracking_id


async def test_simultaneous_processes_make_one_builtin_group(
    make_control: Callable[..., Control],
) -> None:
    """However many processes ask at once, there is one group and one tracker."""
    controls = [make_control() for _ in range(4)]
    await asyncio.gather(*(one("ListDatasetGroups") for one in controls))

    assert len((await controls[0]("ListDatasetGroups"))["datasetGroups"]) == 1
    assert len((await controls[0]("ListEventTrackers"))["eventTrackers"]) == 1


async def test_a_tracker_leads_events_to_its_group(control: Control) -> None:
    """From its creation to its deletion, and not if its creation failed."""
    group = await control.group()
    tenants = control.context.tenants
    created = await control("CreateEventTracker", name="web", datasetGroupArn=group)
    described = await control("DescribeEventTracker", eventTrackerArn=created["eventTrackerArn"])

    assert described["eventTracker"]["trackingId"] == created["trackingId"]
    assert described["eventTracker"]["name"] == "web"
    assert created["eventTrackerArn"].rpartition("/")[2].isalnum()
    assert await tenants.group_of(created["trackingId"]) == "g"
    with pytest.raises(ResourceAlreadyExists):
        await control("CreateEventTracker", name="second", datasetGroupArn=group)
    other = await control.group("other")
    with pytest.raises(ResourceAlreadyExists):
        await control("CreateEventTracker", name="web", datasetGroupArn=other)
    assert await tenants.groups() == {"shop", "g", "other"}
    await control("DeleteEventTracker", eventTrackerArn=created["eventTrackerArn"])
    assert await tenants.group_of(created["trackingId"]) is None
    with pytest.raises(ResourceNotFound):
        await control("DescribeEventTracker", eventTrackerArn=created["eventTrackerArn"])


async def test_a_deleted_group_leaves_nothing(control: Control) -> None:
    """It stays DELETE PENDING until a job has erased its data; then nothing of it is left."""
    group = await control.group()
    tracker = await control("CreateEventTracker", name="web", datasetGroupArn=group)
    resources, tenants = control.context.registry, control.context.tenants
    for key in ("{g}:counts", "{g}:history:u:ada", "{gg}:counts"):
        await resources.redis.set(key, "x")

    with pytest.raises(ResourceInUse, match="has event-trackers"):
        await control("DeleteDatasetGroup", datasetGroupArn=group)
    await control("DeleteEventTracker", eventTrackerArn=tracker["eventTrackerArn"])
    await control("DeleteDatasetGroup", datasetGroupArn=group)
    described = await control("DescribeDatasetGroup", datasetGroupArn=group)
    assert described["datasetGroup"]["status"] == "DELETE PENDING"
    with pytest.raises(ResourceInUse, match="DELETE PENDING"):
        await control.solution(group)
    with pytest.raises(ResourceInUse):
        await control("DeleteDatasetGroup", datasetGroupArn=group)
    with pytest.raises(ResourceAlreadyExists):
        await control.group()

    job = await control.claim_next()
    assert job.resource.status == "DELETE IN_PROGRESS"
    await tenants.erase("g")
    await control.jobs.remove(job)
    assert await tenants.groups() == {"shop"}

    with pytest.raises(ResourceNotFound):
        await control("DescribeDatasetGroup", datasetGroupArn=group)
    assert await resources.redis.exists("{g}:counts", "{g}:history:u:ada") == 0
    assert await resources.redis.exists("{gg}:counts") == 1
    assert not [key async for key in resources.redis.scan_iter(match=f"{PREFIX}*/g*")]
    await control.group()


async def test_a_group_with_resources_cannot_be_deleted(control: Control) -> None:
    """Datasets, solutions and recommenders block its deletion."""
    group = await control.group(domain="ECOMMERCE")
    solution = await control.solution(group)
    with pytest.raises(ResourceInUse, match="has solutions"):
        await control("DeleteDatasetGroup", datasetGroupArn=group)
    await control("DeleteSolution", solutionArn=solution)
    await control("DeleteDatasetGroup", datasetGroupArn=group)


async def test_reserved_names_and_lone_roles_are_refused(control: Control) -> None:
    """The registry's own name is reserved, and a role needs a key."""
    with pytest.raises(InvalidInput, match="the name 'recommender' is reserved"):
        await control.group("recommender")
    with pytest.raises(InvalidInput, match="kmsKeyArn"):
        await control.group(roleArn="arn:aws:iam::000000000000:role/r")


async def test_groups_have_a_quota(
    make_control: Callable[..., Control],
) -> None:
    """The built-in group does not count; a deletion makes room."""
    control = make_control(personalize_quotas={"dataset-groups": 2})
    groups = [await control.group(f"g{n}") for n in range(2)]
    with pytest.raises(LimitExceeded, match="there may be 2 dataset-groups"):
        await control.group("g2")
    await control("DeleteDatasetGroup", datasetGroupArn=groups[0])
    await control.jobs.remove(await control.claim_next())
    await control.group("g2")


@pytest.mark.parametrize(
    ("arn", "error"),
    [
        ("arn:aws:personalize:eu-west-1:123456789012:dataset-group/shop", None),
        ("arn:aws:personalize:us-east-1:000000000000:dataset-group/none", ResourceNotFound),
        ("arn:aws:personalize:us-east-1:000000000000:campaign/shop", InvalidInput),
        ("arn:aws:personalize:us-east-1:000000000000:dataset-group/a/b", InvalidInput),
    ],
)
async def test_arns_of_groups(control: Control, arn: str, error: type[Exception] | None) -> None:
    """An ARN of any region and account is accepted; of another type, refused."""
    if error is None:
        answer = await control("DescribeDatasetGroup", datasetGroupArn=arn)
        assert answer["datasetGroup"]["datasetGroupArn"] == SHOP
    else:
        with pytest.raises(error):
            await control("DescribeDatasetGroup", datasetGroupArn=arn)
