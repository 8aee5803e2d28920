"""Validation against botocore's service models."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.personalize.service_model import LINEAR, InvalidMember, service_operations
from models.errors import InvalidInput
from tests.personalize.resource_fixtures import Documents

pytestmark = pytest.mark.unit

EVENT: dict[str, Any] = {"eventType": "click", "sentAt": 1}
EVENTS: dict[str, Any] = {"trackingId": "t", "sessionId": "s", "eventList": [EVENT]}
RANKING: dict[str, Any] = {"campaignArn": "arn:aws:personalize:::campaign/c", "userId": "u"}


def test_every_operation_is_described() -> None:
    """All 79 operations of the three services, eight of them by path."""
    assert len(service_operations()) >= 79
    assert sorted(one.path for one in service_operations().values() if one.path) == [
        "/action-interactions", "/action-recommendations", "/actions", "/events", "/items",
        "/personalize-ranking", "/recommendations", "/users",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "document", "where", "constraint"),
    [
        ("PutEvents", [], "body", "be a structure"),
        ("PutEvents", {}, "trackingId", "not be null"),
        ("PutEvents", EVENTS | {"trackingId": None}, "trackingId", "not be null"),
        ("PutEvents", EVENTS | {"sessionId": ""}, "sessionId",
         "have length greater than or equal to 1"),
        ("PutEvents", EVENTS | {"userId": 5}, "userId", "be a string"),
        ("PutEvents", EVENTS | {"eventList": EVENT}, "eventList", "be a list"),
        ("PutEvents", EVENTS | {"eventList": []}, "eventList",
         "have length greater than or equal to 1"),
        ("PutEvents", EVENTS | {"eventList": [EVENT] * 11}, "eventList",
         "have length less than or equal to 10"),
        ("PutEvents", EVENTS | {"eventList": [EVENT, {"sentAt": 1}]},
         "eventList.2.member.eventType", "not be null"),
        ("PutEvents", EVENTS | {"eventList": [EVENT | {"sentAt": "today"}]},
         "eventList.1.member.sentAt", "be a timestamp in seconds"),
        ("PutEvents", EVENTS | {"eventList": [EVENT | {"eventValue": True}]},
         "eventList.1.member.eventValue", "be a number"),
        ("PutEvents", EVENTS | {"eventList": [EVENT | {"impression": ["i", "x" * 257]}]},
         "eventList.1.member.impression.2.member", "have length less than or equal to 256"),
        ("GetRecommendations", {"numResults": -1}, "numResults",
         "have value greater than or equal to 0"),
        ("GetRecommendations", {"numResults": 1.5}, "numResults", "be a whole number"),
        ("GetRecommendations", {"numResults": 2**31}, "numResults", "be a whole number"),
        ("GetRecommendations", {"campaignArn": "c"}, "campaignArn",
         "satisfy regular expression pattern: arn:"),
        ("GetRecommendations", {"context": {"a b": "v"}}, "context.a b",
         "satisfy regular expression pattern"),
        ("GetRecommendations", {"context": {"A": 1}}, "context.A", "be a string"),
        ("GetRecommendations", {"context": "A"}, "context", "be a map"),
        ("GetRecommendations", {"promotions": [{"percentPromotedItems": 101}]},
         "promotions.1.member.percentPromotedItems", "have value less than or equal to 100"),
        ("GetPersonalizedRanking", RANKING | {"inputList": [None]}, "inputList.1.member",
         "be a string"),
        ("CreateSchema", {"name": "n", "schema": "{}", "domain": "GAMES"}, "domain",
         "satisfy enum value set: [ECOMMERCE, VIDEO_ON_DEMAND]"),
        ("CreateSchema", {"name": "n", "schema": "x" * 20_001}, "schema",
         "have length less than or equal to 20000"),
        ("CreateSolution", {"name": "n", "datasetGroupArn": RANKING["campaignArn"],
         "performHPO": "yes"}, "performHPO", "be a boolean"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong_and_where(
    operation: str, document: Any, where: str, constraint: str
) -> None:
    """AWS's text: the value, the path to it, and the broken constraint."""
    with pytest.raises(InvalidInput) as caught:
        service_operations()[operation].validate_input(document)

    text = str(caught.value)
    assert text.startswith("1 validation error detected: Value ")
    assert f" at '{where}' failed to satisfy constraint: Member must {constraint}" in text
    assert len(text) < 500


