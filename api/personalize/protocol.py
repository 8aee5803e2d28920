"""The protocols of AWS clients: requests are decoded, answers and modelled errors encoded.

Three services share one address. `personalize-events` and `personalize-runtime` use rest-json, and
a path for each operation; `personalize` uses JSON 1.1, and names its operation in a header.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.access.callers import Caller
from api.outages import OUTAGES
from api.personalize.auth import AccessRefused, RequestCheck
from api.personalize.context import PersonalizeContext
from api.personalize.permissions import check_groups, check_role, is_change, targets
from api.personalize.service_model import ServiceOperation, service_operations
from api.schemas import RETRY_AFTER_S
from api.server.refusals import Refusal
from api.server.request_metrics import CLIENT_CLOSED
from models.errors import (
    Forbidden,
    InvalidInput,
    MessageRefused,
    Overloaded,
    ServiceError,
    Unavailable,
)
from models.state.clients.redis_errors import AWAY_ERRORS

LOG = logging.getLogger(__name__)

PREFIX = "/personalize"
"""Path of the three services."""

TARGET = "AmazonPersonalize."
REST, JSON_1_1 = b"application/json", b"application/x-amz-json-1.1"

Operation = Callable[[PersonalizeContext, dict[str, Any]], Awaitable[dict[str, Any]]]
"""An operation: input and output as their shapes describe them, times in seconds.

It raises `ServiceError` for the caller's errors, and `Unavailable` for the service's.
"""

ERROR_CODES = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    403: "AccessDeniedException",
    408: "RequestTimeoutException",
    413: "RequestEntityTooLargeException",
    429: "ThrottlingException",
    CLIENT_CLOSED: "RequestTimeoutException",
    503: "ServiceUnavailableException",
}
"""AWS's common error codes by status, for errors that no operation models."""

WAITS_FOR_KAFKA = frozenset(
    ("PutEvents", "PutItems", "PutUsers", "PutActions", "PutActionInteractions")
)
"""Operations that wait for Kafka, whose gate bounds them; see `GatedPublisher`."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class ApiError(Exception):
    """An error answer: HTTP status, AWS's code and text."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class MatchedRoute(NamedTuple):
    """The operation of a request, in the form of a route, for metrics."""

    path: str


