"""Random requests, valid and invalid, to every implemented operation: none fails the service."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from api.personalize.operations import OPERATIONS
from api.personalize.service_model import service_operations
from benchmarks.state import fill
from models.settings import Settings
from streams.kafka.topics import ensure_topics
from tests.personalize.calls_fixtures import (
    Caller,
    HttpAnswer,
    campaign,
    check_answer,
    parsed,
    serving,
)
from tests.personalize.resource_fixtures import ARN, Documents
from tests.stack import embedded_servers, new_stack

AMOUNTS = [pytest.param(40), pytest.param(300, marks=pytest.mark.slow)]
SCHEMA = (
    '{"type":"record","name":"Items","namespace":"com.amazonaws.personalize.schema","fields":'
    '[{"name":"ITEM_ID","type":"string"},{"name":"GENRES","type":["null","string"],'
    '"categorical":true}],"version":"1.0"}'
)
KNOWN: Mapping[str, Sequence[Any]] = {
    "campaignArn": [campaign(name) for name in Settings().campaigns],
    "trackingId": ["shop"],
    "datasetArn": [f"{ARN}dataset/random/ITEMS", f"{ARN}dataset/random/USERS"],
    "datasetGroupArn": [f"{ARN}dataset-group/random", f"{ARN}dataset-group/my-name_1"],
    "schemaArn": [f"{ARN}schema/my-name_1"],
    "recipeArn": ["arn:aws:personalize:::recipe/aws-user-personalization",
                  "arn:aws:personalize:::recipe/aws-ecomm-recommended-for-you"],
    "solutionArn": [f"{ARN}solution/my-name_1"],
    "userId": ["u1", "u2"],
    "itemId": ["item-1", "item-2"],
    "inputList": [["item-1", "item-2", "unheard of"]],
    "numResults": [5, 500],
    "sentAt": [1_790_000_000.5],
    "properties": ["{}", '{"GENRES":"a|b","PRICE":9.5,"NEW":true,"OTHER":null}', '{"itemId":"i1"}'],
    "datasetType": ["ITEMS", "Users", "INTERACTIONS"],
    "schema": [SCHEMA],
    "filterExpression": ['EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ("purchase")'],
}  # fmt: skip

SERVED = {"GetPersonalizedRanking", "GetRecommendations", "PutEvents", "PutItems", "PutUsers"}


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Calls an API with servers of its own, items and users, and no worker."""
    directory = tmp_path_factory.mktemp("random")
    with embedded_servers(directory) as servers:
        settings = new_stack(servers, "random", directory / "stack").settings
        ensure_topics(settings)
        asyncio.run(filled(settings))
        with serving(settings) as url, Caller(url) as made:
            yield made


async def filled(settings: Settings) -> None:
    """Fill the store with users and items."""
    store = await fill(settings, users=200, items=100, events_per_user=10)
    await store.redis.aclose()


def check(operation: str, answer: HttpAnswer) -> None:
    """Fail unless AWS clients can parse the answer."""
    understood = parsed(operation, answer)
    if answer.status == 200:
        check_answer(operation, answer.body)
        assert "Error" not in understood
        return
    one = service_operations()[operation]
    codes = {shape.name for shape in one.model.service_model.error_shapes}
    assert answer.code in codes
    assert understood["Error"]["Code"] == answer.code
    assert understood["Error"]["Message"] == answer.message != ""
    assert answer.status == one.statuses.get(answer.code, 400)


def different(documents: Iterable[Any]) -> Iterator[Any]:
    """Each document once: of a shape with one member, nearly all that are drawn are repetitions."""
    seen = set()
    for document in documents:
        text = json.dumps(document, sort_keys=True)
        if text not in seen:
            seen.add(text)
            yield document


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_valid_requests(caller: Caller, operation: str, amount: int) -> None:
    """Documents that fit the shape pass validation, and get an answer or a modelled error."""
    documents = Documents(operation, seed=1, known=KNOWN)
    for document in different(documents.valid() for _ in range(amount)):
        answer = caller.call(operation, document)
        check(operation, answer)
        assert b"validation error detected" not in answer.body, document


@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_invalid_requests(caller: Caller, operation: str, amount: int) -> None:
    """Documents that break the shape in one place are refused as invalid."""
    documents = Documents(operation, seed=2, known=KNOWN)
    drawn = documents.invalid if documents.can_break() else lambda: [documents.valid()]
    for document in different(drawn() for _ in range(amount)):
        answer = caller.call(operation, document)
        check(operation, answer)
        assert (answer.status, answer.code) == (400, "InvalidInputException"), document
        assert "1 validation error detected: Value " in answer.message


@pytest.mark.parametrize("operation", sorted(SERVED))
def test_random_requests_often_succeed(caller: Caller, operation: str) -> None:
    """Enough random requests reach the end of an operation to be useful."""
    documents = Documents(operation, seed=3, known=KNOWN)

    answers = (caller.call(operation, documents.valid()) for _ in range(1000))

    assert len(list(itertools.islice((a for a in answers if a.status == 200), 3))) == 3
