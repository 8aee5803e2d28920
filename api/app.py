"""The HTTP application: wires routes, Amazon Personalize's API, limits and error handlers."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import login, oidc_login
from api.access.access_check import AccessCheck
from api.access.key_table import KeyTable
from api.dependencies import (
    EventPublisher,
    GatedPublisher,
    KafkaOperations,
    ReadinessCheck,
    Services,
)
from api.docs_page import serve_reference
from api.event_tail import EventTail
from api.fast_path import FastPathApp, TracedServing, allowed_methods
from api.impressions import ImpressionLog
from api.layout_watch import watching_layout
from api.live_figures import LiveFeed
from api.outages import OUTAGES
from api.personalize.auth import request_check
from api.personalize.context import PersonalizeContext
from api.personalize.inference_request import check_campaigns
from api.personalize.operations import OPERATIONS
from api.personalize.protocol import PersonalizeApp
from api.personalize.saved_filters import RegistryFilters
from api.read_your_writes import ReadYourWrites
from api.routes import events, item_batches, metadata, recommendations
from api.routes.merchandising import experiments, filter_routes, outcomes, placements, segments
from api.routes.operations import (
    api_keys,
    audit,
    dead_letters,
    effective_settings,
    event_paths,
    figures,
    forwarding,
    health,
    live,
)  # fmt: skip
from api.routes.users import transparency, user_exports, users
from api.schemas import error_response
from api.served_log import ServedLog
from api.server.admission import Budget, Gate
from api.server.body_limits import BodyLimits
from api.server.origins import Origins
from api.server.request_metrics import CLIENT_CLOSED
from api.web_pages import serve_pages
from models.errors import (
    Forbidden,
    InvalidEvent,
    InvalidRecord,
    InvalidRequest,
    InvalidSetting,
    InvalidToken,
    MessageRefused,
    NeedsOneShard,
    Overloaded,
    TooManyWaiting,
    Unavailable,
)
from models.extras import require_extra
from models.personalize.resources.registry import Registry
from models.ranking.challengers import ServingChallengers
from models.serving.merchandising.experiments import ExperimentCache
from models.serving.merchandising.placements import PlacementCache
from models.serving.merchandising.segments import Segments
from models.serving.recommenders import Recommenders
from models.settings import Settings
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.reached_marks import field_of_kind, reached_marks
from models.state.store import Store
from models.state.tenants import Tenants
from models.traces import traces_of

if TYPE_CHECKING:
    from api.access.oidc_provider import OidcProvider
    from api.shadow_comparison import ShadowComparison
    from models.spans import Traces

MAX_AUDIT_READERS = 2
"""Requests that read the audit log at once; each has a consumer of its own."""

LOG = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    store: Store,
    publisher: EventPublisher,
    *,
    clock: Callable[[], float] = time.time,
    kafka: KafkaOperations | None = None,
    challengers: ServingChallengers | None = None,
) -> FastAPI:
    """The application; it opens no connection before its first request.

    Without `kafka` the routes of dead letters and of the tail of events answer 503; without
    `challengers` the built-in rankers serve.
    """
    traces = traces_of(settings, "api")
    oidc = _oidc_provider(settings)
    tenants = Tenants(store.redis, settings)
    recommenders = Recommenders(tenants, hears_changes=True, challengers=challengers)
    filters = RegistryFilters(settings.group)
    redis_gate = Gate(settings.max_answering, "answers", "Redis")
    kafka_gate = Gate(settings.max_publishing, "events", "Kafka")
    services = Services(
        settings=settings,
        store=store,
        recommender=recommenders.of(settings.group),
        tenants=tenants,
        publisher=GatedPublisher(publisher, kafka_gate, Gate(MAX_AUDIT_READERS, "audit", "Kafka")),
        redis_gate=redis_gate,
        readiness=ReadinessCheck(publisher, store),
        read_your_writes=ReadYourWrites(
            reached_marks(store),
            publisher.incarnations,
            most=settings.after_max_waiting,
            field_of=field_of_kind(store),
        ),
        impressions=ImpressionLog(clock),
        live=LiveFeed(store, clock, most=settings.live_max_listeners),
        placements=PlacementCache(store),
        segments=Segments(recommenders.of(settings.group)),
        filters=filters,
        experiments=ExperimentCache(store),
        clock=clock,
        new_id=_ids().__next__,
        shadow=_shadow_comparison(settings),
        kafka=kafka,
        tail=EventTail(kafka.tail, most=settings.live_max_listeners) if kafka else None,
        served_log=ServedLog(publisher.put_served, clock) if settings.outcomes else None,
    )

    check_campaigns(settings)
    context = PersonalizeContext(Registry(store.redis, settings), tenants, recommenders, services)
    filters.work_in(context)
    of_aws = PersonalizeApp(context, request_check(settings), OPERATIONS)

    def use(other: PersonalizeContext) -> None:
        of_aws.context = other
        filters.work_in(other)
        app.state.services = other.services

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            figures.own_figures(store, clock),
            watching_layout(context, use, challengers),
        ):
            yield
        await services.close()
        if oidc is not None:
            await oidc.close()
        await publisher.close()
        await of_aws.context.recommenders.close()
        await store.close()
        if traces is not None:
            await asyncio.to_thread(traces.close)

    app = FastPathApp(
        title="streaming-recommender",
        summary="Recommendations that know the last click.",
        version=version("streaming-recommender"),
        lifespan=lifespan,
        # FastAPI's pages load scripts from other sites; that of `serve_reference` does not.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        # FastAPI's own would record the query, which names the user; and they know no fast path.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.serve_traced = _traced_serving(traces)
    app.state.services = services
    app.state.gates = {
        **{("GET", path): redis_gate for path in recommendations.FAST_ROUTES},
        ("POST", events.EVENTS.path): kafka_gate,
    }
    keys = KeyTable(store.redis, now_s=clock) if settings.requires_keys else None
    access = AccessCheck(keys, settings.group, now_s=clock)
    app.state.access = access
    app.state.oidc = oidc
    origins = Origins(settings, access.origins)
    app.state.origins = origins
    _add_routes(app)
    app.add_middleware(
        AllowedOriginsCors,
        allow_origins=settings.cors_origins,
        allows=origins.allows_cross_origin,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["content-type", "authorization", "x-api-key"],
        expose_headers=["retry-after"],
    )
    # AWS clients send headers of their own, and read x-amzn-errortype.
    personalize: ASGIApp = AllowedOriginsCors(
        of_aws,
        allow_origins=settings.cors_origins,
        allows=origins.allows_cross_origin,
        allow_methods=["POST"],
        allow_headers=["*"],
        expose_headers=["retry-after", "x-amzn-errortype", "x-amzn-requestid"],
    )
    budget, timeout_s = Budget(settings.max_bodies_bytes), settings.body_timeout_s
    most = settings.max_body_bytes
    longer = dict.fromkeys(("/items", "/users"), max(most, metadata.MAX_BODY_BYTES))
    app.add_middleware(
        BodyLimits,
        max_body_bytes=most,
        timeout_s=timeout_s,
        budget=budget,
        longer=longer | {item_batches.PATH: settings.max_batch_body_bytes},
        streamed=frozenset((item_batches.PATH,)),
    )
    app.state.limited = BodyLimits(
        app.answer_post, max_body_bytes=most, timeout_s=timeout_s, budget=budget
    )
    most = settings.personalize_max_body_bytes
    app.state.personalize = BodyLimits(
        personalize, max_body_bytes=most, timeout_s=timeout_s, budget=budget
    )
    return app


def _traced_serving(traces: Traces | None) -> TracedServing | None:
    if traces is None:
        return None
    from api.server.request_traces import serve_traced  # noqa: PLC0415  it loads an extra

    return partial(serve_traced, traces)


def _shadow_comparison(settings: Settings) -> ShadowComparison | None:
    """The comparison with a campaign of Amazon Personalize, if one is set."""
    if not settings.shadow_campaign_arn:
        return None
    from api.shadow_comparison import ShadowComparison  # noqa: PLC0415  loads boto3

    return ShadowComparison(settings)


def _add_routes(app: FastPathApp) -> None:
    for routes in (
        recommendations, events, event_paths, metadata, item_batches, users, user_exports,
        transparency, filter_routes, placements, segments, outcomes, experiments, forwarding,
        live, figures, dead_letters, effective_settings, health, api_keys, audit, login, oidc_login,
    ):  # fmt: skip
        app.include_router(routes.router)
    serve_reference(app)
    serve_pages(app)
    _add_error_handlers(app)


def _oidc_provider(settings: Settings) -> OidcProvider | None:
    if not settings.oidc_issuer:
        return None
    if not settings.requires_keys:
        raise InvalidSetting(
            "RECOMMENDER_OIDC_ISSUER needs RECOMMENDER_ACCESS=keys: without keys nobody logs in"
        )
    require_extra("authlib", "oidc", "RECOMMENDER_OIDC_ISSUER")
    from api.access.oidc_provider import OidcProvider  # noqa: PLC0415  it loads an extra

    return OidcProvider(settings)


def _ids() -> Iterator[str]:
    """Unguessable ids of 32 characters; drawn in blocks, as each system call costs time."""
    while True:
        drawn = secrets.token_hex(4096)
        yield from (drawn[at : at + 32] for at in range(0, len(drawn), 32))


def _add_error_handlers(app: FastAPI) -> None:
    for error, status, kind in (
        (Forbidden, 403, "forbidden"),
        (NeedsOneShard, 501, "needs_one_shard"),
        (InvalidEvent, 400, "invalid_event"),
        (InvalidRecord, 400, "invalid_record"),
        (InvalidRequest, 400, "invalid_request"),
        (InvalidToken, 400, "invalid_token"),
        (TooManyWaiting, 429, "too_many_waiting"),
        (MessageRefused, 400, "refused"),
        (Overloaded, 429, "overloaded"),
        (Unavailable, 503, "unavailable"),
        *((error, 503, "unavailable") for error in AWAY_ERRORS),
    ):
        app.add_exception_handler(error, _handler(status, kind))
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _client_disconnected)
    app.add_exception_handler(Exception, _internal_error)


def _handler(status: int, kind: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(_: Request, error: Exception) -> Response:
        if status >= 500:
            OUTAGES.note(f"{kind}: {error}")
        return error_response(status, kind, str(error))

    return handle


async def _invalid_request(_: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    text = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in problems)
    return error_response(400, "invalid_request", text)


KINDS = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "too_large"}


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = error.status_code
    headers = dict(error.headers or {})
    if status == 405:
        headers["allow"] = allowed_methods(request.app, request.scope)
    kind = "overloaded" if status == 503 else KINDS.get(status, "http_error")
    return error_response(status, kind, str(error.detail), headers)


async def _client_disconnected(request: Request, _: Exception) -> Response:
    """A response that is only counted: its client has disconnected."""
    # The route, not the path, which may name an erased user.
    path = getattr(request.scope.get("route"), "path", "")
    LOG.debug("%s %s: the client disconnected", request.method, path)
    return Response(status_code=CLIENT_CLOSED)


async def _internal_error(_: Request, error: Exception) -> Response:
    request_id = str(uuid.uuid4())
    LOG.error("unexpected error", exc_info=error, extra={"request_id": request_id})
    text = "an unexpected error; see the log"
    return error_response(500, "internal", text, {"x-request-id": request_id})


class AllowedOriginsCors(CORSMiddleware):
    """The headers of CORS, for origins that the settings or a public API key allow."""

    def __init__(
        self,
        app: ASGIApp,
        allows: Callable[[bytes], bool],
        *,
        allow_origins: Sequence[str],
        allow_methods: Sequence[str],
        allow_headers: Sequence[str],
        expose_headers: Sequence[str],
    ) -> None:
        super().__init__(
            app,
            allow_origins=allow_origins,
            allow_methods=allow_methods,
            allow_headers=allow_headers,
            expose_headers=expose_headers,
        )
        self._allows = allows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; one that names no origin is passed on at once."""
        if scope["type"] == "http" and all(name != b"origin" for name, _ in scope["headers"]):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def is_allowed_origin(self, origin: str) -> bool:
        """True if pages of the origin may read answers."""
        return self._allows(origin.encode("latin-1"))
