"""The application: FastAPI, and a fast path for the most frequent routes in front of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access.access_check import (
    PERSONALIZE,
    READ_LIST,
    SEND_EVENTS,
    AccessCheck,
    AccessDenied,
    Need,
    native_need,
)
from api.access.roles import PAGES
from api.openapi import openapi_document
from api.personalize.protocol import PREFIX, refusal_response
from api.routes.events import EVENTS, PostRoute
from api.routes.recommendations import FAST_ROUTES, AnswerRoute
from api.schemas import error_response
from api.server.origins import Origins
from api.server.refusals import REFUSED, Refusal
from api.server.request_metrics import count_request

METHODS = ("DELETE", "GET", "POST", "PUT")

JSON = (b"content-type", b"application/json")
NO_STORE = (b"cache-control", b"no-store")

TracedServing = Callable[..., Awaitable[None]]
"""`api.server.request_traces.serve_traced` of the process' traces."""


class FastPathApp(FastAPI):
    """The application: answers `FAST_ROUTES` and events itself, and leaves the rest to FastAPI.

    FastAPI's and Starlette's layers take as long as half a recommendation, and these routes need
    none of them: they check query string or body by their own schema. Requests of other origins
    take FastAPI's way, whose CORS middleware sets their headers; hosts and origins that are not
    allowed are refused first.

    `state.limited` is an application that bounds bodies and calls `answer_post`;
    `state.personalize` is the Amazon Personalize API, which sets headers of other origins itself.

    Attributes
    ----------
    serve_traced
        Calls an application for a request that is not refused, and traces it; None for no traces.
    """

    serve_traced: TracedServing | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's start and end."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await super().__call__(scope, receive, send)
            # Nothing here answers websockets: without an answer the server refuses them.
            return
        headers = dict(scope["headers"])
        method, path = scope["method"], scope["path"]
        if method == "HEAD":
            # The answer of GET, without its body.
            scope, send, method = {**scope, "method": "GET"}, _without_body(send), "GET"
        answering = FAST_ROUTES.get(path) if method == "GET" else None
        is_events = method == "POST" and path == EVENTS.path
        need = READ_LIST if answering else SEND_EVENTS if is_events else None
        refusal = await self._refusal(need, scope, headers)
        if refusal is not None:
            await self._refuse(refusal, scope, receive, send)
            return
        if method == "OPTIONS" and not self._is_preflight(headers):
            await self._answer_options(scope, receive, send)
            return
        app = self._route(answering, scope, headers)
        if self.serve_traced is None:
            await app(scope, receive, send)
        else:
            await self.serve_traced(app, scope, receive, send, headers=headers)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the schemas of requests and responses."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi_document(super().openapi())
        return self.openapi_schema

    def _route(
        self, answering: AnswerRoute | None, scope: Scope, headers: dict[bytes, bytes]
    ) -> ASGIApp:
        """Application that serves a request; `answering` is that of a fast route."""
        path = scope["path"]
        if b"origin" in headers and not is_below(path, PREFIX):
            return super().__call__
        if answering is not None:
            scope["route"] = FastRoute(path)
            return partial(self._answer_fast, answering)
        if scope["method"] == "POST" and path == EVENTS.path:
            scope["route"] = EVENTS
            app: ASGIApp = self.state.limited
        elif is_below(path, PREFIX):
            app = self.state.personalize
        else:
            app = super().__call__
        return app

    async def _answer_fast(
        self, answering: AnswerRoute, scope: Scope, receive: Receive, send: Send
    ) -> None:
        started, status = time.perf_counter(), 500
        try:
            body = await answering(self.state.services, scope["query_string"], receive)
        except Exception as error:  # noqa: BLE001  answered by its handler, as in FastAPI
            status = await self._answer_error(error, scope, receive, send)
        else:
            status = 200
            await _send_json(200, body, send)
        finally:
            count_request(scope["path"], status, started=started)

    async def answer_post(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of the route in its scope, a `PostRoute`, whose body is bounded."""
        route: PostRoute = scope["route"]
        try:
            body = await Request(scope, receive).body()
            answer = await route.answering(self.state.services, body, scope["caller"])
        except Exception as error:  # noqa: BLE001  answered by its handler, as in FastAPI
            await self._answer_error(error, scope, receive, send)
        else:
            await _send_json(route.status, answer, send)

    async def _answer_error(
        self, error: Exception, scope: Scope, receive: Receive, send: Send
    ) -> int:
        response: Response = await self._handler(error)(Request(scope), error)
        await response(scope, receive, send)
        return response.status_code

    def _handler(self, error: Exception) -> Callable[[Request, Exception], Any]:
        """The handler registered for the error's class, or for its nearest base class."""
        return next(
            self.exception_handlers[kind]
            for kind in type(error).__mro__
            if kind in self.exception_handlers
        )

    async def _refusal(
        self, need: Need | None, scope: Scope, headers: dict[bytes, bytes]
    ) -> Refusal | None:
        """The refusal of a request; None if it is allowed, and its caller is in the scope then.

        `need` is that of a route of the fast path.
        """
        origins: Origins = self.state.origins
        access: AccessCheck = self.state.access
        if b"origin" in headers:
            await access.ready()
        refusal = origins.refusal(scope["method"], headers)
        if refusal is not None or scope["method"] == "OPTIONS":
            return refusal
        try:
            if need is None:
                is_aws = is_below(scope["path"], PREFIX)
                need = PERSONALIZE if is_aws else native_need(self.router, scope)
            scope["caller"] = await access.admit(need, scope, headers)
        except AccessDenied as denied:
            return denied.refusal
        return None

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        REFUSED.labels(refusal.kind.partition("_")[0]).inc()
        is_aws = is_below(scope["path"], PREFIX)
        if refusal.status == 401 and _is_of_person(scope):
            # Relative, because a proxy may serve this under another path.
            target = f"login?next={quote(scope['path'], safe='')}"
            refusal = refusal._replace(status=303, headers={"location": target})
        response = refusal_response(refusal) if is_aws else error_response(*refusal)
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        if origin is not None and self.state.origins.allows_cross_origin(origin):
            # A page reads why, and when to try again, only with the headers of CORS.
            response.headers["access-control-allow-origin"] = origin.decode("latin-1")
            response.headers["access-control-expose-headers"] = "retry-after, x-amzn-errortype"
            response.headers["vary"] = "Origin"
        await response(scope, receive, send)
        count_request("none", refusal.status, started=started)

    def _is_preflight(self, headers: dict[bytes, bytes]) -> bool:
        return b"origin" in headers and b"access-control-request-method" in headers

    async def _answer_options(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        methods = allowed_methods(self, scope)
        if methods:
            response = Response(status_code=204, headers={"allow": methods})
        else:
            response = error_response(404, "not_found", "Not Found")
        await response(scope, receive, send)
        count_request("none", response.status_code, started=started)


class FastRoute(NamedTuple):
    """A route of the fast path, as its requests' scope names it."""

    path: str


def _is_of_person(scope: Scope) -> bool:
    """True for a request of a page by a browser, which a person can log in with."""
    accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return scope["method"] == "GET" and scope["path"] in PAGES and b"text/html" in accepted


def allowed_methods(app: FastAPI, scope: Scope) -> str:
    """Methods of a path, in the form of the Allow header; empty for an unknown path."""
    if scope["path"] == "*":
        return ", ".join(sorted((*METHODS, "HEAD", "OPTIONS")))
    if is_below(scope["path"], PREFIX):
        return "OPTIONS, POST"
    methods = {
        method
        for method in METHODS
        for route in app.router.routes
        if route.matches({**scope, "method": method})[0] is Match.FULL
    }
    if not methods:
        return ""
    return ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))


def is_below(path: str, prefix: str) -> bool:
    """True if a path is the prefix, or below it.

    >>> is_below("/personalize/events", "/personalize"), is_below("/personal", "/personalize")
    (True, False)
    """
    return path == prefix or path.startswith(f"{prefix}/")


async def _send_json(status: int, body: bytes, send: Send) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send(
        {"type": "http.response.start", "status": status, "headers": [NO_STORE, length, JSON]}
    )
    await send({"type": "http.response.body", "body": body})


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head
