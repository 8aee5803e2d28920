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
from streams.aws_personalize import AwsTracker, answer_of, describe
from streams.event_sinks import EventBatch, SendFailed, SinkAnswer
from streams.forwarding.sink_calls import QueuedMessage, event_batch, pending
from tests.streams.forwarding.personalize_stub import Behaviour, PersonalizeStub

BATCH = EventBatch("tracker", "s1", "u1", [Event("click", 1.25, event_id="e1")])


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PersonalizeStub]:
    """A server that boto3 takes for Amazon Personalize, and no other credentials or addresses."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with PersonalizeStub() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_PERSONALIZE_EVENTS", server.url)
        yield server


def tracker(*, renew_every_s: float = 60.0) -> AwsTracker:
    """A sink with a short timeout."""
    settings = Settings(forward_tracking_id="tracker", forward_timeout_s=0.3)
    return AwsTracker(settings, renew_every_s=renew_every_s)


def test_a_call_arrives_with_fractions_of_a_second(stub: PersonalizeStub) -> None:
    """Without a region configured the call goes out, and sentAt keeps its fraction."""
    tracker().send(BATCH)
    event = {"eventId": "e1", "eventType": "click", "sentAt": 1.25}
    request = {"trackingId": "tracker", "sessionId": "s1", "userId": "u1", "eventList": [event]}
    assert stub.requests == [request]


@pytest.mark.parametrize(
    ("behaviour", "answer"),
    [
        ("throttle", SinkAnswer.THROTTLED),
        ("limit", SinkAnswer.THROTTLED),
        ("fail", SinkAnswer.FAILED),
        ("unavailable", SinkAnswer.FAILED),
        ("hang", SinkAnswer.FAILED),
        ("reset", SinkAnswer.FAILED),
        ("deny", SinkAnswer.DENIED),
    ],
)
def test_a_passing_failure_is_one_call_and_no_refusal(
    stub: PersonalizeStub, behaviour: Behaviour, answer: SinkAnswer
) -> None:
    """boto3 does not retry by itself."""
    stub.behaviour = behaviour
    with pytest.raises(SendFailed) as caught:
        tracker().send(BATCH)
    assert caught.value.answer is answer
    assert len(stub.requests) == 1


def test_an_invalid_event_is_refused_with_the_reason(stub: PersonalizeStub) -> None:
    """The reason of AWS is kept for the dead letter."""
    stub.refuse = lambda event: f"{event['eventId']} is bad"
    with pytest.raises(SendFailed, match="InvalidInputException: e1 is bad") as caught:
        tracker().send(BATCH)
    assert caught.value.answer is SinkAnswer.REFUSED


def test_error_texts_hold_no_user_or_session_id(stub: PersonalizeStub) -> None:
    """AWS may quote them; a word that only contains an id stays as it is."""
    stub.refuse = lambda _: "user 'ada' of s.1: no adapter, ada-7 is ada"
    with pytest.raises(SendFailed) as caught:
        tracker().send(BATCH._replace(session_id="s.1", user_id="ada-7"))
    assert caught.value.text.endswith("user 'ada' of <sessionId>: no adapter, <userId> is ada")
    with pytest.raises(SendFailed) as caught:
        tracker().send(BATCH._replace(session_id="x", user_id="ada"))
    assert "user '<userId>' of s.1: no adapter" in caught.value.text


def test_a_refused_connection_is_a_passing_failure(
    stub: PersonalizeStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is tried again later."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_PERSONALIZE_EVENTS", url)
        with pytest.raises(SendFailed, match="EndpointConnectionError") as caught:
            tracker().send(BATCH)
    assert caught.value.answer is SinkAnswer.FAILED
    assert stub.requests == []


def test_credentials_written_later_are_found(
    stub: PersonalizeStub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without credentials a call is denied; their file is read again later."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    poor = tracker(renew_every_s=0.0)
    with pytest.raises(SendFailed, match=r"^NoCredentialsError$") as caught:
        poor.send(BATCH)
    assert caught.value.answer is SinkAnswer.DENIED
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    with pytest.raises(SendFailed):
        poor.send(BATCH)
    poor.send(BATCH)
    assert len(stub.requests) == 1


def test_a_denial_is_named_without_its_text(stub: PersonalizeStub) -> None:
    """AWS may quote the signed request, token included: none of it gets into logs."""
    stub.behaviour = "deny"
    with pytest.raises(SendFailed, match=r"^InvalidSignatureException$"):
        tracker().send(BATCH)


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
        (400, "ValidationException", SinkAnswer.REFUSED),
        (413, "413", SinkAnswer.REFUSED),
        (400, "400", SinkAnswer.FAILED),
        (404, "ResourceNotFoundException", SinkAnswer.FAILED),
        (400, "ExpiredTokenException", SinkAnswer.DENIED),
        (400, "ThrottlingException", SinkAnswer.THROTTLED),
        (429, "429", SinkAnswer.THROTTLED),
        (302, "302", SinkAnswer.FAILED),
    ],
)
def test_only_what_is_wrong_with_the_events_is_refused(
    status: int, code: str, answer: SinkAnswer
) -> None:
    """A wrong address or an expired token never sends events to the dead letters."""
    details: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert answer_of(boto.ClientError(details, "PutEvents")) is answer


def test_what_boto3_itself_finds_invalid_is_refused() -> None:
    """An event that boto3 does not even send would never pass."""
    assert answer_of(boto.ParamValidationError(report="no")) is SinkAnswer.REFUSED


def test_a_wrong_profile_is_said_at_the_start(
    stub: PersonalizeStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that does not exist stops the command instead of every call."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(NotConfigured, match="nobody"):
        tracker()
    assert stub.requests == []


def full_call() -> tuple[EventBatch, dict[str, Any]]:
    """A batch of events with every member, and the parameters that boto3 should get."""
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
    return event_batch(call, "real"), expected


def test_boto3_gets_exactly_the_members_of_the_api() -> None:
    """Botocore finds the request valid by its own model, and member for member as expected."""
    batch, expected = full_call()
    one = tracker()
    with Stubber(one._client) as stubber:
        stubber.add_response("put_events", {}, expected)
        one.send(batch)
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "status", "answer"),
    [
        ("InvalidInputException", 400, SinkAnswer.REFUSED),
        ("ThrottlingException", 400, SinkAnswer.THROTTLED),
        ("InternalFailure", 500, SinkAnswer.FAILED),
        ("AccessDeniedException", 403, SinkAnswer.DENIED),
    ],
)
def test_errors_that_botocore_models_have_their_meaning(
    code: str, status: int, answer: SinkAnswer
) -> None:
    """Botocore's errors are classified by code and status."""
    batch, expected = full_call()
    one = tracker()
    with Stubber(one._client) as stubber:
        stubber.add_client_error(
            "put_events", code, "why", http_status_code=status, expected_params=expected
        )
        with pytest.raises(SendFailed) as caught:
            one.send(batch)
    assert caught.value.answer is answer
