"""The next-best-action recipe: actions, interactions with them, and their rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from models.errors import InvalidInput, ResourceNotFound
from models.events import Erasure, PutEvents, encode
from models.metadata_records import Properties
from models.settings import Settings
from models.state.catalogue.metadata import put_items, put_users
from models.state.copies.saved_values import SavedValue
from models.state.copies.state_replacements import StateReplacement
from models.state.users.user_data import user_data_counts
from tests.models.state.copies.test_state_copies import copied
from tests.personalize.control_fixtures import Control
from tests.streams.agents.agent_fixtures import EventWorker

ACTIONS = ("ACTION_ID", "VALUE:null|long", "LEVEL:categorical", "CREATION_TIMESTAMP:null|long")
RULES = ("REPEAT_FREQUENCY:null|long", "EXPIRATION_TIMESTAMP:null|long")
INTERACTIONS = ("USER_ID", "ACTION_ID", "EVENT_TYPE", "TIMESTAMP")
DAY_S = 86400.0


@dataclass
class Actions:
    """A group `g` with actions, a campaign that recommends them, and a worker that takes events."""

    control: Control
    worker: EventWorker
    group: str
    tracking_id: str = ""
    campaign: str = ""

    async def put(self, **properties: dict[str, Any]) -> None:
        """Put actions by PutActions."""
        await self.control(
            "PutActions",
            datasetArn=self.control.arn("dataset/g/ACTIONS"),
            actions=[
                {"actionId": name, "properties": json.dumps(one)}
                for name, one in properties.items()
            ],
        )

    async def send(self, user: str, action: str, *types: str, before_s: float = 0.0) -> None:
        """Send interactions by PutActionInteractions, a second apart, and apply them."""
        await self.control(
            "PutActionInteractions",
            trackingId=self.tracking_id,
            actionInteractions=[
                {
                    "actionId": action,
                    "userId": user,
                    "sessionId": f"s-{user}",
                    "timestamp": self.control.now_s - before_s - len(types) + n,
                    "eventType": kind,
                }
                for n, kind in enumerate(types)
            ],
        )
        await self.worker.read(EventWorker.first)

    async def recommend(self, user: str = "nobody", **request: Any) -> dict[str, float]:
        """Actions with their scores, in their order."""
        answer = await self.control(
            "GetActionRecommendations", campaignArn=self.campaign, userId=user, **request
        )
        return {one["actionId"]: one["score"] for one in answer["actionList"]}


@pytest.fixture
async def actions(control: Control) -> Actions:
    """The group, without actions; `join` and `app` may have scores."""
    tenants = control.context.tenants
    worker = EventWorker(tenants, clock=lambda: control.now_s)
    await worker.assign(EventWorker.first)

    async def publish(message: PutEvents | Erasure) -> str:
        worker.send(EventWorker.first, encode(message))
        return "token"

    async def put(kind: str, group: str, records: Sequence[tuple[str, Properties | None]]) -> str:
        store = tenants.store(group)
        given = [(name, properties or {}) for name, properties in records]
        await (put_items if kind == "items" else put_users)(store, given, control.now_s)
        return "token"

    publisher = replace(control.context.services.publisher, publish=publish, put=put)  # type: ignore[type-var]
    object.__setattr__(control.context.services, "publisher", publisher)
    group = await control.group()
    await control.dataset(group, *ACTIONS, *RULES, kind="Actions")
    arn = await control.dataset(group, *INTERACTIONS, kind="Action_Interactions")
    described = await control("DescribeDataset", datasetArn=arn)
    solution = await control.solution(group, "nba", "aws-next-best-action")
    version = await control.version(solution, hidden={"actions": ["join", "app"]})
    created = await control("CreateCampaign", name="nba", solutionVersionArn=version)
    made = Actions(control, worker, group)
    made.tracking_id = described["dataset"]["trackingId"]
    made.campaign = created["campaignArn"]
    return made


async def test_propensities_follow_what_users_took(actions: Actions) -> None:
    """The action that is taken more often comes first, with its share as its score."""
    await actions.put(join={"value": "5"}, app={"value": "5"})
    for n in range(40):
        await actions.send(f"u{n}", "join", "VIEWED", "TAKEN" if n % 4 else "NOT_TAKEN")
        await actions.send(f"u{n}", "app", "Viewed", "Not Taken" if n % 4 else "Taken")

    scores = await actions.recommend()

    assert [*scores] == ["join", "app"]
    assert 0.6 < scores["join"] < 0.85
    assert 0.15 < scores["app"] < 0.4


async def test_scores_are_the_users_own(actions: Actions) -> None:
    """Users with a property that goes with taking an action have a higher propensity."""
    users = actions.control.context.tenants.store("g")
    kinds = [(f"u{n}", {"AGE": "young" if n % 2 else "old"}) for n in range(42)]
    await put_users(users, kinds, actions.control.now_s)
    await actions.put(join={}, app={})
    for n in range(40):
        await actions.send(f"u{n}", "join", "TAKEN" if n % 2 else "NOT_TAKEN")
        await actions.send(f"u{n}", "app", "NOT_TAKEN" if n % 2 else "TAKEN")

    old, young = await actions.recommend("u40"), await actions.recommend("u41")

    assert [*young] == ["join", "app"]
    assert [*old] == ["app", "join"]
    assert young["join"] > 0.6
    assert old["join"] < 0.4


async def test_equally_likely_actions_are_ordered_by_value(actions: Actions) -> None:
    """Without interactions both have the score that all have."""
    for value in (1, 9):
        await actions.put(join={"value": value}, app={"value": 5})
        assert [*await actions.recommend()] == (["app", "join"] if value == 1 else ["join", "app"])


async def test_actions_without_interactions_enough_are_explored(actions: Actions) -> None:
    """They have the score 0.0 and the last places, even where others would fill the answer."""
    await actions.put(join={}, app={}, new={"value": 3}, newer={"value": 4})

    assert await actions.recommend() == {"app": 0.5, "join": 0.5, "newer": 0.0, "new": 0.0}
    slots = actions.control.context.recommenders.of("actions.g").lists.exploration_slots(2)
    assert [*(await actions.recommend(numResults=2)).values()].count(0.0) == slots
    # What was shown is explored after what was not.
    await actions.send("u", "newer", "VIEWED")
    assert [*await actions.recommend()][2:] == ["new", "newer"]


async def test_expired_actions_are_left_out(actions: Actions) -> None:
    """From the second of their expiry on."""
    now_s = actions.control.now_s
    await actions.put(
        join={"expirationTimestamp": now_s + 100}, app={"expirationTimestamp": now_s - 1}
    )

    assert [*await actions.recommend()] == ["join"]
    actions.control.now_s += 100
    assert [*await actions.recommend()] == []


async def test_an_action_is_not_repeated_before_its_time(actions: Actions) -> None:
    """For so many days after the user had to do with it; other users see it."""
    await actions.put(join={"repeatFrequency": 7}, app={})
    await actions.send("ada", "join", "TAKEN", before_s=6 * DAY_S)
    await actions.send("ada", "app", "TAKEN", before_s=6 * DAY_S)

    assert [*await actions.recommend("ada")] == ["app"]
    assert {*await actions.recommend("bob")} == {"app", "join"}
    actions.control.now_s += DAY_S + 10
    assert {*await actions.recommend("ada")} == {"app", "join"}


@pytest.mark.parametrize(
    ("expression", "left"),
    [
        ('INCLUDE ActionID WHERE Actions.LEVEL IN ("gold")', {"join"}),
        ('EXCLUDE ActionID WHERE Action_Interactions.EVENT_TYPE IN ("TAKEN")', {"app"}),
        ('EXCLUDE ActionID WHERE Actions.LEVEL IN ("gold") IF CurrentUser.AGE > 30', {"app"}),
        ("INCLUDE ActionID WHERE Actions.VALUE > $LEAST", {"app"}),
    ],
)
async def test_filters_of_actions(actions: Actions, expression: str, left: set[str]) -> None:
    """By properties of actions and of the user, and by the user's interactions with actions."""
    await put_users(actions.control.context.tenants.store("g"), [("ada", {"AGE": 36})], 1.7e9)
    await actions.put(join={"level": "gold", "value": 2}, app={"level": "silver", "value": 5})
    await actions.send("ada", "join", "TAKEN")
    arn = actions.control.arn("filter/f")
    await actions.control(
        "CreateFilter", name="f", datasetGroupArn=actions.group, filterExpression=expression
    )
    values = {"filterValues": {"LEAST": "4"}} if "$" in expression else {}

    assert {*await actions.recommend("ada", filterArn=arn, **values)} == left