def test_values_are_converted_to_their_shapes() -> None:
    """Unknown and null members are left out; times as text become numbers."""
    event = EVENT | {"sentAt": "1553631760.5", "itemId": None, "colour": "red"}

    found = service_operations()["PutEvents"].validate_input(
        EVENTS | {"eventList": [event], "extra": {"a": [1]}}
    )

    assert found == EVENTS | {"eventList": [EVENT | {"sentAt": 1553631760.5}]}
    ranking = RANKING | {"inputList": ["a"]}
    assert service_operations()["GetPersonalizedRanking"].validate_input(ranking) == ranking
    assert service_operations()["GetRecommendations"].validate_input({"numResults": 25.0}) == {
        "numResults": 25
    }


@pytest.mark.parametrize("value", [10**400, 1e308, -(10**400)])
def test_numbers_out_of_range_are_refused(value: float) -> None:
    """Numbers near infinity are refused, and long ones are not quoted in full."""
    document = EVENTS | {"eventList": [EVENT | {"eventValue": value}]}

    with pytest.raises(InvalidInput) as caught:
        service_operations()["PutEvents"].validate_input(document)
    assert len(str(caught.value)) < 300


def test_sensitive_values_are_not_quoted() -> None:
    """Errors do not contain values that the models call sensitive."""
    with pytest.raises(InvalidInput) as caught:
        service_operations()["PutEvents"].validate_input(EVENTS | {"userId": "ada" * 100})

    assert "ada" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "where"),
    [
        ({"itemList": [{"itemId": "a", "score": float("nan")}]}, "itemList.1.member.score"),
        ({"itemList": [{"itemId": 5}]}, "itemList.1.member.itemId"),
        ({"itemList": [{"itemId": "a", "reason": None}]}, "itemList.1.member.reason"),
        ({"items": []}, "body"),
    ],
)
def test_answers_are_checked_strictly(answer: Any, where: str) -> None:
    """The check finds members that clients would ignore or fail on."""
    service_operations()["GetRecommendations"].check_output(
        {"itemList": [{"itemId": "a", "score": 0.5}]}
    )

    with pytest.raises(InvalidMember) as caught:
        service_operations()["GetRecommendations"].check_output(answer)
    assert f"at '{where}'" in caught.value.text()


def test_generated_documents_are_valid_or_invalid() -> None:
    """Valid documents of the random generator pass, invalid ones do not."""
    for operation, one in service_operations().items():
        documents = Documents(operation, seed=1)
        for _ in range(30):
            one.validate_input(documents.valid())
            if documents.can_break():
                with pytest.raises(InvalidInput):
                    one.validate_input(documents.invalid())


@pytest.mark.parametrize("pattern", LINEAR)
def test_fast_patterns_find_the_same(pattern: str) -> None:
    """The replaced patterns match the same texts as those of the models."""

    @given(st.from_regex(pattern, fullmatch=True) | st.text("arn:peson lize!é\n", max_size=40))
    def same(text: str) -> None:
        expected = re.fullmatch(pattern, text, re.ASCII) is not None
        assert (re.fullmatch(LINEAR[pattern], text, re.ASCII) is not None) == expected

    same()


@pytest.mark.parametrize("filler", ["!", " !", ":", "a:"])
@pytest.mark.parametrize("pattern", LINEAR)
def test_fast_patterns_refuse_at_once(pattern: str, filler: str) -> None:
    """Text on which the models' own patterns would take hours is refused at once."""
    text = "arn:aws:personalize:" * (":" in filler) + filler * 50_000 + "\n"

    assert re.fullmatch(LINEAR[pattern], text, re.ASCII) is None
