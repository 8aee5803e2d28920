"""The tracker against a local server that speaks PutEvents: every kind of answer has a meaning."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.exceptions as boto
import pytest
from botocore.stub import Stubber

from models.errors import NotConfigured
from models.events import Event, MetricAttribution, PutEvents
from models.settings import Settings
from streams.aws_personalize import AwsTracker, CallFailed, PutEventsAnswer, answer_of, describe
from streams.forwarding.put_events_calls import QueuedMessage, parameters, pending
from tests.streams.forwarding.personalize_stub import Behaviour, PersonalizeStub

REQUEST: dict[str, Any] = {
    "trackingId": "tracker",
    "sessionId": "s1",
    "userId": "u1",
    "eventList": [
        {"eventId": "e1", "eventType": "click", "sentAt": datetime.fromtimestamp(1.25, UTC)}
    ],
}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PersonalizeStub]:
    """A server that boto3 takes for Amazon Personalize, and an environment without others."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with PersonalizeStub() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_PERSONALIZE_EVENTS", server.url)
        yield server


def tracker(*, renew_every_s: float = 60.0) -> AwsTracker:
    """A tracker that is not patient."""
    settings = Settings(forward_tracking_id="tracker", forward_timeout_s=0.3)
    return AwsTracker(settings, renew_every_s=renew_every_s)


def test_a_call_arrives_with_fractions_of_a_second(stub: PersonalizeStub) -> None:
    """Without a region configured the call goes out, and sentAt keeps its fraction."""
    tracker().put(REQUEST)
    event = {"eventId": "e1", "eventType": "click", "sentAt": 1.25}
    assert stub.requests == [{**REQUEST, "eventList": [event]}]


@pytest.mark.parametrize(
    ("behaviour", "answer"),
    [
        ("throttle", PutEventsAnswer.THROTTLED),
        ("limit", PutEventsAnswer.THROTTLED),
        ("fail", PutEventsAnswer.FAILED),
        ("unavailable", PutEventsAnswer.FAILED),
        ("hang", PutEventsAnswer.FAILED),
        ("reset", PutEventsAnswer.FAILED),
        ("deny", PutEventsAnswer.DENIED),
    ],
)
def test_every_failure_is_one_call_and_not_the_events_fault(
    stub: PersonalizeStub, behaviour: Behaviour, answer: PutEventsAnswer
) -> None:
    """boto3 does not try again by itself, and nothing that may pass later counts as refused."""
    stub.behaviour = behaviour
    with pytest.raises(CallFailed) as caught:
        tracker().put(REQUEST)
    assert caught.value.answer is answer
    assert len(stub.requests) == 1


def test_an_invalid_event_is_refused_with_the_reason(stub: PersonalizeStub) -> None:
    """What AWS says about a bad event reaches whoever reads the dead letters."""
    stub.refuse = lambda event: f"{event['eventId']} is bad"
    with pytest.raises(CallFailed, match="InvalidInputException: e1 is bad") as caught:
        tracker().put(REQUEST)
    assert caught.value.answer is PutEventsAnswer.REFUSED


def test_what_aws_quotes_names_nobody(stub: PersonalizeStub) -> None:
    """The text is kept where no erasure reaches; a word that has an id in it stays as it is."""
    stub.refuse = lambda _: "user 'ada' of s.1: no adapter, ada-7 is ada"
    with pytest.raises(CallFailed) as caught:
        tracker().put({**REQUEST, "sessionId": "s.1", "userId": "ada-7"})
    assert caught.value.text.endswith("user 'ada' of <sessionId>: no adapter, <userId> is ada")
    with pytest.raises(CallFailed) as caught:
        tracker().put({**REQUEST, "sessionId": "x", "userId": "ada"})
    assert "user '<userId>' of s.1: no adapter" in caught.value.text


def test_nobody_at_the_address_is_a_failure(
    stub: PersonalizeStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection is tried again later."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_PERSONALIZE_EVENTS", url)
        with pytest.raises(CallFailed, match="EndpointConnectionError") as caught:
            tracker().put(REQUEST)
    assert caught.value.answer is PutEventsAnswer.FAILED
    assert stub.requests == []