async def test_values_without_a_placeholder_are_refused(actions: Actions) -> None:
    """With a filter and without one."""
    arn = actions.control.arn("filter/f")
    expression = "EXCLUDE ActionID WHERE Actions.VALUE > $MOST"
    await actions.control(
        "CreateFilter", name="f", datasetGroupArn=actions.group, filterExpression=expression
    )
    for asked in ({}, {"filterArn": arn}):
        with pytest.raises(InvalidInput, match="filterValues: no parameter 'most'; "):
            await actions.recommend(**asked, filterValues={"most": "4"})


async def test_numbers_of_results(actions: Actions) -> None:
    """5 without numResults, and 100 at most."""
    for n in range(3):
        await actions.put(**{f"a{n}{k}": {} for k in range(4)})

    assert len(await actions.recommend()) == 5
    assert len(await actions.recommend(numResults=12)) == 12
    with pytest.raises(InvalidInput, match="numResults is at most 100"):
        await actions.recommend(numResults=101)


async def test_an_interaction_counts_once(actions: Actions) -> None:
    """The same eventId, or the same content, is the same interaction."""
    store = actions.control.context.tenants.store("actions.g")
    await actions.put(join={})
    for _ in range(2):
        await actions.control(
            "PutActionInteractions",
            trackingId=actions.tracking_id,
            actionInteractions=[
                {"actionId": "join", "userId": "u", "sessionId": "s", "timestamp": 1.79e9,
                 "eventType": "TAKEN", **more}
                for more in ({"eventId": "e"}, {})
            ],
        )  # fmt: skip
    await actions.worker.read(EventWorker.first)

    assert (await store.counts())["events"] == 2
    assert not actions.worker.letters


