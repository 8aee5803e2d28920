"""`context` of GetRecommendations and GetPersonalizedRanking, sent by boto3."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.personalize.calls_fixtures import ACCOUNT, campaign, client
from tests.personalize.control_fixtures import INTERACTIONS, schema_text
from tests.personalize.jobs_fixtures import Service, csv_text

PHONE, DESKTOP, CONSOLE = ({"DEVICE": device} for device in ("phone", "desktop", "console"))
EVERYTHING = ["lamp", "tent", "stove", "desk", "chair", "unheard-of"]


@pytest.fixture(scope="module")
def devices(jobs_service: Service) -> Iterator[Devices]:
    """The service's own group with two contextual columns, and events on phones and desktops."""
    one = Devices(jobs_service)
    for n in range(6):
        one.send(f"p{n}", "Phone", "lamp", "tent", "stove")
        one.send(f"d{n}", "desktop", "lamp", "desk", "chair")
    yield one
    jobs_service.personalize.delete_dataset(datasetArn=one.dataset)


class Devices:
    """Sends events of devices, and requests with contexts."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.group = service.stack.settings.group
        self.dataset = service.dataset(
            f"{ACCOUNT}:dataset-group/{self.group}",
            "INTERACTIONS",
            schema_text(
                *INTERACTIONS, "DEVICE:categorical", "HOUR_OF_DAY:int", "WEIGHT:null|double"
            ),
        )
        self.sent = service.counts(self.group).get("events", 0)
        self._events = client("personalize-events", f"{service.stack.url}/personalize")
        self._numbers = itertools.count()

    def send(self, user: str, device: str, *items: str) -> None:
        """Send events of a user on a device, in effect on return."""
        events = [
            {
                "eventId": f"context-{next(self._numbers)}",
                "eventType": "click",
                "itemId": item,
                "sentAt": time.time(),
                "properties": json.dumps({"device": device, "colour": "red"}),
            }
            for item in items
        ]
        tracking_id = self.service.stack.settings.tracking_id
        self._events.put_events(
            trackingId=tracking_id, userId=user, sessionId=f"s-{user}", eventList=events
        )
        self.sent += len(items)
        self.wait(lambda: self.service.counts(self.group).get("events", 0) >= self.sent)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds, as caches are renewed after a moment."""
        self.service.stack.wait(condition, "events are in effect and known")

    def recommended(self, user: str = "somebody new", **request: Any) -> list[str]:
        """The items recommended to a user."""
        arn = request.pop("campaignArn", campaign("default"))
        answer = self.service.runtime.get_recommendations(campaignArn=arn, userId=user, **request)
        return [item["itemId"] for item in answer["itemList"] if item.get("score", 1)]

    def is_first(self, item: str, user: str, context: dict[str, str]) -> bool:
        """True if this item is recommended first."""
        return self.recommended(user, context=context)[:1] == [item]

    def ranked(self, user: str = "somebody new", **request: Any) -> list[tuple[str, float]]:
        """The items of the shop ranked for a user, with scores."""
        answer = self.service.runtime.get_personalized_ranking(
            campaignArn=campaign("ranking"), inputList=EVERYTHING, userId=user, **request
        )
        return [(item["itemId"], item["score"]) for item in answer["personalizedRanking"]]


def test_context_decides_the_answer_of_a_new_user(devices: Devices) -> None:
    """Items popular on the device come first, items of other devices last."""
    devices.wait(lambda: set(devices.recommended(context=PHONE)[:3]) == {"lamp", "tent", "stove"})
    devices.wait(lambda: set(devices.recommended(context=DESKTOP)[:3]) == {"lamp", "desk", "chair"})

    answer = devices.service.runtime.get_recommendations(
        campaignArn=campaign("default"), userId="somebody new", context=PHONE
    )
    assert sum(item["score"] for item in answer["itemList"]) == pytest.approx(1, abs=1e-5)


