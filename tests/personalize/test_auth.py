"""Authentication: none on loopback, a known access key, or a signature with its secret."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from api.personalize.auth import SKEW_S, AccessRefused, request_check
from models.settings import Settings
from tests.personalize.calls_fixtures import Caller, campaign, client, serving
from tests.servers import own_port
from tests.stack import Servers, Stack, new_stack

pytestmark = pytest.mark.any_broker

KEYS: dict[str, Any] = {"an-id": "a-secret", "other-id": "other secret/+é"}
SIGNED: dict[str, Any] = {"personalize_auth": "sigv4", "personalize_access_keys": KEYS}
NAMED: dict[str, Any] = {"personalize_auth": "access-key", "personalize_access_keys": KEYS}


@pytest.fixture(scope="module")
def serve(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Serves the API in this process, with settings as given."""

    def start(clock: Callable[[], float] = time.time, **settings: Any) -> Any:
        name = f"auth{len(made)}"
        made.append(name)
        chosen = new_stack(servers, name, tmp_path_factory.mktemp(name), **settings).settings
        return serving(chosen, clock=clock)

    made: list[str] = []
    return start


def ask(url: str, **options: Any) -> dict[str, Any]:
    """A request that every authenticated caller gets an answer to."""
    asked: dict[str, Any] = client("personalize-runtime", url, **options).get_recommendations(
        campaignArn=campaign("default"), userId="zoë 漢"
    )
    return asked


def refusal(call: Callable[[], object]) -> tuple[str, int]:
    """Code and status of the error of a call."""
    with pytest.raises(ClientError) as caught:
        call()
    response = caught.value.response
    assert response["Error"]["Message"]
    assert response["ResponseMetadata"]["RequestId"]
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_signed_requests_of_every_service_are_accepted(
    serve: Callable[..., Any], slash: str
) -> None:
    """boto3 signs with a known key, with or without a session token."""
    with serve(**SIGNED) as url:
        assert "itemList" in ask(url + slash)
        assert "itemList" in ask(url + slash, aws_session_token="a-token")
        other = {"aws_access_key_id": "other-id", "aws_secret_access_key": KEYS["other-id"]}
        assert "itemList" in ask(url + slash, **other)
        events = client("personalize-events", url + slash)
        event = {"eventType": "é", "sentAt": 1}
        with pytest.raises(events.exceptions.InvalidInputException, match="tracking id"):
            events.put_events(trackingId="no such", sessionId="s", eventList=[event])
        control = client("personalize", url + slash)
        assert refusal(lambda: control.describe_algorithm(algorithmArn="x:y"))[0] == (
            "InvalidInputException"
        )


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"aws_secret_access_key": "another"}, ("InvalidSignatureException", 403)),
        ({"aws_access_key_id": "other-id"}, ("InvalidSignatureException", 403)),
        ({"aws_access_key_id": "no-id"}, ("UnrecognizedClientException", 403)),
    ],
)
def test_unknown_keys_and_secrets_are_refused(
    serve: Callable[..., Any], options: dict[str, Any], refused: tuple[str, int]
) -> None:
    """Another secret or another key is refused with AWS's text."""
    with serve(**SIGNED) as url:
        assert refusal(lambda: ask(url, **options)) == refused


@pytest.mark.parametrize("settings", [SIGNED, NAMED])
def test_unsigned_requests_are_refused(serve: Callable[..., Any], settings: dict[str, Any]) -> None:
    """Without an Authorization header the token is missing; another scheme is incomplete."""
    with serve(**settings) as url:
        config = Config(signature_version=UNSIGNED)
        assert refusal(lambda: ask(url, config=config))[0] == "MissingAuthenticationTokenException"
    with serve(**settings) as url, Caller(url) as caller:
        answer = caller.call("GetRecommendations", {})
        assert (answer.status, answer.code) == (403, "MissingAuthenticationTokenException")
        answer = caller.call("ListSchemas", {})
        assert (answer.status, answer.code) == (403, "MissingAuthenticationTokenException")
        answer = caller.send("POST", "/events", b"{}", {"authorization": "Basic YTpi"})
        assert (answer.status, answer.code) == (400, "IncompleteSignatureException")


@pytest.mark.parametrize(
    ("shift_s", "reason"),
    [(SKEW_S - 60, None), (60 - SKEW_S, None), (SKEW_S + 60, "expired"),
     (-SKEW_S - 60, "not yet current")],
)  # fmt: skip
def test_clocks_may_differ_by_a_quarter_of_an_hour(
    serve: Callable[..., Any], shift_s: float, reason: str | None
) -> None:
    """A request signed earlier or later than that is refused, with both times."""
    with serve(clock=lambda: time.time() + shift_s, **SIGNED) as url:
        if reason is None:
            assert "itemList" in ask(url)
        else:
            with pytest.raises(ClientError, match=f"InvalidSignature.*Signature {reason}: 2"):
                ask(url)


def tampered_body(request: AWSPreparedRequest) -> None:
    """Name another user."""
    assert isinstance(request.body, bytes)
    request.body = request.body.replace(b"zo", b"za")


def tampered_host(request: AWSPreparedRequest) -> None:
    """Name another allowed host."""
    request.headers["Host"] = "personalize.localhost"


def tampered_query(request: AWSPreparedRequest) -> None:
    """Add a parameter."""
    request.url += "?a=b"


