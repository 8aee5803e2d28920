"""The HTTP application, made by a function; everything it needs is handed to it."""

from __future__ import annotations

import gc
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from importlib import metadata
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import forwarding, records, routes
from api.answers import error_response
from api.effects import Effects
from api.front import Front
from api.impressions import Impressions
from api.personalize.auth import check_of
from api.personalize.context import Context
from api.personalize.operations import OPERATIONS
from api.personalize.shapes import described
from api.personalize.targets import check_campaigns
from api.personalize.wire import PREFIX, Wire
from api.reference_page import serve_reference
from api.services import Kafka, Services
from api.shadow import Shadow
from api.traffic import count
from models.errors import (
    InvalidEvent,
    InvalidRecord,
    InvalidRequest,
    InvalidToken,
    MessageRefused,
    TooManyWaiting,
    Unavailable,
)
from models.resources import Resources
from models.settings import Settings
from models.store import CONNECTION_ERRORS, Store
from models.tenants import Tenants

LOG = logging.getLogger(__name__)

DRAINED = 16
"""Times the largest body that is read of one too large, before the connection is cut."""

PAGE = files("api").joinpath("page.html").read_bytes()


def create_app(
    settings: Settings, store: Store, kafka: Kafka, *, clock: Callable[[], float] = time.time
) -> FastAPI:
    """The application; connects to nothing before its first request."""
    tenants = Tenants(store.redis, settings)
    services = Services(
        settings=settings,
        store=store,
        recommender=tenants.recommender(settings.group),
        tenants=tenants,
        kafka=kafka,
        effects=Effects(store, kafka.incarnations, most=settings.after_max_waiting),
        impressions=Impressions(),
        clock=clock,
        new_id=_ids().__next__,
        shadow=Shadow(settings) if settings.shadow_campaign_arn else None,
    )

    check_campaigns(settings)
    context = Context(Resources(store.redis, settings), tenants, services)
    personalize: ASGIApp = Wire(context, check_of(settings), OPERATIONS)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        described()
        # What has been loaded stays: going through it again and again would cost tens of
        # milliseconds in the middle of a request.
        gc.collect()
        gc.freeze()
        yield
        gc.unfreeze()
        await services.effects.close()
        await services.impressions.close()
        if services.shadow is not None:
            await services.shadow.close()
        await tenants.close()
        await store.redis.aclose()

    app = Front(
        title="streaming-recommender",
        summary="Recommendations that know the last click.",
        version=metadata.version("streaming-recommender"),
        lifespan=lifespan,
        # Their pages load scripts from elsewhere; `serve_reference` has one that does not.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    app.include_router(routes.router)
    app.include_router(records.router)
    app.include_router(forwarding.router)
    serve_reference(app)
    app.get("/", include_in_schema=False)(page)
    for error, status, kind in (
        (InvalidEvent, 400, "invalid_event"),
        (InvalidRecord, 400, "invalid_record"),
        (InvalidRequest, 400, "invalid_request"),
        (InvalidToken, 400, "invalid_token"),
        (TooManyWaiting, 429, "too_many_waiting"),
        (MessageRefused, 400, "refused"),
        (Unavailable, 503, "unavailable"),
        *((error, 503, "unavailable") for error in CONNECTION_ERRORS),
    ):
        app.add_exception_handler(error, _handler(status, kind))
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["content-type"],
        )
        # AWS clients send headers of their own, and read one that only the wire has.
        personalize = CORSMiddleware(
            personalize,
            allow_origins=settings.cors_origins,
            allow_methods=["POST"],
            allow_headers=["*"],
            expose_headers=["x-amzn-errortype", "x-amzn-requestid"],
        )
    most = settings.max_body_bytes
    longer = dict.fromkeys(("/items", "/users"), max(most, records.MAX_BODY_BYTES))
    app.add_middleware(Edge, max_body_bytes=most, longer=longer)
    most = settings.personalize_max_body_bytes
    app.add_middleware(Beside, path=PREFIX, other=Edge(personalize, max_body_bytes=most))
    return app


def _ids() -> Iterator[str]:
    """Unguessable ids of 32 characters: asking the system for one at a time takes longer."""
    while True:
        drawn = secrets.token_hex(4096)
        yield from (drawn[at : at + 32] for at in range(0, len(drawn), 32))


async def page() -> Response:
    """The live page."""
    return Response(PAGE, media_type="text/html", headers=PAGE_HEADERS)


PAGE_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'self'; img-src data:; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


def _handler(status: int, kind: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(_: Request, error: Exception) -> Response:
        if status >= 500:
            LOG.warning("%s: %s", kind, error)
        return error_response(status, kind, str(error))

    return handle


async def _invalid_request(_: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    text = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
    return error_response(400, "invalid_request", text)


async def _http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    kind = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status, "http_error")
    detail = error.detail if isinstance(error, HTTPException) else ""
    return error_response(status, kind, str(detail))


async def _internal_error(_: Request, error: Exception) -> Response:
    LOG.error("unexpected error", exc_info=error)
    return error_response(500, "internal", "an unexpected error; the log has it")


class Beside:
    """Serves one path, and all below it, from another application."""

    def __init__(self, app: ASGIApp, *, path: str, other: ASGIApp) -> None:
        self._app = app
        self._path = path
        self._other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        asked = scope.get("path", "")
        is_there = asked == self._path or asked.startswith(f"{self._path}/")
        await (self._other if is_there else self._app)(scope, receive, send)


class Edge:
    """Bounds request bodies, and counts and times every request by its route.

    Paths among `longer` have bounds of their own.
    """

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, longer: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._longer = longer or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, received, status = time.perf_counter(), 0, 500
        most = self._longer.get(scope["path"], self._max_body_bytes)

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received <= most:
                return message
            # Reading on for a while lets the sender finish, and so hear what is wrong.
            while message.get("more_body") and received <= DRAINED * most:
                message = await receive()
                received += len(message.get("body", b""))
            raise HTTPException(413, f"a body may have {most} bytes")

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, bounded, noted)
        finally:
            count(getattr(scope.get("route"), "path", "none"), status, started=started)