def test_missing_credentials_are_found_once_they_are_there(
    stub: PersonalizeStub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without credentials a call is denied; a file written later is read."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    poor = tracker(renew_every_s=0.0)
    with pytest.raises(CallFailed, match=r"^NoCredentialsError$") as caught:
        poor.put(REQUEST)
    assert caught.value.answer is PutEventsAnswer.DENIED
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    with pytest.raises(CallFailed):
        poor.put(REQUEST)
    poor.put(REQUEST)
    assert len(stub.requests) == 1


def test_a_denial_is_named_without_its_text(stub: PersonalizeStub) -> None:
    """AWS may quote the signed request, token included: none of it gets into logs."""
    stub.behaviour = "deny"
    with pytest.raises(CallFailed, match=r"^InvalidSignatureException$"):
        tracker().put(REQUEST)


def test_a_password_in_an_address_is_left_out() -> None:
    """An endpoint with a user and a password is described without them."""
    error = boto.EndpointConnectionError(endpoint_url="https://me:pw@example.org/events")
    assert "https://example.org/events" in describe(error)


def test_a_long_strange_text_becomes_one_bounded_line() -> None:
    """Line breaks, lone surrogates and megabytes from a hostile endpoint do no harm."""
    details: Any = {"Error": {"Code": "X", "Message": "a\n\ud800" + "b" * 10**6}}
    text = describe(boto.ClientError(details, "PutEvents"))
    assert text.startswith("X: a ?bbb")
    assert len(text) == 500


@pytest.mark.parametrize(
    ("status", "code", "answer"),
    [
        (400, "ValidationException", PutEventsAnswer.REFUSED),
        (413, "413", PutEventsAnswer.REFUSED),
        (400, "400", PutEventsAnswer.FAILED),
        (404, "ResourceNotFoundException", PutEventsAnswer.FAILED),
        (400, "ExpiredTokenException", PutEventsAnswer.DENIED),
        (400, "ThrottlingException", PutEventsAnswer.THROTTLED),
        (429, "429", PutEventsAnswer.THROTTLED),
        (302, "302", PutEventsAnswer.FAILED),
    ],
)
def test_only_what_is_wrong_with_the_events_is_refused(
    status: int, code: str, answer: PutEventsAnswer
) -> None:
    """A wrong address or an expired token never sends events to the dead letters."""
    details: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert answer_of(boto.ClientError(details, "PutEvents")) is answer


def test_what_boto3_itself_finds_invalid_is_refused() -> None:
    """An event that boto3 does not even send would never pass."""
    assert answer_of(boto.ParamValidationError(report="no")) is PutEventsAnswer.REFUSED


def test_a_wrong_profile_is_said_at_the_start(
    stub: PersonalizeStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that does not exist stops the command instead of every call."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(NotConfigured, match="nobody"):
        tracker()
    assert stub.requests == []


def full_call() -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters made of a call with all that an event can hold, and what boto3 is to get."""
    event = Event(
        "purchase",
        1_700_000_000.25,
        event_id="e1",
        item_id="i9",
        event_value=2.5,
        impression=["i9", "i3"],
        recommendation_id="r1",
        metric_attribution=MetricAttribution("mail"),
        properties={"size": 1},
    )
    put = PutEvents("s1", [event, Event("click", 1.0, event_id="e2")], user_id="u1")
    call = list(pending([QueuedMessage("clicks", 0, 0, put, put.event_list)]))
    expected = {
        "trackingId": "real",
        "userId": "u1",
        "sessionId": "s1",
        "eventList": [
            {
                "eventId": "e1",
                "eventType": "purchase",
                "sentAt": datetime(2023, 11, 14, 22, 13, 20, 250_000, UTC),
                "itemId": "i9",
                "eventValue": 2.5,
                "impression": ["i9", "i3"],
                "recommendationId": "r1",
                "metricAttribution": {"eventAttributionSource": "mail"},
                "properties": '{"size":1}',
            },
            {"eventId": "e2", "eventType": "click", "sentAt": datetime(1970, 1, 1, 0, 0, 1,
                                                                       tzinfo=UTC)},
        ],
    }  # fmt: skip
    return parameters(call, "real"), expected


def test_boto3_gets_exactly_the_members_of_the_api() -> None:
    """Botocore finds the request valid by its own model, and member for member as expected."""
    request, expected = full_call()
    one = tracker()
    with Stubber(one._client) as stubber:
        stubber.add_response("put_events", {}, expected)
        one.put(request)
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "status", "answer"),
    [
        ("InvalidInputException", 400, PutEventsAnswer.REFUSED),
        ("ThrottlingException", 400, PutEventsAnswer.THROTTLED),
        ("InternalFailure", 500, PutEventsAnswer.FAILED),
        ("AccessDeniedException", 403, PutEventsAnswer.DENIED),
    ],
)
def test_errors_that_botocore_models_have_their_meaning(
    code: str, status: int, answer: PutEventsAnswer
) -> None:
    """What botocore raises for an error is taken for what it is."""
    request, expected = full_call()
    one = tracker()
    with Stubber(one._client) as stubber:
        stubber.add_client_error(
            "put_events", code, "why", http_status_code=status, expected_params=expected
        )
        with pytest.raises(CallFailed) as caught:
            one.put(request)
    assert caught.value.answer is answer
