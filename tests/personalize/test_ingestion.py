"""PutEvents: acknowledged events take effect once, in the group of their tracking id."""

from __future__ import annotations

import datetime as dt
import json
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest

from models.state.outcomes.served_lists import served as served_list
from models.state.store import Store
from tests.personalize.calls_fixtures import Caller, campaign
from tests.stack import Stack

Clients = Callable[[str], Any]


def follow(running: Stack, first: str, second: str) -> None:
    """Send sessions that go from one item to another, so that the second is recommended."""
    for n in range(3):
        running.click(first, session=f"{first}-{n}")
        after = running.click(second, session=f"{first}-{n}")
    running.recommend(f"after={after}")


def recommended(clients: Clients, user: str) -> list[str]:
    """The recommendations of the default campaign for a user."""
    answer = clients("personalize-runtime").get_recommendations(
        campaignArn=campaign("default"), userId=user
    )
    return [item["itemId"] for item in answer["itemList"]]


def put(clients: Clients, session: str, event: dict[str, Any], **members: Any) -> None:
    """Send one event."""
    event = {"eventType": "click", "sentAt": time.time(), **event}
    clients("personalize-events").put_events(
        trackingId="shop", sessionId=session, eventList=[event], **members
    )


def causes(running: Stack, user: str) -> set[str]:
    """Items of a user's own events that are told as reasons.

    A list alone would not tell that an event is in effect: what follows may be popular, too.
    """
    answer = running.recommend(f"user_id={user}&reasons=true&num_results=100")
    return {why.get("itemId") for one in answer["items"] for why in one["reasons"]}


def test_an_event_changes_the_next_answer(running: Stack, clients: Clients) -> None:
    """An event that boto3 got an acknowledgement for is in the next recommendation."""
    follow(running, "wire-tent", "wire-stove")

    put(clients, "wire-1", {"itemId": "wire-tent"}, userId="wire-ada")

    running.wait(lambda: "wire-tent" in causes(running, "wire-ada"), "the event is in effect")
    assert recommended(clients, "wire-ada")[:1] == ["wire-stove"]


@pytest.mark.parametrize(
    "sent_at",
    [1_790_000_000, 1_790_000_000.75, "1790000000", "2026-09-21T14:13:20Z",
     dt.datetime(2026, 9, 21, 14, 13, 20, tzinfo=dt.UTC)],
)  # fmt: skip
def test_times_as_boto3_sends_them(running: Stack, clients: Clients, sent_at: Any) -> None:
    """Every form of time that boto3 accepts is the time of the event."""
    user = f"timed-{type(sent_at).__name__}-{sent_at}"
    follow(running, "wire-lamp", "wire-bulb")

    put(clients, user, {"itemId": "wire-lamp", "sentAt": sent_at}, userId=user)

    query = urllib.parse.urlencode({"user_id": user, "reasons": "true"})

    def times() -> set[float]:
        reasons = [one for item in running.recommend(query)["items"] for one in item["reasons"]]
        return {one["occurredAt"] for one in reasons if "occurredAt" in one}

    # A list alone would not tell: "wire-bulb" is also popular with a user who has no event yet.
    running.wait(lambda: bool(times()), "the event is in effect")
    assert times() == {1_790_000_000}


def test_the_item_may_stand_in_the_properties(running: Stack, clients: Clients) -> None:
    """As in AWS's older samples, the item and more stand in JSON text."""
    follow(running, "wire-pan", "wire-lid")
    properties = json.dumps({"itemId": "wire-pan", "eventValue": 4, "numRatings": 0})

    put(clients, "wire-2", {"properties": properties}, userId="wire-bob")

    running.wait(lambda: "wire-pan" in causes(running, "wire-bob"), "it is in effect")
    assert recommended(clients, "wire-bob")[:1] == ["wire-lid"]


def test_an_anonymous_session_is_linked_at_login(running: Stack, clients: Clients) -> None:
    """The session id stands for a user until an event names the user; no event is lost."""
    follow(running, "wire-boot", "wire-lace")
    put(clients, "wire-anonymous", {"itemId": "wire-boot"})
    running.wait(lambda: "wire-boot" in causes(running, "wire-anonymous"), "it is in effect")
    assert recommended(clients, "wire-anonymous")[:1] == ["wire-lace"]

    put(clients, "wire-anonymous", {"itemId": "wire-hat", "eventType": "login"}, userId="wire-eve")

    running.wait(
        lambda: "wire-boot" in causes(running, "wire-eve"), "the session's events are the user's"
    )


def test_a_repeated_event_id_counts_once(running: Stack, clients: Clients) -> None:
    """A repeated event is answered as before, and changes nothing."""
    before = running.counts()
    for _ in range(3):
        put(clients, "wire-3", {"itemId": "wire-cup", "eventId": "wire-once"}, userId="wire-dan")
    put(clients, "wire-3", {"itemId": "wire-cup", "eventId": "wire-last"}, userId="wire-dan")

    def duplicates() -> float:
        return running.counts().get("duplicates", 0) - before.get("duplicates", 0)

    running.wait(lambda: duplicates() >= 2, "all four are in effect")


def test_impressions_are_kept(running: Stack, clients: Clients) -> None:
    """The answered list is kept under its id, and an event may name it or another."""
    answer = clients("personalize-runtime").get_recommendations(
        campaignArn=campaign("popularity"), numResults=3
    )
    served, recommendation_id = answer["itemList"], answer["recommendationId"]

    put(
        clients,
        "wire-4",
        {
            "itemId": "wire-cup",
            "recommendationId": recommendation_id,
            "impression": ["wire-cup", "wire-pan"],
            "metricAttribution": {"eventAttributionSource": "newsletter"},
        },
    )

    async def is_kept(store: Store) -> bool:
        return await served_list(store, recommendation_id) == [one["itemId"] for one in served]

    running.wait(lambda: running.stored(is_kept), "the served list is kept")
    assert len(served) <= 3
    assert len(recommendation_id) <= 40


def test_foreign_tracking_ids_are_refused(clients: Clients) -> None:
    """Events of an unknown tracker are refused whole, as invalid input."""
    events = clients("personalize-events")

    with pytest.raises(events.exceptions.InvalidInputException, match="'other'"):
        events.put_events(
            trackingId="other", sessionId="s", eventList=[{"eventType": "e", "sentAt": 1}]
        )


@pytest.mark.parametrize(
    ("event", "word"),
    [
        ({"properties": "no JSON"}, "properties"),
        ({"properties": "[]"}, "properties"),
        ({"properties": '{"itemId": 5}'}, "itemId"),
        ({"sentAt": 0}, "sentAt"),
        ({"sentAt": 2e10}, "sentAt"),
    ],
)
def test_rules_beyond_the_shape_are_checked(url: str, event: dict[str, Any], word: str) -> None:
    """Properties must be a JSON object, and times between 1970 and now."""
    document = {"trackingId": "shop", "sessionId": "s",
                "eventList": [{"eventType": "e", "sentAt": 1.7e9} | event]}  # fmt: skip
    with Caller(url) as caller:
        answer = caller.call("PutEvents", document)

    assert (answer.status, answer.code) == (400, "InvalidInputException")
    assert word in answer.message