@dataclass
class PersonalizeApp:
    """The Amazon Personalize API as an ASGI application; `BodyLimits` around it bounds bodies.

    Parameters
    ----------
    context
        Resources, dataset groups and services; replaced when the group has moved to other shards.
    check
        Authentication of requests.
    operations
        Implemented operations by name.
    """

    context: PersonalizeContext
    check: RequestCheck
    operations: Mapping[str, Operation]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; every answer, errors included, is in the form of AWS."""
        target: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"x-amz-target":
                target = value
        request_id = str(uuid.uuid4())
        status, headers = 200, [(b"content-type", JSON_1_1 if target is not None else REST)]
        try:
            content = await self._answer(scope, receive, target, request_id)
        except ApiError as error:
            status = error.status
            headers.append((b"x-amzn-errortype", error.code.encode()))
            content = _encode({"__type": error.code, "message": error.message})
            if status in (429, 503):
                headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        headers.append((b"content-length", str(len(content)).encode()))
        headers.append((b"x-amzn-requestid", request_id.encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(
        self, scope: Scope, receive: Receive, target: bytes | None, request_id: str
    ) -> bytes:
        """The body of the answer; raises `ApiError` for an error answer."""
        try:
            body = await _body(receive)
            caller: Caller = scope["caller"]
            if not caller.id:
                # Without an API key, the signature tells who it is.
                caller = self.check(scope, body, self.context.services.clock())
                scope["caller"] = caller
        except HTTPException as error:
            raise ApiError(
                error.status_code, ERROR_CODES[error.status_code], error.detail
            ) from error
        except AccessRefused as refused:
            raise ApiError(refused.status, refused.code, str(refused)) from refused
        operation = _operation_of(scope, target)
        scope["route"] = MatchedRoute(f"{PREFIX} {operation.name}")
        document = _document(body)
        try:
            answer = await self._run(operation, document, scope)
        except ServiceError as error:
            status = operation.statuses.get(error.code, 400)
            raise ApiError(status, error.code, str(error)) from error
        except Forbidden as error:
            raise ApiError(403, ERROR_CODES[403], str(error)) from error
        except MessageRefused as error:
            raise ApiError(400, "InvalidInputException", str(error)) from error
        except Overloaded as error:
            raise ApiError(429, ERROR_CODES[429], str(error)) from error
        except (Unavailable, *AWAY_ERRORS) as error:
            OUTAGES.note(f"unavailable: {error}")
            raise ApiError(503, ERROR_CODES[503], str(error)) from error
        except Exception as error:
            known = {"request_id": request_id}
            LOG.exception("%s: unexpected error", operation.name, extra=known)
            text = "an unexpected error; see the log"
            raise ApiError(500, "InternalFailure", text) from error
        return _encode(answer) if operation.model.output_shape is not None else b""

    async def _run(
        self, operation: ServiceOperation, document: object, scope: Scope
    ) -> dict[str, Any]:
        caller: Caller = scope["caller"]
        check_role(operation.name, caller)
        checked = operation.validate_input(document)
        await check_groups(self.context, operation.name, checked, caller)
        run = self.operations.get(operation.name)
        if run is None:
            raise InvalidInput(f"{operation.name} is not implemented by streaming-recommender")
        # Programs that try it out on an open API do so without Kafka, too.
        if caller.id and is_change(operation.name):
            await self.context.services.audit(scope, operation.name, targets(checked), "")
        if operation.name in WAITS_FOR_KAFKA:
            return await run(self.context, checked)
        with self.context.services.redis_gate:
            return await run(self.context, checked)


@cache
def _by_path() -> Mapping[str, ServiceOperation]:
    return {one.path: one for one in service_operations().values() if one.path}


@cache
def _by_target() -> Mapping[bytes, ServiceOperation]:
    return {
        f"{TARGET}{name}".encode(): one
        for name, one in service_operations().items()
        if not one.path
    }


def _operation_of(scope: Scope, target: bytes | None) -> ServiceOperation:
    """The operation of a request, by its header or its path."""
    # Some clients add their path to an address that ends with a slash: // counts as /.
    path = "/" + scope["path"].removeprefix(PREFIX).lstrip("/")
    if target is None:
        found, status = _by_path().get(path), 404
    else:
        found, status = _by_target().get(target) if path == "/" else None, 400
    if found is None or scope["method"] != "POST":
        text = "no such operation; the Amazon Personalize API is here, for AWS clients"
        raise ApiError(status, "UnknownOperationException", text)
    return found


def refusal_response(refusal: Refusal) -> Response:
    """The answer to a refused request, in the form of AWS."""
    code = ERROR_CODES[refusal.status]
    return Response(
        _encode({"__type": code, "message": refusal.message}),
        refusal.status,
        {
            **(refusal.headers or {}),
            "x-amzn-errortype": code,
            "x-amzn-requestid": str(uuid.uuid4()),
        },
        "application/json",
    )


async def _body(receive: Receive) -> bytes:
    message = await receive()
    parts = [message.get("body", b"")]
    while message.get("more_body"):
        message = await receive()
        parts.append(message.get("body", b""))
    if message["type"] == "http.disconnect":
        raise ApiError(CLIENT_CLOSED, ERROR_CODES[CLIENT_CLOSED], "the client disconnected")
    return b"".join(parts)


def _document(body: bytes) -> object:
    """The body as JSON; an empty one is an empty object."""
    if not body:
        return {}
    try:
        return _decode(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "SerializationException", f"the body is not JSON: {error}") from error
