"""Routes for operators: liveness, readiness and metrics of the process."""

from __future__ import annotations

import contextlib
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from api.dependencies import Services
from api.openapi import ANY_ERROR, documented
from api.schemas import Health, Readiness, json_response
from models.api_keys import Role
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.operations.stuck_readers import StuckReader, reported

router = APIRouter()


@router.get("/healthz", **documented(Health, "Is the process alive?", errors={}))
async def healthz() -> Response:
    """Answers as long as the process runs."""
    return json_response(Health())


@router.get(
    "/readyz",
    **documented(
        Readiness,
        "Can it do its work?",
        errors={},
        other={503: (Readiness, "Something is missing.")},
    ),
)
async def readyz(request: Request) -> Response:
    """Answers 503 with the names of what is missing: kafka, topics, redis, or memory in Redis.

    `unreadable` names the partitions whose next message cannot be decoded: all others go on, so
    they are no reason for 503. `warnings` are for an operator, though the process works.
    """
    services: Services = request.app.state.services
    missing, warnings = await services.readiness.check()
    stuck: list[StuckReader] = []
    # If Redis is away, `missing` says so.
    with contextlib.suppress(*AWAY_ERRORS):
        store = services.store
        stuck = await reported(store.redis, store.settings.group, now_s=services.clock())
    status: Literal["ok", "missing"] = "missing" if missing else "ok"
    if Role.OPERATE not in request.scope["caller"].roles:
        # Names of servers are for operators; whether it is ready is for every probe.
        return json_response(Readiness(status, [], [], []), 503 if missing else 200)
    answer = Readiness(status, missing, [str(one) for one in stuck], warnings)
    return json_response(answer, 503 if missing else 200)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses=ANY_ERROR,
    summary="Prometheus metrics",
)
async def metrics() -> Response:
    """Metrics of the process in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
