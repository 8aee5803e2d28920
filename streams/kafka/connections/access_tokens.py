"""Tokens for SASL OAUTHBEARER: of an OAuth 2.0 token endpoint, or made for Amazon MSK."""

from __future__ import annotations

import asyncio
import base64
import functools
import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote, urlencode

import aiokafka.abc
import kafka.net.sasl.oauth
from aiokafka.errors import KafkaConnectionError

from models.errors import InvalidSetting, RecommenderError, Unavailable
from models.extras import require_extra
from models.servers.tls import client_context
from models.settings import Settings

TIMEOUT_S = 4.0
"""Longest wait for a token endpoint."""

MAX_ANSWER_BYTES = 1 << 18

DEFAULT_LIFE_S = 300.0
"""Life of a token whose endpoint does not tell it."""

RENEWED_AT = 0.8
"""Share of its life after which a token is renewed."""


class AccessToken(NamedTuple):
    """A token and its end, Unix seconds."""

    text: str
    expires_s: float


class AccessTokens:
    """A token that is renewed before it expires, for all connections of a process.

    Parameters
    ----------
    fetch
        Gives a new token; blocks.
    clock
        Unix seconds.
    """

    def __init__(
        self, fetch: Callable[[], AccessToken], clock: Callable[[], float] = time.time
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._token = AccessToken("", 0.0)
        self._renew_s = 0.0

    def current(self) -> str:
        """The token; blocks while it is fetched.

        While the endpoint is away, the last token serves until it expires.

        Raises
        ------
        Unavailable
            There is none, and the endpoint does not answer.
        InvalidSetting
            The endpoint refuses.
        """
        with self._lock:
            now_s = self._clock()
            if now_s >= self._renew_s:
                try:
                    self._token = self._fetch()
                except Unavailable:
                    if now_s >= self._token.expires_s:
                        raise
                else:
                    self._renew_s = now_s + RENEWED_AT * max(0.0, self._token.expires_s - now_s)
            return self._token.text


class KafkaPythonTokens(kafka.net.sasl.oauth.AbstractTokenProvider):  # type: ignore[misc]
    """Tokens as kafka-python asks for them, on its own thread."""

    def __init__(self, tokens: AccessTokens, extensions: Mapping[str, str]) -> None:
        super().__init__()
        self._tokens = tokens
        self._extensions = dict(extensions)

    def token(self) -> str:
        """The current token."""
        return self._tokens.current()

    def extensions(self) -> dict[str, str]:
        """SASL extensions."""
        return self._extensions


class AiokafkaTokens(aiokafka.abc.AbstractTokenProvider):  # type: ignore[misc]
    """Tokens as aiokafka asks for them, on its event loop."""

    def __init__(self, tokens: AccessTokens, extensions: Mapping[str, str]) -> None:
        self._tokens = tokens
        self._extensions = dict(extensions)

    async def token(self) -> str:
        """The current token."""
        try:
            return await asyncio.to_thread(self._tokens.current)
        except RecommenderError as error:
            # The kind of error after which aiokafka tries again.
            raise KafkaConnectionError(str(error)) from error

    def extensions(self) -> dict[str, str]:
        """SASL extensions."""
        return self._extensions


_sources: dict[tuple[str, ...], AccessTokens] = {}
"""Tokens by what they are fetched with: a command's clients share one."""


def access_tokens(settings: Settings) -> AccessTokens:
    """Tokens for the settings' mechanism, OAUTHBEARER or AWS_MSK_IAM; the same for each caller.

    Raises
    ------
    NotConfigured
        AWS_MSK_IAM, and its extra is not installed.
    """
    if settings.kafka_sasl_mechanism == "AWS_MSK_IAM":
        require_extra("aws_msk_iam_sasl_signer", "msk", "AWS_MSK_IAM")
        region = settings.kafka_aws_region
        return _sources.setdefault(
            (region,), AccessTokens(functools.partial(sign_msk_token, region))
        )
    context = client_context("RECOMMENDER_KAFKA", "", "", "", "")
    if settings.kafka_ca_file:
        # Who has an authority of their own for Kafka often has it for the token endpoint, too.
        context.load_verify_locations(settings.kafka_ca_file)
    asked = (
        settings.kafka_token_url,
        settings.kafka_token_client_id,
        settings.kafka_token_client_secret.get_secret_value(),
        settings.kafka_token_scope,
    )
    return _sources.setdefault(
        asked, AccessTokens(functools.partial(fetch_token, *asked, context=context))
    )


def fetch_token(
    url: str, client_id: str, secret: str, scope: str, *, context: ssl.SSLContext
) -> AccessToken:
    """A new token by the client credentials grant (RFC 6749, 4.4).

    Raises
    ------
    Unavailable
        The endpoint does not answer, or answers with a 5xx.
    InvalidSetting
        It refuses the client, or answers with something else.
    """
    where = f"the token endpoint {url}"
    # RFC 6749, 2.3.1: both are form-encoded before they are joined.
    basic = base64.b64encode(f"{quote(client_id, '')}:{quote(secret, '')}".encode()).decode()
    form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
    request = urllib.request.Request(  # noqa: S310  https or loopback, as the settings check
        url,
        data=urlencode(form).encode(),
        headers={"Authorization": f"Basic {basic}", "Accept": "application/json"},
    )
    # A redirect would take the secret elsewhere.
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            body = answer.read(MAX_ANSWER_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(MAX_ANSWER_BYTES).decode(errors="replace")
        if error.code >= 500:
            raise Unavailable(f"{where} answers {error.code}") from error
        raise InvalidSetting(
            f"{where} refuses the client ({error.code} {_oauth_error(said)}): see "
            "RECOMMENDER_KAFKA_TOKEN_CLIENT_ID and RECOMMENDER_KAFKA_TOKEN_CLIENT_SECRET"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise InvalidSetting(
                f"the certificate of {where} is not trusted ({reason.verify_message}): see "
                "RECOMMENDER_KAFKA_CA_FILE"
            ) from error
        raise Unavailable(f"{where} does not answer ({reason})") from error
    return _parsed(body, where, time.time())


def _parsed(body: bytes, where: str, now_s: float) -> AccessToken:
    if len(body) <= MAX_ANSWER_BYTES:
        try:
            found = json.loads(body)
            token, life_s = found["access_token"], float(found.get("expires_in", DEFAULT_LIFE_S))
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        else:
            if isinstance(token, str) and token.isascii() and token.isprintable():
                return AccessToken(token, now_s + life_s)
    raise InvalidSetting(f"{where} gives no access token: see RECOMMENDER_KAFKA_TOKEN_URL")


def _oauth_error(body: str) -> str:
    """The code of an error answer (RFC 6749, 5.2); nothing else of it is repeated."""
    try:
        code = json.loads(body)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "without a reason"
    return code[:64] if isinstance(code, str) and code.isprintable() else "without a reason"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """None: the answer is the error."""


def sign_msk_token(region: str) -> AccessToken:
    """A signed request that Amazon MSK takes as a token, made of the AWS chain's credentials.

    Raises
    ------
    Unavailable
        The source of the credentials does not answer.
    InvalidSetting
        There are none.
    """
    import botocore.exceptions  # noqa: PLC0415  loaded by who calls AWS
    import botocore.session  # noqa: PLC0415
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415

    try:
        if botocore.session.Session().get_credentials() is None:
            raise InvalidSetting(
                "AWS_MSK_IAM finds no AWS credentials in the environment, a profile or a role"
            )
        text, expires_ms = MSKAuthTokenProvider.generate_auth_token(region)
    except botocore.exceptions.BotoCoreError as error:
        raise Unavailable(f"AWS_MSK_IAM finds no AWS credentials ({error})") from error
    return AccessToken(text, expires_ms / 1000)
