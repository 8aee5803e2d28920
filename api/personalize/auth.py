"""Authentication of the Amazon Personalize API: none on loopback, or AWS access keys.

AWS clients sign every request with Signature Version 4. Its check needs the raw path, the query
string, the Host header and the bytes of the body unchanged. A proxy that rewrites the Host header
breaks it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from starlette.types import Scope

from api.access.callers import EVERYBODY, Caller
from models.api_keys import ALL_GROUPS, Role, parse_access
from models.errors import NotConfigured
from models.settings import Settings
from models.settings.access import is_loopback

SKEW_S = 15 * 60
"""Largest difference between a request's time and the present."""

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "personalize"
MUST_SIGN = ("host", "x-amz-date", "x-amz-target")
"""Headers that must be signed if they are sent: host, time and operation."""

RequestCheck = Callable[[Scope, bytes, float], Caller]
"""Gives the caller by a request's scope, body and time (Unix s); raises `AccessRefused`."""

USUAL_ROLES = frozenset((Role.SEND, Role.READ, Role.MANAGE))
"""Roles of an access key that the settings name none for, in every dataset group."""

_TIME = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_PART = r"([^/,\s]{1,128})"
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM}\s+Credential={_PART}/(\d{{8}})/{_PART}/{_PART}/aws4_request\s*,"
    r"\s*SignedHeaders=([a-z0-9;_-]{1,4096})\s*,\s*Signature=([0-9a-f]{64})",
    re.ASCII,
)


class AccessRefused(Exception):
    """A request without valid authentication."""

    def __init__(self, code: str, message: str, *, status: int = 403) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class SignatureFields(NamedTuple):
    """Fields of an Authorization header."""

    key_id: str
    date: str
    region: str
    service: str
    headers: list[str]
    signature: str


def request_check(settings: Settings) -> RequestCheck:
    """The check that the settings choose.

    Without authentication, requests pass only if the API listens on loopback and asks for no API
    keys; else they are refused with a text that names the setting.

    Raises
    ------
    NotConfigured
        The settings choose a check of access keys, and name no keys.
    """
    if settings.personalize_auth == "off":
        is_open = is_loopback(settings.host) and not settings.requires_keys
        return _accept_all if is_open else _refuse_all
    secrets = {
        key_id: secret.get_secret_value()
        for key_id, secret in settings.personalize_access_keys.items()
    }
    if not secrets:
        raise NotConfigured(
            f"RECOMMENDER_PERSONALIZE_AUTH is {settings.personalize_auth}, which needs "
            'RECOMMENDER_PERSONALIZE_ACCESS_KEYS, such as {"<access key id>": "<secret>"}'
        )
    callers = {key_id: _caller(key_id, settings) for key_id in secrets}
    check = _check_key if settings.personalize_auth == "access-key" else _check_signature
    return lambda scope, body, now_s: callers[check(scope, body, now_s, secrets)]


def _caller(key_id: str, settings: Settings) -> Caller:
    text = settings.personalize_access_roles.get(key_id)
    roles, groups = (USUAL_ROLES, frozenset((ALL_GROUPS,))) if text is None else parse_access(text)
    return Caller(key_id, f"AWS access key {key_id}", roles, groups)


def _accept_all(_: Scope, __: bytes, ___: float) -> Caller:
    """Accept every request."""
    return EVERYBODY


def _refuse_all(_: Scope, __: bytes, ___: float) -> Caller:
    raise AccessRefused(
        "AccessDeniedException",
        "the Amazon Personalize API is closed to requests without a key, because it listens beyond "
        "this machine or keys are required: set RECOMMENDER_PERSONALIZE_AUTH=sigv4 and "
        "RECOMMENDER_PERSONALIZE_ACCESS_KEYS, or send an API key in X-Api-Key",
    )


def _check_key(scope: Scope, _: bytes, __: float, secrets: Mapping[str, str]) -> str:
    """The id of a known access key, which is an identifier and proves nothing."""
    key_id = _signature_fields(_signed_headers(scope)).key_id
    _secret_of(key_id, secrets)
    return key_id


