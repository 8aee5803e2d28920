"""Roles and dataset groups under /personalize, by API keys and by signatures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from api.access.roles import OPERATIONS
from api.personalize.service_model import service_operations
from models.api_keys import Role
from models.settings import Settings
from tests.access.api_key_fixtures import KeyedApi, keyed_api
from tests.api_server import Reply
from tests.personalize.calls_fixtures import campaign, client

SECRETS: dict[str, Any] = {"all": "s1", "reader": "s2", "gardener": "s3"}
ARN = "arn:aws:personalize:us-east-1:000000000000:"
EVENTS = {"sessionId": "s", "eventList": [{"eventType": "click", "sentAt": 1}]}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedApi]:
    """An API with keys and signatures, and a second dataset group, garden, with a filter."""
    with keyed_api(
        tmp_path_factory.mktemp("permissions"),
        personalize_auth="sigv4",
        personalize_access_keys=SECRETS,
        personalize_access_roles={"reader": "read@shop", "gardener": "send+read+manage@garden"},
    ) as made:
        owner = made.key("manage", groups=("*",))
        assert call(made, "CreateDatasetGroup", {"name": "garden"}, owner).status == 200
        tracker = {"name": "garden", "datasetGroupArn": f"{ARN}dataset-group/garden"}
        made_tracker = call(made, "CreateEventTracker", tracker, owner)
        trackers["garden"] = json.loads(made_tracker.body)["trackingId"]
        for group in ("garden", "shop"):
            filter_ = {
                "name": f"{group}-filter",
                "datasetGroupArn": f"{ARN}dataset-group/{group}",
                "filterExpression": 'INCLUDE ItemID WHERE Items.COLOUR IN ("red")',
            }
            reply = call(made, "CreateFilter", filter_, owner)
            assert reply.status == 200, reply.body
        yield made


trackers = {"shop": "shop"}


def call(one: KeyedApi, operation: str, document: object, key: str) -> Reply:
    """The answer to an operation that is sent with an API key."""
    known = service_operations()[operation]
    headers = [f"X-Api-Key: {key}"] if key else []
    if not known.path:
        headers.append(f"X-Amz-Target: AmazonPersonalize.{operation}")
    return one.ask(
        "POST", f"/personalize{known.path}", *headers, body=json.dumps(document).encode()
    )


def is_denied(reply: Reply) -> bool:
    """True if the caller may not do this."""
    return reply.headers.get("x-amzn-errortype") == "AccessDeniedException"


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_each_operation_asks_for_its_role(one: KeyedApi, operation: str) -> None:
    """Only a key with the role gets as far as the operation's own errors."""
    allowed = {
        role for role, key in keys_of(one).items() if not is_denied(call(one, operation, {}, key))
    }

    assert allowed == {OPERATIONS[operation]}


def keys_of(one: KeyedApi) -> dict[Role, str]:
    """A key of all groups with each role."""
    if not made_keys:
        made_keys.update({role: one.key(role, groups=("*",)) for role in Role})
    return made_keys


made_keys: dict[Role, str] = {}


def test_without_a_key_or_a_signature_nothing_is_answered(one: KeyedApi) -> None:
    """Nor with a wrong key, whose refusal is in the form of AWS."""
    missing = call(one, "ListSchemas", {}, "")
    assert missing.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
    wrong = call(one, "ListSchemas", {}, "srk_000000000000_" + "a" * 43)
    assert (wrong.status, wrong.headers["x-amzn-errortype"]) == (401, "UnrecognizedClientException")


