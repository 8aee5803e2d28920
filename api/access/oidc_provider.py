"""A provider of OpenID Connect, as this service's login asks it: discovery, keys, ID tokens.

Authlib has the protocol and joserfc the signatures; the requests are made here, because theirs
bound neither time nor size. Standards: OpenID Connect Core 1.0 and Discovery 1.0, RFC 7636 (PKCE),
RFC 9207 (the answer names its issuer).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import httpx2
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey, import_key

from api.access.oidc_flow import LoginSecret, Person, claim_values
from api.server.admission import Gate
from models.api_keys import MAX_NAME_CHARACTERS
from models.errors import Forbidden, Unavailable
from models.printable import escaped
from models.settings import Settings
from models.settings.oidc import is_safe_url

Cached = TypeVar("Cached")

ALGORITHMS: Final = [
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
]
"""Signatures that are taken: by a private key. None is no signature, and of HS256 the key could be
a public one."""

TIMEOUT_S = 5.0
"""Longest wait for one answer of the provider, its body included."""

MAX_ANSWER_BYTES = 1 << 18
MAX_KEYS = 100
KEPT_S = 3600.0
"""For so long discovery and keys count."""

AGAIN_S = 10.0
"""Shortest time between two readings of either: after a failure, or for a key that is not known."""

LEEWAY_S = 60
"""Largest difference allowed between the provider's clock and this machine's."""

MAX_WAITING = 8
"""Requests that wait for the provider at once, of logins that strangers may begin."""


class OidcProvider:
    """The provider of the settings; for the tasks of one event loop.

    Every method raises `Unavailable` if the provider does not answer in time, or says something
    that no provider does, and `Overloaded` at once while `MAX_WAITING` others wait for it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now_s: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._now_s = now_s
        self._client = httpx2.AsyncClient(
            timeout=TIMEOUT_S,
            follow_redirects=False,
            # What is packed could unpack to any size.
            headers={"accept": "application/json", "accept-encoding": "identity"},
            limits=httpx2.Limits(max_connections=16, max_keepalive_connections=4),
        )
        self._gate = Gate(MAX_WAITING, "logins", "the login's provider")
        self._discovery = _Cached(self._discover, clock)
        self._keys = _Cached(self._read_keys, clock)

    async def authorization_url(self, login: LoginSecret) -> str:
        """Address that a browser goes to for a login."""
        settings = self._settings
        with self._gate:
            found = await self._discovery.get()
        url = prepare_grant_uri(
            _url(found, "authorization_endpoint"),
            settings.oidc_client_id,
            "code",
            redirect_uri=settings.oidc_redirect_url,
            scope=settings.oidc_scope,
            state=login.state,
            nonce=login.nonce,
            code_challenge=create_s256_code_challenge(login.verifier),
            code_challenge_method="S256",
        )
        return str(url)

    async def logout_url(self) -> str | None:
        """Address of the provider's logout page; None if it has none."""
        with self._gate:
            found = await self._discovery.get()
        if "end_session_endpoint" not in found:
            return None
        url = httpx2.URL(_url(found, "end_session_endpoint"))
        return str(url.copy_merge_params({"client_id": self._settings.oidc_client_id}))

    async def person(self, code: str, issuer: str | None, login: LoginSecret) -> Person:
        """The person whom the provider has given a browser this code for.

        Parameters
        ----------
        issuer
            The parameter `iss` that came with the code; None if there was none.

        Raises
        ------
        Forbidden
            The code or the ID token is not valid; the text says why.
        """
        with self._gate:
            return await self._person(code, issuer, login)

    async def _person(self, code: str, issuer: str | None, login: LoginSecret) -> Person:
        found = await self._discovery.get()
        named = found.get("authorization_response_iss_parameter_supported") is True
        if (issuer is not None or named) and issuer != self._settings.oidc_issuer:
            raise Forbidden("the answer is of another provider")
        token = await self._exchange(found, code, login)
        claims = await self._claims(token, login)
        settings = self._settings
        subject = str(claims["sub"])
        seen = hashlib.sha256(f"{settings.oidc_issuer} {subject}".encode()).hexdigest()
        email = claims.get("email")
        name = email if isinstance(email, str) and claims.get("email_verified") is True else subject
        name = escaped(name)[:MAX_NAME_CHARACTERS] or "a person"
        return Person(seen[:16], name, claim_values(claims, settings.oidc_claim))

    async def close(self) -> None:
        """Disconnect."""
        await self._client.aclose()

    async def _exchange(
        self, found: Mapping[str, Any], code: str, login: LoginSecret
    ) -> Mapping[str, Any]:
        """The token endpoint's answer for a code."""
        settings = self._settings
        secret = settings.oidc_client_secret.get_secret_value()
        methods = found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        is_basic = "client_secret_basic" in methods
        method = "none" if not secret else f"client_secret_{'basic' if is_basic else 'post'}"
        body = prepare_token_request(
            "authorization_code",
            redirect_uri=settings.oidc_redirect_url,
            code=code,
            code_verifier=login.verifier,
        )
        headers = {"content-type": "application/x-www-form-urlencoded"}
        auth = ClientAuth(settings.oidc_client_id, secret, method)
        url, headers, body = auth.prepare("POST", _url(found, "token_endpoint"), headers, body)
        status, answer = await self._ask("POST", url, headers=headers, content=body)
        if status != 200 or not isinstance(answer.get("id_token"), str):
            # Of an unknown or used code (invalid_grant), or a wrong client (invalid_client).
            why = escaped(str(answer.get("error", f"status {status}")))[:100]
            raise Forbidden(f"the provider takes the login's code for no login: {why}")
        return answer

    async def _claims(self, answer: Mapping[str, Any], login: LoginSecret) -> Mapping[str, Any]:
        """The checked claims of an answer's ID token."""
        text, settings = answer["id_token"], self._settings
        try:
            try:
                token = jwt.decode(text, await self._keys.get(), algorithms=ALGORITHMS)
            except InvalidKeyIdError:
                # The provider may have changed its keys since they were read.
                token = jwt.decode(text, await self._keys.get_newer(), algorithms=ALGORITHMS)
            client_id, access_token = settings.oidc_client_id, answer.get("access_token")
            claims = CodeIDToken(
                token.claims,
                token.header,
                {
                    "iss": {"essential": True, "value": settings.oidc_issuer},
                    "aud": {"essential": True, "value": client_id},
                    "nonce": {"essential": True, "value": login.nonce},
                },
                {"client_id": client_id, "nonce": login.nonce, "access_token": access_token},
            )
            claims.validate(int(self._now_s()), LEEWAY_S)
        except JoseError as error:
            raise Forbidden(f"the ID token is not valid: {escaped(str(error))[:200]}") from error
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            raise Forbidden("the ID token is not valid: it is none") from error
        if not claims["sub"] or not isinstance(claims["sub"], str):
            raise Forbidden("the ID token is not valid: it names no subject")
        return dict(claims)

    async def _discover(self) -> Mapping[str, Any]:
        issuer = self._settings.oidc_issuer
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        status, found = await self._ask("GET", url)
        if status != 200 or found.get("issuer") != issuer:
            # Whoever answers in its place must not name other endpoints.
            raise Unavailable(f"{url} is no discovery document of the issuer {issuer}")
        return found

    async def _read_keys(self) -> KeySet:
        found = await self._discovery.get()
        status, answer = await self._ask("GET", _url(found, "jwks_uri"))
        texts = answer.get("keys")
        if status != 200 or not isinstance(texts, list):
            raise Unavailable("the login's provider does not tell its keys")
        keys: list[Key] = []
        for text in texts[:MAX_KEYS]:
            try:
                key = import_key(text)
            except (JoseError, TypeError, ValueError, KeyError, AttributeError):
                continue  # of a kind that is not known here; others may sign
            if isinstance(key, RSAKey | ECKey | OKPKey) and text.get("use", "sig") == "sig":
                keys.append(key)
        return KeySet(keys)

    async def _ask(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:  # noqa: ANN401
        """Status and JSON object of an answer; an empty one if it is none."""
        body = bytearray()
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._client.stream(method, url, **options) as answer,
            ):
                async for part in answer.aiter_raw():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise Unavailable("the login's provider answers too much")
        except TimeoutError as error:
            raise Unavailable("the login's provider does not answer in time") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            text = f"the login's provider does not answer: {type(error).__name__}"
            raise Unavailable(text) from error
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        return answer.status_code, found if isinstance(found, dict) else {}