async def test_erased_users_leave_nothing_of_their_interactions(actions: Actions) -> None:
    """The erasure of a user in the group is one of interactions with actions, too."""
    tenants = actions.control.context.tenants
    await actions.put(join={})
    await actions.send("ada", "join", "TAKEN")
    store, now_s = tenants.store("actions.g"), actions.control.now_s
    assert (await user_data_counts(store, "ada", now_s=now_s))["events"] == 1

    actions.worker.send(EventWorker.first, encode(Erasure("g", "ada", now_s + 1)))
    await actions.worker.read(EventWorker.first)
    await actions.send("ada", "join", "NOT_TAKEN", before_s=10)

    assert not any((await user_data_counts(store, "ada", now_s=now_s)).values())
    assert "ada" not in str(await tenants.redis.keys())


async def test_who_was_erased_before_there_were_actions_stays_erased(control: Control) -> None:
    """Tombstones are copied when a group gets its first dataset of actions."""
    tenants = control.context.tenants
    worker = EventWorker(tenants, clock=lambda: control.now_s)
    await worker.assign(EventWorker.first)
    group = await control.group()
    worker.send(EventWorker.first, encode(Erasure("g", "ada", control.now_s)))
    await worker.read(EventWorker.first)
    await control.dataset(group, *ACTIONS, kind="ACTIONS")

    assert await tenants.store("actions.g").erased_until(["u:ada"]) == [control.now_s - 2]


async def test_a_deleted_group_has_no_actions(actions: Actions) -> None:
    """Nothing of them is left in Redis."""
    tenants = actions.control.context.tenants
    await actions.put(join={})
    await actions.send("ada", "join", "TAKEN")

    await tenants.erase("g")

    assert await tenants.redis.keys("*actions.g*") == []
    assert await tenants.groups() == {"shop"}
    assert await tenants.group_of(actions.tracking_id) is None


