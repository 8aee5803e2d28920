"""Who may call: anybody on loopback, or who names an access key, or who signs with its secret."""

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
    """A question that anybody who is let in gets an answer to."""
    asked: dict[str, Any] = client("personalize-runtime", url, **options).get_recommendations(
        campaignArn=campaign("default"), userId="zoë 漢"
    )
    return asked


def refusal(call: Callable[[], object]) -> tuple[str, int]:
    """Code and status of the error that a call ends with."""
    with pytest.raises(ClientError) as caught:
        call()
    response = caught.value.response
    assert response["Error"]["Message"]
    assert response["ResponseMetadata"]["RequestId"]
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_signed_requests_of_every_service_are_let_in(serve: Callable[..., Any], slash: str) -> None:
    """boto3 signs with a known key, with a session token or without, and is understood."""
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
def test_what_is_not_known_is_refused(
    serve: Callable[..., Any], options: dict[str, Any], refused: tuple[str, int]
) -> None:
    """Another secret and another key are refused, in the words of AWS."""
    with serve(**SIGNED) as url:
        assert refusal(lambda: ask(url, **options)) == refused


@pytest.mark.parametrize("settings", [SIGNED, NAMED])
def test_who_says_nothing_is_refused(serve: Callable[..., Any], settings: dict[str, Any]) -> None:
    """A request without an Authorization header is refused, one with another's is incomplete."""
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
    """A request signed longer ago, or that much later, is refused with both times."""
    with serve(clock=lambda: time.time() + shift_s, **SIGNED) as url:
        if reason is None:
            assert "itemList" in ask(url)
        else:
            with pytest.raises(ClientError, match=f"InvalidSignature.*Signature {reason}: 2"):
                ask(url)


def tampered_body(request: AWSPreparedRequest) -> None:
    """Ask for another user."""
    assert isinstance(request.body, bytes)
    request.body = request.body.replace(b"zo", b"za")


def tampered_host(request: AWSPreparedRequest) -> None:
    """Be another host, of those that are answered."""
    request.headers["Host"] = "personalize.localhost"


def tampered_query(request: AWSPreparedRequest) -> None:
    """Add a parameter."""
    request.url += "?a=b"


def tampered_path(request: AWSPreparedRequest) -> None:
    """Ask for something else."""
    request.url = request.url.replace("/recommendations", "/personalize-ranking")


def tampered_target(request: AWSPreparedRequest) -> None:
    """Ask for an operation whose name was not signed."""
    request.headers["X-Amz-Target"] = "AmazonPersonalize.DeleteSchema"


def tampered_hash(request: AWSPreparedRequest) -> None:
    """Say that the body has another hash."""
    request.headers["X-Amz-Content-SHA256"] = "0" * 64


@pytest.mark.parametrize(
    "tamper",
    [tampered_body, tampered_host, tampered_query, tampered_path, tampered_target, tampered_hash],
)
def test_what_was_changed_after_it_was_signed_is_refused(
    serve: Callable[..., Any], tamper: Callable[[AWSPreparedRequest], None]
) -> None:
    """Everything that says what is asked for is signed."""
    with serve(**SIGNED) as url:
        made = client("personalize-runtime", url)
        made.meta.events.register("before-send.*.*", lambda request, **_: tamper(request))
        assert refusal(
            lambda: made.get_recommendations(campaignArn=campaign("default"), userId="zoë")
        ) == ("InvalidSignatureException", 403)


def test_access_key_mode_asks_for_a_known_key_only(serve: Callable[..., Any]) -> None:
    """The key's id must be known; the secret proves nothing there."""
    with serve(**NAMED) as url:
        assert "itemList" in ask(url, aws_secret_access_key="any")
        refused = refusal(lambda: ask(url, aws_access_key_id="no-id"))
        assert refused == ("UnrecognizedClientException", 403)


def test_off_is_for_loopback_only(serve: Callable[..., Any]) -> None:
    """Anybody may call on loopback; beyond it nobody, with the settings that would let them in."""
    with serve() as url, Caller(url) as caller:
        assert "itemList" in ask(url)
        assert caller.call("GetRecommendations", {}).code == "InvalidInputException"
    with serve(host="0.0.0.0") as url, Caller(url.removesuffix("/personalize")) as native:
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
def test_nothing_but_a_signature_gets_in(header: bytes, date: bytes, query: bytes) -> None:
    """Whatever stands in the headers, a request without a true signature is refused."""
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
def test_modes_that_need_keys_do_not_start_without(mode: str, running: Stack) -> None:
    """The command says in one line which setting is missing, and ends."""
    free = str(own_port())
    ended = running.run("api", RECOMMENDER_PERSONALIZE_AUTH=mode, RECOMMENDER_PORT=free)

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "RECOMMENDER_PERSONALIZE_ACCESS_KEYS" in ended.stderr


@pytest.mark.parametrize(
    "keys", ['{"id": "hunter2"', '{"id": ["hunter2"]}', '"hunter2"', '{"id": {"hunter2": 1}}']
)
def test_secrets_are_not_shown_where_settings_are_wrong(keys: str, running: Stack) -> None:
    """An error about the keys names the setting, and nothing of its value."""
    ended = running.run("topics", RECOMMENDER_PERSONALIZE_ACCESS_KEYS=keys)

    assert ended.returncode == 1
    assert "personalize_access_keys" in ended.stderr.lower()
    assert "hunter2" not in ended.stdout + ended.stderr


def test_secrets_are_in_no_log(serve: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """Settings print without secrets, and neither a refusal nor a log has one."""
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
