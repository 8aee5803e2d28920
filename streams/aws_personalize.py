"""Amazon Personalize as the forwarder sees it: one call, its answer, and what an error means."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import boto3.session
import botocore.exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError

from models.errors import NotConfigured
from models.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_personalize_events import PersonalizeEventsClient

MAX_DETAIL_CHARS = 500
RENEW_EVERY_S = 60.0
DEFAULT_REGION = "us-east-1"

THROTTLES = frozenset(
    {
        "LimitExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
DENIALS = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
NOT_THE_EVENTS_FAULT = frozenset({401, 403, 404, 407, 408, 409})
"""Statuses that speak of credentials, address or moment: the same events may pass later."""

TOO_LARGE = 413
"""Whoever says so, saying the same again cannot help."""


class PutEventsAnswer(Enum):
    """What a failed call means for its events."""

    THROTTLED = "throttled"
    FAILED = "failed"
    DENIED = "denied"
    REFUSED = "refused"


class CallFailed(Exception):
    """A PutEvents call did not succeed.

    Attributes
    ----------
    answer
        What that means for its events.
    text
        The error as one bounded line for people, without secrets.
    """

    def __init__(self, answer: PutEventsAnswer, text: str) -> None:
        super().__init__(text)
        self.answer = answer
        self.text = text


def answer_of(error: Exception) -> PutEventsAnswer:
    """What an error of boto3 means for the events of the call."""
    if isinstance(error, boto.ParamValidationError):
        return PutEventsAnswer.REFUSED
    if not isinstance(error, boto.ClientError):
        on_the_way = (boto.HTTPClientError, boto.ConnectionError, ResponseParserError)
        return PutEventsAnswer.FAILED if isinstance(error, on_the_way) else PutEventsAnswer.DENIED
    code = _code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in THROTTLES or status == 429:
        return PutEventsAnswer.THROTTLED
    if code in DENIALS or status in {401, 403}:
        return PutEventsAnswer.DENIED
    # Without a name for the error, it was something on the way that answered, not AWS.
    is_named = code != str(status) or status == TOO_LARGE
    if 400 <= status < 500 and status not in NOT_THE_EVENTS_FAULT and is_named:
        return PutEventsAnswer.REFUSED
    return PutEventsAnswer.FAILED


def describe(error: Exception, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """The error as one line for people, bounded, without secrets.

    A denial is only named: its text may quote the signed request, token included.

    Parameters
    ----------
    names
        What stands for a name, by the name: AWS may quote whom the events are of, and the text is
        kept in logs and the ledger, where no erasure reaches.
    """
    name = _code(error) if isinstance(error, boto.ClientError) else type(error).__name__
    if answer_of(error) is PutEventsAnswer.DENIED:
        return name
    text: object = error
    if isinstance(error, boto.ClientError):
        text = error.response.get("Error", {}).get("Message", "")
    line = re.sub(r"//[^/@\s]*@", "//", " ".join(f"{name}: {_without(str(text), names)}".split()))
    return line[:MAX_DETAIL_CHARS].encode(errors="replace").decode()


def _without(text: str, names: Mapping[str, str]) -> str:
    """The text with something else for each name, where it is not a part of a longer word."""
    for each in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", names[each], text)
    return text


def _names(request: Mapping[str, Any]) -> dict[str, str]:
    """Whom the events of a request are of."""
    return {
        str(request[field]): f"<{field}>" for field in ("sessionId", "userId") if field in request
    }


def _code(error: boto.ClientError) -> str:
    code = error.response.get("Error", {}).get("Code", "Unknown")
    return str(code)[:100].encode(errors="replace").decode()


class AwsTracker:
    """A real event tracker; blocking, safe to call from many threads.

    Address, region and credentials are found as boto3 finds them everywhere. boto3's own
    retries are off: the forwarder's last longer, and keep the order.

    Parameters
    ----------
    settings
        How long an answer may take, and how many calls are under way at once.
    renew_every_s
        After a denial, credentials are looked for afresh if they are older than this.

    Raises
    ------
    NotConfigured
        boto3 does not find its own settings in order.
    """

    def __init__(self, settings: Settings, *, renew_every_s: float = RENEW_EVERY_S) -> None:
        self._renew_every_s = renew_every_s
        self._config = Config(
            connect_timeout=settings.forward_timeout_s,
            read_timeout=settings.forward_timeout_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=settings.forward_parallel,
        )
        self._renewing = threading.Lock()
        try:
            self._renew()
        except (boto.BotoCoreError, ValueError) as error:
            raise NotConfigured(f"boto3 cannot be set up: {error}") from error

    def put(self, request: dict[str, Any]) -> None:
        """Send one PutEvents; returns when AWS has taken it, raises `CallFailed` otherwise."""
        try:
            self._client.put_events(**request)
        except (boto.ClientError, boto.BotoCoreError, ResponseParserError) as error:
            answer = answer_of(error)
            if answer is PutEventsAnswer.DENIED:
                self._renew_if_old()
            raise CallFailed(answer, describe(error, _names(request))) from error

    def _renew_if_old(self) -> None:
        """Look for credentials afresh: a client never sees a file that was rewritten."""
        with self._renewing:
            if time.monotonic() - self._renewed_s > self._renew_every_s:
                # A file in the middle of being rewritten is no reason to lose the old client.
                with contextlib.suppress(boto.BotoCoreError):
                    self._renew()

    def _renew(self) -> None:
        session = boto3.session.Session()
        self._renewed_s = time.monotonic()
        self._client: PersonalizeEventsClient = session.client(
            "personalize-events",
            region_name=session.region_name or DEFAULT_REGION,
            config=self._config,
        )