class _Cached(Generic[Cached]):
    """A value that is read again when it is too old; tasks share a reading."""

    def __init__(self, read: Callable[[], Awaitable[Cached]], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: Cached | None = None
        self._failure = ""
        self._read_s = self._failed_s = -math.inf

    async def get(self) -> Cached:
        """The value, `KEPT_S` old at most; raises `Unavailable`."""
        return await self._within(KEPT_S)

    async def get_newer(self) -> Cached:
        """The value as it is now, but not read more often than each `AGAIN_S`."""
        return await self._within(AGAIN_S)

    async def _within(self, age_s: float) -> Cached:
        async with self._lock:
            now_s = self._clock()
            if self._value is not None and now_s - self._read_s < age_s:
                return self._value
            if now_s - self._failed_s < AGAIN_S:
                raise Unavailable(self._failure)
            try:
                self._value = await self._read()
            except Unavailable as error:
                self._failed_s, self._failure = self._clock(), str(error)
                raise
            self._read_s = self._clock()
            return self._value


def _url(found: Mapping[str, Any], name: str) -> str:
    """An endpoint of a discovery document; secrets go to it, so it must be safe."""
    url = found.get(name)
    if not isinstance(url, str) or not is_safe_url(url.partition("?")[0]):
        raise Unavailable(f"the login's provider names no safe {name}")
    return url