async def test_tracking_ids_are_for_one_kind_of_events(actions: Actions) -> None:
    """That of interactions with actions is no event tracker's, and the other way round."""
    control = actions.control
    tracker = await control("CreateEventTracker", name="t", datasetGroupArn=actions.group)
    event = {"eventType": "click", "sentAt": 1.7e9, "itemId": "i"}
    with pytest.raises(InvalidInput, match="no event tracker has"):
        await control("PutEvents", trackingId=actions.tracking_id, sessionId="s", eventList=[event])
    one = {"actionId": "a", "sessionId": "s", "timestamp": 1.7e9, "eventType": "TAKEN"}
    for tracking_id in (tracker["trackingId"], "unknown"):
        with pytest.raises(InvalidInput, match="no dataset of action interactions has"):
            await control("PutActionInteractions", trackingId=tracking_id, actionInteractions=[one])
    with pytest.raises(InvalidInput, match="must be TAKEN, NOT_TAKEN or VIEWED, not 'click'"):
        await control(
            "PutActionInteractions",
            trackingId=actions.tracking_id,
            actionInteractions=[{**one, "eventType": "click"}],
        )
    await control("DeleteDataset", datasetArn=control.arn("dataset/g/ACTION_INTERACTIONS"))
    with pytest.raises(InvalidInput, match="no dataset of action interactions has"):
        await control(
            "PutActionInteractions", trackingId=actions.tracking_id, actionInteractions=[one]
        )


async def test_the_recipe_needs_actions(control: Control) -> None:
    """A dataset of them, in a group without a domain; the recipe answers nothing else."""
    group = await control.group()
    with pytest.raises(InvalidInput, match="needs a dataset of actions"):
        await control.solution(group, "nba", "aws-next-best-action")
    domain = await control.group("domain", domain="ECOMMERCE")
    with pytest.raises(InvalidInput, match="of domain ECOMMERCE has no dataset ACTIONS"):
        await control(
            "CreateDataset",
            name="a",
            datasetGroupArn=domain,
            datasetType="actions",
            schemaArn=await control.schema("s", *ACTIONS, domain="ECOMMERCE"),
        )
    with pytest.raises(ResourceNotFound):
        await control("PutActions", datasetArn=control.arn("dataset/g/ACTIONS"),
                      actions=[{"actionId": "a"}])  # fmt: skip


async def test_the_campaign_answers_with_actions_only(actions: Actions) -> None:
    """And a campaign of items with items only."""
    control = actions.control
    with pytest.raises(InvalidInput, match="of type PERSONALIZED_ACTIONS, not"):
        await control("GetRecommendations", campaignArn=actions.campaign, userId="u")
    with pytest.raises(InvalidInput, match="not PERSONALIZED_ACTIONS"):
        await control(
            "GetActionRecommendations", campaignArn=control.arn("campaign/default"), userId="u"
        )
    with pytest.raises(InvalidInput, match="give a campaignArn"):
        await control("GetActionRecommendations", userId="u")


def restore(settings: Settings, groups: Sequence[str], values: Sequence[SavedValue]) -> None:
    """Make the state that of a copy."""
    with StateReplacement(settings, groups, what="restore", replaces=False) as state:
        state.write(values)
        state.finish()


async def test_a_snapshot_holds_actions(actions: Actions) -> None:
    """Restored into an empty Redis, the same is recommended."""
    await actions.put(join={"repeatFrequency": 7}, app={})
    for n in range(10):
        await actions.send(f"u{n}", "join", "TAKEN" if n % 2 else "NOT_TAKEN")
    before = await actions.recommend(), await actions.recommend("u0")
    settings = actions.control.settings

    values, moment = await asyncio.to_thread(copied, settings)
    await actions.control.context.tenants.redis.flushdb()
    await asyncio.to_thread(restore, settings, moment.groups, values)

    assert "actions.g" in moment.groups
    assert (await actions.recommend(), await actions.recommend("u0")) == before


async def test_what_was_lost_is_applied_again_once(actions: Actions) -> None:
    """A state of before is brought up to date by the messages that it lacks, and no others."""
    store = actions.control.context.tenants.store("actions.g")
    settings, worker = actions.control.settings, actions.worker
    await actions.put(join={})
    await actions.send("ada", "join", "TAKEN")
    values, moment = await asyncio.to_thread(copied, settings)
    await actions.send("ada", "join", "NOT_TAKEN")
    expected = await actions.recommend("ada")
    await actions.control.context.tenants.redis.flushdb()
    await asyncio.to_thread(restore, settings, moment.groups, values)
    assert (await store.counts())["events"] == 1

    await worker.agent.detect_losses()
    await worker.read(EventWorker.first)

    assert (await store.counts())["events"] == 2
    assert await actions.recommend("ada") == expected