def test_a_key_is_held_to_its_dataset_groups(one: KeyedApi) -> None:
    """By tracking ids, by ARNs of every kind, and where a request names no group at all."""
    own = one.key("send", "read", "manage", groups=("garden",))

    def denied(operation: str, **document: object) -> bool:
        return is_denied(call(one, operation, document, own))

    assert not denied("PutEvents", trackingId=trackers["garden"], **EVENTS)
    assert denied("PutEvents", trackingId="shop", **EVENTS)
    assert denied("PutEvents", trackingId="no such", **EVENTS)
    for group, is_denied_here in (("garden", False), ("shop", True), ("no-such", True)):
        named: dict[str, dict[str, object]] = {
            "DescribeDatasetGroup": {"datasetGroupArn": f"{ARN}dataset-group/{group}"},
            "DescribeFilter": {"filterArn": f"{ARN}filter/{group}-filter"},
            "ListFilters": {"datasetGroupArn": f"{ARN}dataset-group/{group}"},
            "PutItems": {
                "datasetArn": f"{ARN}dataset/{group}/ITEMS",
                "items": [{"itemId": "i", "properties": "{}"}],
            },
            "TagResource": {"resourceArn": f"{ARN}filter/{group}-filter", "tags": []},
        }
        for operation, document in named.items():
            assert denied(operation, **document) is is_denied_here, (operation, group)
    assert denied("GetRecommendations", campaignArn=f"{ARN}campaign/default", userId="u")
    # One resource of its own does not open another group's beside it.
    assert denied(
        "CreateDataset",
        name="d",
        datasetType="Items",
        schemaArn=f"{ARN}schema/s",
        datasetGroupArn=f"{ARN}dataset-group/shop",
        tags=[{"tagKey": f"{ARN}dataset-group/garden", "tagValue": "v"}],
    )
    assert denied(
        "GetRecommendations",
        campaignArn=f"{ARN}campaign/default",
        filterArn=f"{ARN}filter/garden-filter",
        userId="u",
    )
    # Without a group a request is about all; schemas and recipes belong to none.
    assert denied("ListDatasetGroups")
    assert denied("ListSolutions")
    assert denied("CreateDatasetGroup", name="other")
    assert not denied("ListSchemas")
    assert not denied("ListRecipes")
    assert denied("DeleteSchema", schemaArn=f"{ARN}schema/s")


def refused(call_: Any) -> str:
    """The code of the error of a boto3 call."""
    with pytest.raises(ClientError) as caught:
        call_()
    code: str = caught.value.response["Error"]["Code"]
    return code


def test_signatures_have_the_roles_of_their_access_key(one: KeyedApi) -> None:
    """An access key that the settings give no roles may send, read and manage everywhere."""

    def made(service: str, key_id: str) -> Any:
        return client(
            service,
            f"http://localhost:{one.api.port}/personalize",
            aws_access_key_id=key_id,
            aws_secret_access_key=SECRETS[key_id],
        )

    ask = {"campaignArn": campaign("default"), "userId": "u"}
    put = {"trackingId": "shop", "sessionId": "s", "eventList": [{"eventType": "c", "sentAt": 1}]}
    for key_id in ("all", "reader"):
        assert "itemList" in made("personalize-runtime", key_id).get_recommendations(**ask)
    assert made("personalize", "all").list_dataset_groups()["datasetGroups"]
    made("personalize-events", "all").put_events(**put)
    denied = "AccessDeniedException"
    assert refused(lambda: made("personalize-events", "reader").put_events(**put)) == denied
    assert refused(made("personalize", "reader").list_dataset_groups) == denied
    gardener = made("personalize-runtime", "gardener")
    assert refused(lambda: gardener.get_recommendations(**ask)) == denied
    group = f"{ARN}dataset-group/garden"
    shown = made("personalize", "gardener").describe_dataset_group(datasetGroupArn=group)
    assert shown["datasetGroup"]["name"] == "garden"


@pytest.mark.parametrize("roles", ["", "owner", "send,read", "send@a b", "send@"])
def test_roles_that_break_the_form_are_no_setting(roles: str) -> None:
    """The error names the setting."""
    with pytest.raises(ValueError, match="personalize_access_roles"):
        Settings(personalize_access_roles={"id": roles})
