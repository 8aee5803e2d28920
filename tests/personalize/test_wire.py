"""The protocol: operations of requests, and errors for AWS clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from api.personalize.operations import OPERATIONS
from api.personalize.service_model import service_operations
from tests.personalize.calls_fixtures import Caller, HttpAnswer, campaign, client, serving
from tests.servers import own_port
from tests.stack import Stack

pytestmark = pytest.mark.any_broker

EVENT = {"eventType": "click", "itemId": "i", "sentAt": 1_700_000_000}
CONTROL = {"content-type": "application/x-amz-json-1.1"}


@pytest.fixture
def caller(url: str) -> Iterator[Caller]:
    """Sends requests that no client has checked."""
    with Caller(url) as made:
        yield made


@pytest.mark.parametrize("slash", ["", "/"])
def test_one_address_serves_three_services(url: str, slash: str) -> None:
    """boto3's three clients use one address, with and without a slash at its end."""
    runtime = client("personalize-runtime", url + slash)
    events = client("personalize-events", url + slash)
    control = client("personalize", url + slash)

    answer = runtime.get_recommendations(campaignArn=campaign("default"), userId="u")
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert answer["ResponseMetadata"]["RequestId"] != answer["recommendationId"]
    events.put_events(trackingId="shop", sessionId="s", eventList=[EVENT])
    with pytest.raises(control.exceptions.InvalidInputException):
        control.describe_algorithm(algorithmArn="not an ARN")


def test_two_slashes_are_one(caller: Caller) -> None:
    """The JavaScript SDK sends two if the address ends with one."""
    answer = caller.send("POST", "//events", b"{}")

    assert answer.code == "InvalidInputException"


def test_errors_of_rest_json(clients: Callable[[str], Any]) -> None:
    """Typed exceptions with the statuses of the service model."""
    runtime, events = clients("personalize-runtime"), clients("personalize-events")

    with pytest.raises(runtime.exceptions.ResourceNotFoundException) as missing:
        runtime.get_recommendations(campaignArn=campaign("none"), userId="u")
    assert missing.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    with pytest.raises(runtime.exceptions.InvalidInputException) as invalid:
        runtime.get_recommendations(userId="u")
    assert invalid.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(events.exceptions.InvalidInputException, match="equal to 10"):
        events.put_events(trackingId="shop", sessionId="s", eventList=[EVENT] * 11)


def test_errors_of_json_1_1(caller: Caller, clients: Callable[[str], Any]) -> None:
    """Typed exceptions with status 400, and the content type of the protocol."""
    control = clients("personalize")

    with pytest.raises(control.exceptions.InvalidInputException) as invalid:
        control.create_schema(name="not a name", schema="{}")
    assert invalid.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    answer = caller.call("CreateSchema", {"name": "!", "schema": "{}"})
    assert (answer.status, answer.code) == (400, "InvalidInputException")
    assert answer.headers["content-type"] == "application/x-amz-json-1.1"


