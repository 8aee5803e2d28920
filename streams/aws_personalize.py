"""Amazon Personalize as an event sink: PutEvents calls, and the meaning of its errors."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import boto3.session
import botocore.exceptions as boto
import msgspec
from botocore.config import Config
from botocore.parsers import ResponseParserError

from models.errors import NotConfigured
from models.events import Event
from models.settings import Settings
from streams.event_sinks import EventBatch, SendFailed, SinkAnswer

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
"""Statuses about credentials, address or time: the same events may pass later."""

TOO_LARGE = 413
"""Too many bytes for AWS or any server on the way: sending the same again cannot help."""


def answer_of(error: Exception) -> SinkAnswer:
    """Meaning of an error of boto3 for the events of the call."""
    if isinstance(error, boto.ParamValidationError):
        return SinkAnswer.REFUSED
    if not isinstance(error, boto.ClientError):
        on_the_way = (boto.HTTPClientError, boto.ConnectionError, ResponseParserError)
        return SinkAnswer.FAILED if isinstance(error, on_the_way) else SinkAnswer.DENIED
    code = _code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in THROTTLES or status == 429:
        return SinkAnswer.THROTTLED
    if code in DENIALS or status in {401, 403}:
        return SinkAnswer.DENIED
    # An error without a name was answered by a server on the way, not by AWS.
    is_named = code != str(status) or status == TOO_LARGE
    if 400 <= status < 500 and status not in NOT_THE_EVENTS_FAULT and is_named:
        return SinkAnswer.REFUSED
    return SinkAnswer.FAILED


def describe(error: Exception, names: Mapping[str, str] = MappingProxyType({})) -> str:
    """The error as one bounded line, without secrets.

    A denial is only named: its text may quote the signed request, token included.

    Parameters
    ----------
    names
        Placeholders by user or session id: AWS may quote these, and the text is kept in logs and
        the ledger, which no erasure reaches.
    """
    name = _code(error) if isinstance(error, boto.ClientError) else type(error).__name__
    if answer_of(error) is SinkAnswer.DENIED:
        return name
    text: object = error
    if isinstance(error, boto.ClientError):
        text = error.response.get("Error", {}).get("Message", "")
    line = re.sub(r"//[^/@\s]*@", "//", " ".join(f"{name}: {_without(str(text), names)}".split()))
    return line[:MAX_DETAIL_CHARS].encode(errors="replace").decode()


def _without(text: str, names: Mapping[str, str]) -> str:
    """The text with a placeholder for each name, where it is not a part of a longer word."""
    for each in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", names[each], text)
    return text


def _placeholders(batch: EventBatch) -> dict[str, str]:
    """Placeholders of the ids of a batch's session and user."""
    found = {batch.session_id: "<sessionId>"}
    return found | ({batch.user_id: "<userId>"} if batch.user_id else {})


def _code(error: boto.ClientError) -> str:
    code = error.response.get("Error", {}).get("Code", "Unknown")
    return str(code)[:100].encode(errors="replace").decode()


def put_events_parameters(
    batch: EventBatch, without_properties: Collection[str] = ()
) -> dict[str, Any]:
    """A batch as boto3's `put_events` takes it; absent members are left out.

    Parameters
    ----------
    without_properties
        Keys of `properties` that are left out; `*`: all of them.

    Examples
    --------
    >>> sorted(put_events_parameters(EventBatch("tracker", "s", None, [Event("click", 1.5)])))
    ['eventList', 'sessionId', 'trackingId']
    """
    request: dict[str, Any] = {
        "trackingId": batch.tracking_id,
        "sessionId": batch.session_id,
        "eventList": [_event_parameters(event, without_properties) for event in batch.events],
    }
    return request | ({"userId": batch.user_id} if batch.user_id else {})


def _event_parameters(event: Event, without_properties: Collection[str]) -> dict[str, Any]:
    members: dict[str, Any] = msgspec.to_builtins(event)
    # boto3 would convert a number by way of local time.
    members["sentAt"] = datetime.fromtimestamp(event.sent_at, UTC)
    properties = event.properties
    if properties is not None and without_properties:
        # A text was validated as a JSON object when the event was accepted.
        named = msgspec.json.decode(properties) if isinstance(properties, str) else properties
        is_all = "*" in without_properties
        properties = {k: v for k, v in named.items() if not is_all and k not in without_properties}
    if isinstance(properties, dict):
        members["properties"] = msgspec.json.encode(properties).decode()
    if not properties:
        members.pop("properties", None)
    return members


class AwsTracker:
    """Event trackers of Amazon Personalize: an `EventSink`; safe to call from many threads.

    Address, region and credentials are found as boto3 finds them everywhere. boto3's own retries
    are off: the forwarder's last longer, and keep the order.

    Parameters
    ----------
    settings
        Timeout and parallelism of calls, and the properties that are left out.
    renew_every_s
        After a denial, credentials are looked up again if they are older than this.

    Raises
    ------
    NotConfigured
        boto3's own settings are not in order.
    """

    def __init__(self, settings: Settings, *, renew_every_s: float = RENEW_EVERY_S) -> None:
        self._renew_every_s = renew_every_s
        self._without_properties = settings.forward_without_properties
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

    def send(self, batch: EventBatch) -> None:
        """Send one PutEvents; returns when AWS has taken it, raises `SendFailed` otherwise."""
        try:
            self._client.put_events(**put_events_parameters(batch, self._without_properties))
        except (boto.ClientError, boto.BotoCoreError, ResponseParserError) as error:
            answer = answer_of(error)
            if answer is SinkAnswer.DENIED:
                self._renew_if_old()
            raise SendFailed(answer, describe(error, _placeholders(batch))) from error

    def _renew_if_old(self) -> None:
        """Look up credentials again: a client does not notice that their file was rewritten."""
        with self._renewing:
            if time.monotonic() - self._renewed_s > self._renew_every_s:
                # The old client stays if the file is just being rewritten.
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