def _check_signature(scope: Scope, body: bytes, now_s: float, secrets: Mapping[str, str]) -> str:
    """The id of a known access key whose secret signed the request lately; about 30 µs."""
    headers = _signed_headers(scope)
    signed = _signature_fields(headers)
    secret = _secret_of(signed.key_id, secrets)
    unsigned = [name for name in MUST_SIGN if name in headers and name not in signed.headers]
    if unsigned or "x-amz-date" not in headers or "host" not in headers:
        raise _mismatch(f"these headers must be sent and signed: {', '.join(MUST_SIGN)}")
    sent_at = headers["x-amz-date"]
    _check_time(sent_at, now_s)
    if signed.service != SERVICE or not sent_at.startswith(signed.date):
        raise _mismatch(f"the scope must be of the service {SERVICE}, and of the request's day")
    hashed = hashlib.sha256(body).hexdigest()
    if headers.get("x-amz-content-sha256", hashed) != hashed:
        raise _mismatch("x-amz-content-sha256 is not the hash of the body")
    canonical = "\n".join(
        [
            scope["method"],
            _signed_path(scope["raw_path"].decode("latin-1")),
            _sorted_query(scope["query_string"].decode("latin-1")),
            *(f"{name}:{headers.get(name, '')}" for name in signed.headers),
            "",
            ";".join(signed.headers),
            hashed,
        ]
    )
    scope_text = f"{signed.date}/{signed.region}/{signed.service}/aws4_request"
    canonical_hash = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    to_sign = f"{ALGORITHM}\n{sent_at}\n{scope_text}\n{canonical_hash}"
    key = _signing_key(secret, signed.date, signed.region, signed.service)
    expected = hmac.digest(key, to_sign.encode("latin-1"), "sha256").hex()
    if not hmac.compare_digest(expected, signed.signature):
        raise _mismatch("check the secret access key, and that no proxy rewrites Host or body")
    return signed.key_id


def _signed_headers(scope: Scope) -> dict[str, str]:
    """Headers by name in the signed form: trimmed, single spaces, repeated ones joined."""
    joined: dict[str, str] = {}
    for raw_name, raw in scope["headers"]:
        name, value = raw_name.decode("latin-1"), " ".join(raw.decode("latin-1").split())
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _signature_fields(headers: Mapping[str, str]) -> SignatureFields:
    authorization = headers.get("authorization")
    if authorization is None:
        raise AccessRefused(
            "MissingAuthenticationTokenException", "the request is not signed: set access keys"
        )
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None:
        raise AccessRefused(
            "IncompleteSignatureException",
            f"the Authorization header is not one of {ALGORITHM}",
            status=400,
        )
    key_id, date, region, service, names, signature = match.groups()
    return SignatureFields(key_id, date, region, service, names.split(";"), signature)


def _secret_of(key_id: str, secrets: Mapping[str, str]) -> str:
    """The secret of an access key; compares with every known key in constant time."""
    found = None
    for known, secret in secrets.items():
        if hmac.compare_digest(known.encode(), key_id.encode()):
            found = secret
    if found is None:
        raise AccessRefused(
            "UnrecognizedClientException", "The security token included in the request is invalid."
        )
    return found


def _check_time(sent_at: str, now_s: float) -> None:
    try:
        # `strptime` takes as long as the whole rest of the check; the pattern makes this strict.
        then_s = datetime.fromisoformat(sent_at).timestamp() if _TIME.fullmatch(sent_at) else None
    except ValueError:
        then_s = None
    if then_s is None:
        raise _mismatch("x-amz-date must look like 20261124T235959Z")
    late_s = now_s - then_s
    if abs(late_s) > SKEW_S:
        now = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
        what = "expired" if late_s > 0 else "not yet current"
        raise AccessRefused(
            "InvalidSignatureException",
            f"Signature {what}: {sent_at} is more than 15 min. from {now}",
        )


def _signed_path(path: str) -> str:
    """The path in the signed form: as sent, but with single slashes, and encoded again.

    >>> _signed_path("/personalize//%20x/")
    '/personalize/%2520x/'
    """
    parts = [part for part in path.split("/") if part]
    end = "/" if path.endswith("/") and parts else ""
    return quote(f"/{'/'.join(parts)}{end}", safe="/~")


def _sorted_query(query: str) -> str:
    """The query string in the signed form: as sent, in the order of its names."""
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, value in pairs)


@lru_cache(maxsize=64)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """The signing key of a day, region and service; cached, as a client uses it all day."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode("latin-1"), "sha256")
    return key


def _mismatch(hint: str) -> AccessRefused:
    return AccessRefused(
        "InvalidSignatureException",
        f"The request signature we calculated does not match the signature you provided; {hint}.",
    )