def test_context_counts_beside_history(devices: Devices) -> None:
    """After a lamp, items that follow lamps on the device come first, in rankings too."""
    devices.send("ada", "phone", "lamp")

    for context, own, others in (
        (PHONE, ("tent", "stove"), ("desk", "chair")),
        (DESKTOP, ("desk", "chair"), ("tent", "stove")),
    ):
        devices.wait(partial(devices.is_first, own[0], "ada", context))
        ranked = [item for item, _ in devices.ranked("ada", context=context)]
        for items in (devices.recommended("ada", context=context), ranked):
            for one, other in zip(own, others, strict=True):
                assert items.index(one) < items.index(other)
        assert ranked[-1] == "unheard-of"


def test_rankings_of_new_users_follow_context(devices: Devices) -> None:
    """Items of the device come first; scores add up to one."""
    for context, others in ((PHONE, {"desk", "chair"}), (DESKTOP, {"tent", "stove"})):
        ranked = devices.ranked(context=context)
        assert {item for item, _ in ranked[3:5]} == others
        assert sum(score for _, score in ranked) == pytest.approx(1, abs=1e-5)


def test_unknown_values_change_nothing(devices: Devices) -> None:
    """No event has had them."""
    context = {"DEVICE": "fridge"}
    assert devices.recommended(context=context) == devices.recommended()
    assert devices.ranked("p1", context=context) == devices.ranked("p1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WEATHER", "context: INTERACTIONS has no column 'WEATHER'; it has USER_ID, "),
        ("COLOUR", "context: INTERACTIONS has no column 'COLOUR'"),
        ("USER_ID", "context: USER_ID is no contextual column"),
        ("WEIGHT", "context: WEIGHT is no contextual column"),
    ],
)
def test_other_columns_are_refused(devices: Devices, name: str, message: str) -> None:
    """Those that the schema lacks, though events had them, that are Amazon's, or measures."""
    refused = devices.service.runtime.exceptions.InvalidInputException
    for ask in (devices.recommended, devices.ranked):
        with pytest.raises(refused, match=message):
            ask(context={"DEVICE": "phone", name: "1"})


@pytest.mark.parametrize("name", ["similar-items", "popularity", "trending"])
def test_other_recipes_ignore_context(devices: Devices, name: str) -> None:
    """Only recipes that personalise use context."""
    request = {"campaignArn": campaign(name), "itemId": "lamp"}

    assert devices.recommended(context=DESKTOP, **request) == devices.recommended(**request)


def test_an_event_shifts_it_at_once(devices: Devices) -> None:
    """An item just taken on a device is recommended there, and not elsewhere."""
    assert "kettle" not in devices.recommended(context=CONSOLE)

    for n in range(8):
        devices.send(f"k{n}", "console", "kettle")

    devices.wait(lambda: devices.recommended(context=CONSOLE)[:1] == ["kettle"])
    assert "kettle" not in devices.recommended(context=DESKTOP)[:3]


def test_imported_columns_are_context_too(devices: Devices) -> None:
    """Imported rows with a contextual column count like events with that property."""
    rows = [
        {
            "USER_ID": f"import-{n}",
            "ITEM_ID": "radio" if n % 2 else "lamp",
            "TIMESTAMP": int(time.time()) - 60,
            "DEVICE": "tablet" if n % 2 else "",
            "HOUR_OF_DAY": 7 if n % 2 else 19,
            "WEIGHT": "",
        }
        for n in range(30)
    ]
    columns = [*INTERACTIONS, "DEVICE", "HOUR_OF_DAY", "WEIGHT"]
    where = devices.service.put("data", "context/rows.csv", csv_text(columns, rows))
    said = devices.service.imported("context", devices.dataset, where)
    devices.sent += len(rows)

    assert (said["status"], said.get("failureReason")) == ("ACTIVE", None)
    devices.wait(lambda: devices.recommended(context={"DEVICE": "tablet"})[:1] == ["radio"])
    devices.wait(lambda: devices.recommended(context={"HOUR_OF_DAY": "7"})[:1] == ["radio"])
    assert devices.recommended(context={"HOUR_OF_DAY": "19"})[:1] == ["lamp"]
