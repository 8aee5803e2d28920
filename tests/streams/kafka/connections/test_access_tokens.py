"""Tokens for OAUTHBEARER, of an endpoint on loopback and of Amazon's signer."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from models.errors import InvalidSetting, Unavailable
from models.settings import Settings
from streams.kafka.connections import access_tokens
from streams.kafka.connections.access_tokens import (
    AccessToken,
    AccessTokens,
    fetch_token,
    sign_msk_token,
)
from streams.kafka.connections.security import aiokafka_options, kafka_python_options
from tests.secured_kafka import CLIENT_SECRET, TokenEndpoint, token_endpoint
from tests.servers import own_port


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Authority of the endpoint's certificate."""
    return trustme.CA()


@pytest.fixture
def endpoint(authority: trustme.CA) -> Iterator[TokenEndpoint]:
    """A running token endpoint."""
    with token_endpoint(authority) as running:
        yield running


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    """A context that trusts it."""
    made = ssl.create_default_context()
    authority.configure_trust(made)
    return made


class Clock:
    """A clock that a test sets, and a source of tokens that live for 100 s."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.fetched = 0
        self.fault: Exception | None = None

    def fetch(self) -> AccessToken:
        """The next token."""
        if self.fault:
            raise self.fault
        self.fetched += 1
        return AccessToken(f"t{self.fetched}", self.now_s + 100)


def test_a_token_is_renewed_before_it_expires() -> None:
    """At 80 % of its life; until then all connections share it."""
    clock = Clock()
    tokens = AccessTokens(clock.fetch, lambda: clock.now_s)
    assert [tokens.current(), tokens.current()] == ["t1", "t1"]
    clock.now_s += 79
    assert tokens.current() == "t1"
    clock.now_s += 2
    assert tokens.current() == "t2"


def test_a_token_serves_while_the_endpoint_is_away() -> None:
    """Until it expires; a refusal is not hidden."""
    clock = Clock()
    tokens = AccessTokens(clock.fetch, lambda: clock.now_s)
    tokens.current()
    clock.now_s, clock.fault = 1090.0, Unavailable("away")
    assert tokens.current() == "t1"
    clock.now_s = 1100.0
    with pytest.raises(Unavailable):
        tokens.current()
    clock.fault = InvalidSetting("refused")
    with pytest.raises(InvalidSetting):
        tokens.current()
    clock.fault = None
    assert tokens.current() == "t2"


def test_the_client_credentials_grant(endpoint: TokenEndpoint, context: ssl.SSLContext) -> None:
    """The scope is asked for; the answer's life is the token's."""
    token = fetch_token(endpoint.url, "app", CLIENT_SECRET, "kafka", context=context)
    assert token.text.count(".") == 2
    assert token.expires_s > 3600
    assert endpoint.requests == [{"grant_type": ["client_credentials"], "scope": ["kafka"]}]


def test_an_endpoint_that_gives_no_token(
    endpoint: TokenEndpoint, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal names the settings, an absence does not; no secret is repeated."""

    def failure(url: str, secret: str, trusting: ssl.SSLContext = context) -> Exception:
        with pytest.raises((InvalidSetting, Unavailable)) as raised:
            fetch_token(url, "app", secret, "", context=trusting)
        assert "Pl4nted" not in str(raised.value)
        return raised.value

    refused = failure(endpoint.url, "Pl4nted-wrong")
    assert isinstance(refused, InvalidSetting)
    assert "401 invalid_client" in str(refused)
    untrusted = failure(endpoint.url, CLIENT_SECRET, ssl.create_default_context())
    assert isinstance(untrusted, InvalidSetting)
    assert "RECOMMENDER_KAFKA_CA_FILE" in str(untrusted)
    endpoint.status = 503
    assert isinstance(failure(endpoint.url, CLIENT_SECRET), Unavailable)
    nobody = f"https://127.0.0.1:{own_port()}/token"
    assert isinstance(failure(nobody, CLIENT_SECRET), Unavailable)
    endpoint.status = 200
    monkeypatch.setattr(endpoint, "answer", lambda *_: (200, {"access_token": "a\nb"}))
    assert "gives no access token" in str(failure(endpoint.url, CLIENT_SECRET))
    monkeypatch.setattr(endpoint, "answer", lambda *_: (302, {}))
    assert isinstance(failure(endpoint.url, CLIENT_SECRET), InvalidSetting)


def test_a_token_for_amazon_msk(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a request signed for the cluster's region, with 15 minutes to live."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "Pl4nted")
    token = sign_msk_token("eu-west-1")
    signed = urlsplit(base64.urlsafe_b64decode(token.text + "=" * (-len(token.text) % 4)).decode())
    asked = parse_qs(signed.query)
    assert signed.netloc == "kafka.eu-west-1.amazonaws.com"
    assert asked["Action"] == ["kafka-cluster:Connect"]
    assert asked["X-Amz-Expires"] == ["900"]
    assert asked["X-Amz-Credential"][0].startswith("AKIDEXAMPLE/")
    assert "eu-west-1/kafka-cluster/aws4_request" in asked["X-Amz-Credential"][0]
    assert "Pl4nted" not in signed.query


def test_no_aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, not an attribute of None."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(InvalidSetting, match="no AWS credentials"):
        sign_msk_token("eu-west-1")


def test_both_clients_show_amazons_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is signed for the settings' region, handed over as OAUTHBEARER, and shared."""
    signed: list[str] = []

    def sign(region: str) -> AccessToken:
        signed.append(region)
        return AccessToken("signed", 1e12)

    monkeypatch.setattr(access_tokens, "sign_msk_token", sign)
    settings = Settings(
        kafka_security_protocol="sasl_ssl",
        kafka_sasl_mechanism="AWS_MSK_IAM",
        kafka_aws_region="ap-south-2",
    )
    ours, theirs = kafka_python_options(settings), aiokafka_options(settings)
    assert ours["sasl_mechanism"] == theirs["sasl_mechanism"] == "OAUTHBEARER"
    assert ours["sasl_oauth_token_provider"].token() == "signed"
    assert asyncio.run(theirs["sasl_oauth_token_provider"].token()) == "signed"
    assert signed == ["ap-south-2"]