def test_every_operation_is_implemented() -> None:
    """Of each of the three services, by the service models of boto3."""
    assert set(OPERATIONS) == set(service_operations())


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/nowhere", {}, 404),
        ("POST", "", {}, 404),
        ("POST", "/", {}, 404),
        ("POST", "/events/", {}, 404),
        ("POST", "/./events", {}, 404),
        ("GET", "/recommendations", {}, 404),
        ("GET", "", {}, 404),
        ("PUT", "/events", {}, 404),
        ("POST", "/", CONTROL | {"x-amz-target": "AmazonPersonalize.Nothing"}, 400),
        ("POST", "/", CONTROL | {"x-amz-target": "AmazonPersonalize.PutEvents"}, 400),
        ("POST", "/", CONTROL | {"x-amz-target": "DynamoDB.ListSchemas"}, 400),
        ("POST", "/", CONTROL | {"x-amz-target": "ListSchemas"}, 400),
        ("POST", "/events", CONTROL | {"x-amz-target": "AmazonPersonalize.ListSchemas"}, 400),
        ("GET", "/", CONTROL | {"x-amz-target": "AmazonPersonalize.ListSchemas"}, 400),
    ],
)
def test_unknown_operations_are_refused(
    caller: Caller, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """Unknown paths, targets and methods answer UnknownOperationException."""
    answer = caller.send(method, path, b"{}", headers)

    assert (answer.status, answer.code) == (status, "UnknownOperationException")


@pytest.mark.parametrize(
    "body",
    [b"{", b"nonsense", b"\xff", b'{"a":1}x', b"[" * 100_000, b'{"a":' * 5000, b'"\\ud800"',
     b'{"numResults":NaN}', b'{"numResults":1e999}', b'{"numResults":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_bodies_must_be_json(caller: Caller, body: bytes) -> None:
    """Broken, endless and deeply nested JSON is refused, and the next request is served."""
    answer = caller.send("POST", "/recommendations", body)

    assert answer.status == 400
    assert answer.code in {"SerializationException", "InvalidInputException"}
    assert caller.call("GetRecommendations", {"campaignArn": campaign("popularity")}).status == 200


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"5", b"null", b"true", b"", b"{}"])
def test_bodies_must_be_objects(caller: Caller, body: bytes) -> None:
    """Other JSON breaks a constraint; an empty body is an empty object."""
    answer = caller.send("POST", "/events", body)

    assert (answer.status, answer.code) == (400, "InvalidInputException")
    where = "trackingId" if body in {b"", b"{}"} else "body"
    assert f" at '{where}' failed to satisfy constraint: Member must " in answer.message


def test_bodies_have_a_bound(running: Stack) -> None:
    """A body over the bound answers 413; the largest PutItems is under it."""
    settings = running.settings.model_copy(
        update={"port": own_port(), "personalize_max_body_bytes": 10_000}
    )
    with serving(settings) as url, Caller(url) as caller:
        answer = caller.send("POST", "/items", b"x" * 10_001)
        assert (answer.status, answer.code) == (413, "RequestEntityTooLargeException")
        assert "10000 bytes" in answer.message
        assert caller.send("POST", "/items", b" " * 10_000).code == "SerializationException"
    item = {"itemId": "\U0001f600" * 256, "properties": "\U0001f600" * 32_000}
    body = json.dumps({"datasetArn": campaign("x"), "items": [item] * 10}).encode()
    assert len(body) < running.settings.personalize_max_body_bytes


def test_every_answer_has_an_id_of_its_own(caller: Caller) -> None:
    """`x-amzn-RequestId` names each request, in answers and errors."""
    answers: list[HttpAnswer] = [
        caller.call("GetRecommendations", {"campaignArn": campaign("trending")}),
        caller.call("GetRecommendations", {"campaignArn": campaign("trending")}),
        caller.call("GetRecommendations", {}),
        caller.call("ListSchemas", {}),
        caller.send("POST", "/nowhere"),
    ]

    assert len({answer.headers["x-amzn-requestid"] for answer in answers}) == len(answers)


def test_requests_are_counted_by_operation(running: Stack, caller: Caller) -> None:
    """The metrics have a series for each operation, and one for unknown operations."""
    caller.call("GetRecommendations", {"campaignArn": campaign("trending")})
    caller.call("GetRecommendations", {})
    caller.send("POST", "/nowhere")

    _, metrics = running.ask("GET", "/metrics")
    lines = metrics.decode().splitlines()
    for route, status in (
        ("/personalize GetRecommendations", "200"),
        ("/personalize GetRecommendations", "400"),
        ("none", "404"),
    ):
        series = f'recommender_requests_total{{route="{route}",status="{status}"}}'
        assert any(line.startswith(series) for line in lines)


def test_browsers_of_configured_origins_may_call(caller: Caller) -> None:
    """A browser's AWS client at a configured origin may send its headers and read the ids."""
    origin = {"origin": "https://shop.example"}
    asks = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-amz-date",
    }

    allowed = caller.send("OPTIONS", "/events", b"", origin | asks)
    assert allowed.status == 200
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    answer = caller.send("POST", "/events", b"{}", origin)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    other = caller.send("OPTIONS", "/events", b"", {"origin": "https://other.example"} | asks)
    assert (other.status, other.code) == (403, "AccessDeniedException")


def test_unavailable_servers_are_retryable_errors(running: Stack) -> None:
    """Without Redis and Kafka, the errors are those that AWS clients retry."""
    settings = running.settings.model_copy(
        update={
            "port": own_port(),
            "redis": f"redis://127.0.0.1:{own_port()}",
            "kafka": f"127.0.0.1:{own_port()}",
            "publish_timeout_s": 0.5,
        }
    )
    with serving(settings) as url:
        runtime, events = client("personalize-runtime", url), client("personalize-events", url)
        calls: list[Callable[[], object]] = [
            lambda: runtime.get_recommendations(campaignArn=campaign("default"), userId="u"),
            lambda: events.put_events(trackingId="shop", sessionId="s", eventList=[EVENT]),
        ]
        for call in calls:
            with pytest.raises(ClientError) as caught:
                call()
            response = caught.value.response
            assert response["Error"]["Code"] == "ServiceUnavailableException"
            assert response["ResponseMetadata"]["HTTPStatusCode"] == 503