def tampered_path(request: AWSPreparedRequest) -> None:
    """Name another operation's path."""
    request.url = request.url.replace("/recommendations", "/personalize-ranking")


def tampered_target(request: AWSPreparedRequest) -> None:
    """Name an operation that was not signed."""
    request.headers["X-Amz-Target"] = "AmazonPersonalize.DeleteSchema"


def tampered_hash(request: AWSPreparedRequest) -> None:
    """Claim another hash of the body."""
    request.headers["X-Amz-Content-SHA256"] = "0" * 64


@pytest.mark.parametrize(
    "tamper",
    [tampered_body, tampered_host, tampered_query, tampered_path, tampered_target, tampered_hash],
)
def test_requests_changed_after_signing_are_refused(
    serve: Callable[..., Any], tamper: Callable[[AWSPreparedRequest], None]
) -> None:
    """All that determines the operation is signed."""
    with serve(**SIGNED) as url:
        made = client("personalize-runtime", url)
        made.meta.events.register("before-send.*.*", lambda request, **_: tamper(request))
        assert refusal(
            lambda: made.get_recommendations(campaignArn=campaign("default"), userId="zoë")
        ) == ("InvalidSignatureException", 403)


def test_access_key_mode_needs_a_known_key_only(serve: Callable[..., Any]) -> None:
    """The key id must be known; the secret is not checked."""
    with serve(**NAMED) as url:
        assert "itemList" in ask(url, aws_secret_access_key="any")
        refused = refusal(lambda: ask(url, aws_access_key_id="no-id"))
        assert refused == ("UnrecognizedClientException", 403)


def test_off_is_for_loopback_only(serve: Callable[..., Any]) -> None:
    """Without authentication all callers pass on loopback, and none on other addresses."""
    with serve() as url, Caller(url) as caller:
        assert "itemList" in ask(url)
        assert caller.call("GetRecommendations", {}).code == "InvalidInputException"
    with (
        serve(host="0.0.0.0", access="open") as url,
        Caller(url.removesuffix("/personalize")) as native,
    ):
        with pytest.raises(ClientError, match="RECOMMENDER_PERSONALIZE_AUTH=sigv4") as caught:
            ask(url)
        assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
        assert native.send("GET", "/healthz").status == 200
        assert native.send("GET", "/recommend?user_id=u").status == 200


@given(
    st.text(max_size=50).map(lambda text: text.encode("utf-8", "ignore"))
    | st.builds(
        "AWS4-HMAC-SHA256 Credential={}/{}/{}/personalize/aws4_request, SignedHeaders={},"
        " Signature={}".format,
        st.sampled_from(["an-id", "other-id", "é", ""]),
        st.sampled_from(["20261124", "2026", "٢٠٢٦١١٢٤"]),
        st.text("abc-é", max_size=5),
        st.sampled_from(["host;x-amz-date", "host", ";", "x-amz-date"]),
        st.text("0123456789abcdef", min_size=64, max_size=64),
    ).map(lambda text: text.encode("utf-8")),
    st.sampled_from([b"20261124T120000Z", b"20261124", b"\xff", b""]),
    st.binary(max_size=20),
)
def test_only_a_valid_signature_is_accepted(header: bytes, date: bytes, query: bytes) -> None:
    """A request without a valid signature is refused, whatever its headers."""
    check = request_check(Settings(**SIGNED))
    scope = {
        "method": "POST",
        "raw_path": b"/personalize/events",
        "query_string": query,
        "headers": [(b"authorization", header), (b"x-amz-date", date), (b"host", b"h")],
    }

    with pytest.raises(AccessRefused):
        check(scope, b"{}", 1795521600.0)


@pytest.mark.parametrize("mode", ["sigv4", "access-key"])
def test_modes_that_need_keys_do_not_start_without_keys(mode: str, running: Stack) -> None:
    """The command names the missing setting in one line, and ends."""
    free = str(own_port())
    ended = running.run("api", RECOMMENDER_PERSONALIZE_AUTH=mode, RECOMMENDER_PORT=free)

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "RECOMMENDER_PERSONALIZE_ACCESS_KEYS" in ended.stderr


@pytest.mark.parametrize(
    "keys", ['{"id": "hunter2"', '{"id": ["hunter2"]}', '"hunter2"', '{"id": {"hunter2": 1}}']
)
def test_settings_errors_do_not_show_secrets(keys: str, running: Stack) -> None:
    """An error about the keys names the setting, without its value."""
    ended = running.run("topics", RECOMMENDER_PERSONALIZE_ACCESS_KEYS=keys)

    assert ended.returncode == 1
    assert "personalize_access_keys" in ended.stderr.lower()
    assert "hunter2" not in ended.stdout + ended.stderr


def test_secrets_are_in_no_log(serve: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """Neither printed settings nor refusals nor logs contain secrets."""
    settings = Settings(**SIGNED)
    assert not _holds_secret(repr(settings) + str(settings) + settings.model_dump_json())
    with caplog.at_level(logging.DEBUG, logger="api"), serve(**SIGNED) as url:
        with pytest.raises(ClientError) as caught:
            ask(url, aws_secret_access_key="another")
        ask(url)
    assert not _holds_secret(str(caught.value.response))
    assert not _holds_secret(caplog.text)


def _holds_secret(text: str) -> bool:
    secrets: Mapping[str, str] = KEYS
    return any(secret in text for secret in secrets.values())
