"""The AWS command line interface, aioboto3, and SDKs for JavaScript and Java, with signatures."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.personalize.calls_fixtures import CREDENTIALS, campaign, serving
from tests.personalize.clients.other_clients import (
    aioboto3,
    command_line,
    environment,
    java,
    javascript,
    parsed,
    run,
)
from tests.servers import own_port
from tests.stack import Stack

pytestmark = pytest.mark.slow


@pytest.fixture
def signed(running: Stack) -> Iterator[str]:
    """Address of an API of the shared stack that checks signatures."""
    secret = SecretStr(CREDENTIALS["aws_secret_access_key"])
    settings = running.settings.model_copy(
        update={
            "port": own_port(),
            "personalize_auth": "sigv4",
            "personalize_access_keys": {CREDENTIALS["aws_access_key_id"]: secret},
        }
    )
    with serving(settings) as url:
        yield url


def follow(running: Stack, first: str, second: str) -> None:
    """Send sessions that go from one item to another."""
    for n in range(3):
        running.click(first, session=f"{first}-{n}")
        after = running.click(second, session=f"{first}-{n}")
    running.recommend(f"after={after}")


def events(item: str, **members: Any) -> str:
    """An event list with one click."""
    return json.dumps([{"eventType": "click", "itemId": item, "sentAt": time.time()} | members])


@pytest.mark.parametrize("slash", ["", "/"])
def test_command_line(running: Stack, signed: str, slash: str) -> None:
    """`aws` puts an event and reads the changed recommendation; errors have their names."""
    aws, variables = command_line(), environment(signed + slash)
    user, first, second = f"cli{slash}", f"cli-tea{slash}", f"cli-cup{slash}"
    follow(running, first, second)

    sent = run(
        [*aws, "personalize-events", "put-events", "--tracking-id", "shop", "--user-id", user,
         "--session-id", f"s-{user}", "--event-list",
         events(first, properties='{"colour": "grün"}')],
        variables,
    )  # fmt: skip
    assert (sent.returncode, sent.stdout) == (0, "")

    ask = [*aws, "personalize-runtime", "get-recommendations", "--user-id", user]

    def changed() -> bool:
        answer = parsed(run([*ask, "--campaign-arn", campaign("default")], variables))
        return bool(answer["itemList"][0]["itemId"] == second)

    running.wait(changed, "the event is in effect")
    ranked = run(
        [*aws, "personalize-runtime", "get-personalized-ranking", "--campaign-arn",
         campaign("ranking"), "--user-id", user, "--input-list", "zz", second, first],
        variables,
    )  # fmt: skip
    assert parsed(ranked)["personalizedRanking"][0]["itemId"] == second
    missing = run([*ask, "--campaign-arn", campaign("none")], variables)
    assert missing.returncode > 0
    assert "(ResourceNotFoundException)" in missing.stderr
    invalid = run(
        [*aws, "personalize", "create-schema", "--name", "!", "--schema", "{}"], variables
    )
    assert "(InvalidInputException)" in invalid.stderr
    other = variables | {"AWS_SECRET_ACCESS_KEY": "another"}
    refused = run([*ask, "--campaign-arn", campaign("default")], other)
    assert "(InvalidSignatureException)" in refused.stderr


@pytest.mark.parametrize("slash", ["", "/"])
def test_javascript(running: Stack, signed: str, slash: str) -> None:
    """The SDK puts an event and reads the changed recommendation; errors have their types."""
    variables = environment(signed + slash) | javascript()
    user, first, second = f"js{slash}", f"js-ink{slash}", f"js-pen{slash}"
    follow(running, first, second)

    def call(service: str, operation: str, **members: Any) -> Any:
        script = str(Path(__file__).with_name("call.cjs"))
        return parsed(run(["node", script, service, operation, json.dumps(members)], variables))

    event = {"eventType": "click", "itemId": first, "sentAt": 1_790_000_000_500}
    sent = call(
        "personalize-events", "PutEvents", trackingId="shop", userId=user, sessionId=f"s-{user}",
        eventList=[event | {"properties": '{"colour": "grün"}'}],
    )  # fmt: skip
    assert sent["answer"]["$metadata"]["httpStatusCode"] == 200
    assert sent["answer"]["$metadata"]["requestId"]

    def changed() -> bool:
        answer = call(
            "personalize-runtime", "GetRecommendations", campaignArn=campaign("default"),
            userId=user,
        )["answer"]  # fmt: skip
        return bool(answer["itemList"][0]["itemId"] == second)

    running.wait(changed, "the event is in effect")
    missing = call(
        "personalize-runtime", "GetRecommendations", campaignArn=campaign("none"), userId=user
    )
    assert (missing["error"], missing["isTyped"]) == ("ResourceNotFoundException", True)
    assert missing["status"] == 404
    invalid = call("personalize", "CreateSchema", name="!", schema="{}")
    assert (invalid["error"], invalid["isTyped"]) == ("InvalidInputException", True)
    assert "Value '!' at 'name'" in invalid["message"]
    too_many = call(
        "personalize-events", "PutEvents", trackingId="shop", sessionId="s", eventList=[event] * 11
    )
    assert (too_many["error"], too_many["isTyped"]) == ("InvalidInputException", True)
    variables["AWS_SECRET_ACCESS_KEY"] = "another"
    refused = call("personalize", "CreateSchema", name="!", schema="{}")
    assert refused["error"] == "InvalidSignatureException"


@pytest.mark.any_broker
@pytest.mark.parametrize("program", ["Visit.java", "visit_async.py"])
def test_programs_of_other_clients(running: Stack, signed: str, program: str) -> None:
    """A visit by Java and by aioboto3: an event changes the answer, errors have their types."""
    command = [aioboto3()] if program.endswith(".py") else java()
    user, first, second = f"visit-{program}", f"{program}-salt", f"{program}-pepper"
    follow(running, first, second)
    script = str(Path(__file__).with_name(program))
    arguments = [user, first, second, campaign("default"), campaign("ranking"), campaign("none")]

    said = parsed(run([*command, script, *arguments], environment(signed)))

    assert said == {
        "next": second,
        "ranked": second,
        "missing": "ResourceNotFoundException",
        "invalid": "InvalidInputException",
        "solutions": 0,
        "campaigns": 5,
    }
    other = environment(signed) | {"AWS_SECRET_ACCESS_KEY": "another"}
    refused = run([*command, script, *arguments], other)
    assert refused.returncode > 0
    assert "signature" in refused.stderr.lower()
