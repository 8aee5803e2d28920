"""Groups created over the API: their own events, recommenders and metadata, by boto3."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.personalize.calls_fixtures import ACCOUNT, campaign
from tests.personalize.control_fixtures import schema_text
from tests.stack import Stack

Clients = Callable[[str], Any]
ITEMS = ["ITEM_ID", "GENRES:categorical"]
_numbers = itertools.count()


@pytest.fixture
def make_group(clients: Clients) -> Iterator[Callable[..., str]]:
    """Makes groups, deleted afterwards with their resources."""
    control, made = clients("personalize"), []

    def make(**members: Any) -> str:
        name = f"wire-{next(_numbers)}"
        made.append(control.create_dataset_group(name=name, **members)["datasetGroupArn"])
        return str(made[-1])

    yield make
    for arn in made:
        for one in control.list_recommenders(datasetGroupArn=arn)["recommenders"]:
            control.delete_recommender(recommenderArn=one["recommenderArn"])
        for one in control.list_datasets(datasetGroupArn=arn)["datasets"]:
            control.delete_dataset(datasetArn=one["datasetArn"])
        for one in control.list_event_trackers(datasetGroupArn=arn)["eventTrackers"]:
            control.delete_event_tracker(eventTrackerArn=one["eventTrackerArn"])
        control.delete_dataset_group(datasetGroupArn=arn)


@pytest.fixture(scope="module")
def jobs(running: Stack) -> Iterator[None]:
    """A runner of jobs, for recommenders are measured before they answer."""
    process = running.start("jobs")
    yield
    process.terminate()
    process.wait(60)


def recommender(clients: Clients, group: str, recipe: str) -> str:
    """The ARN of a new recommender."""
    created = clients("personalize").create_recommender(
        name=recipe, datasetGroupArn=group, recipeArn=f"arn:aws:personalize:::recipe/{recipe}"
    )
    return str(created["recommenderArn"])


def is_active(control: Any, recommender_arn: str) -> bool:
    """True once a recommender answers."""
    described = control.describe_recommender(recommenderArn=recommender_arn)
    return bool(described["recommender"]["status"] == "ACTIVE")


@pytest.mark.usefixtures("jobs")
def test_a_group_sees_its_own_events_only(
    running: Stack, clients: Clients, make_group: Callable[..., str]
) -> None:
    """Events change the answers of their group's recommenders, and no others."""
    control, runtime = clients("personalize"), clients("personalize-runtime")
    group = make_group(domain="ECOMMERCE")
    tracker = control.create_event_tracker(name="wire-tracker", datasetGroupArn=group)
    for_you = recommender(clients, group, "aws-ecomm-recommended-for-you")
    viewed = recommender(clients, group, "aws-ecomm-customers-who-viewed-x-also-viewed")
    bought = recommender(clients, group, "aws-ecomm-popular-items-by-purchases")
    running.click("group-own", session="group-1", user="group-own-user")

    for user in ("group-ann", "group-ben", "group-cat"):
        clients("personalize-events").put_events(
            trackingId=tracker["trackingId"], userId=user, sessionId=user,
            eventList=[
                {"eventType": "View", "itemId": item, "sentAt": time.time()}
                for item in ("group-kettle", "group-cosy")[: 2 if user != "group-cat" else 1]
            ],
        )  # fmt: skip

    def names(**members: Any) -> list[str]:
        return [item["itemId"] for item in runtime.get_recommendations(**members)["itemList"]]

    for arn in (for_you, viewed, bought):
        running.wait(partial(is_active, control, arn), "a recommender is measured")
    running.wait(
        lambda: names(recommenderArn=for_you, userId="group-cat")[:1] == ["group-cosy"],
        "the group's events are in effect",
    )
    assert names(recommenderArn=viewed, itemId="group-kettle", userId="x") == ["group-cosy"]
    assert set(names(recommenderArn=bought)) == {"group-kettle", "group-cosy"}
    everything = names(campaignArn=campaign("popularity"), numResults=500)
    assert not {"group-kettle", "group-cosy"} & set(everything)
    items = runtime.get_recommendations(recommenderArn=for_you, userId="group-cat")["itemList"]
    assert all(set(item) == {"itemId"} for item in items)

    control.stop_recommender(recommenderArn=for_you)
    with pytest.raises(runtime.exceptions.ResourceNotFoundException, match="INACTIVE"):
        names(recommenderArn=for_you, userId="group-cat")
    with pytest.raises(runtime.exceptions.InvalidInputException, match="metadata"):
        names(recommenderArn=bought, metadataColumns={"ITEMS": ["GENRES"]})


def test_datasets_take_metadata_once_created(
    clients: Clients, make_group: Callable[..., str]
) -> None:
    """Before the dataset is created, PutItems is not found."""
    control, events = clients("personalize"), clients("personalize-events")
    group = make_group()
    arn = f"{ACCOUNT}:dataset/{group.rpartition('/')[2]}/ITEMS"
    with pytest.raises(events.exceptions.ResourceNotFoundException):
        events.put_items(datasetArn=arn, items=[{"itemId": "i"}])

    schema = control.create_schema(name="wire-items", schema=schema_text(*ITEMS))["schemaArn"]
    control.create_dataset(
        name="wire-items", datasetGroupArn=group, datasetType="Items", schemaArn=schema
    )

    events.put_items(datasetArn=arn, items=[{"itemId": "i", "properties": '{"genres": "a|b"}'}])
