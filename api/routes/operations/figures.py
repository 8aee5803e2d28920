"""The route of key figures over time, which the worker and the API keep in Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Annotated, get_args

from fastapi import APIRouter, Request, Response
from msgspec import Meta

from api.dependencies import ANSWERS, Services
from api.openapi import documented
from api.request_params import AfterParams, parse_query
from api.schemas import Figures, json_response
from api.server.request_metrics import LATENCY, REQUESTS
from models.background_tasks import end_tasks
from models.key_figures import bucket_totals, counter_total
from models.serving.answers import ServingLevel
from models.state.operations.figure_sums import (
    POINTS,
    STEP_S,
    WRITE_EVERY_S,
    FigureStep,
    FigureWriter,
    read_figures,
)
from models.state.store import Store

router = APIRouter()

LEVELS: tuple[ServingLevel, ...] = get_args(ServingLevel)


class FiguresParams(AfterParams, frozen=True, kw_only=True):
    """Query parameters of /figures."""

    step: Annotated[FigureStep, Meta(description="Length of time of one point.")] = "minute"
    points: Annotated[
        int,
        Meta(ge=1, le=max(POINTS.values()), description="Newest points; of minutes there are 60."),
    ] = 60


@router.get("/figures", **documented(Figures, "Key figures over time", query=FiguresParams))
async def figures(request: Request) -> Response:
    """Rates, freshness, lag, measured quality and memory: minutes of an hour, hours of 30 days.

    They are the sums of all workers and processes of the API, up to five seconds ago.
    """
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], FiguresParams)
    await services.await_effect(asked, request.receive)
    with services.redis_gate:
        n = min(asked.points, POINTS[asked.step])
        points = await read_figures(services.store, asked.step, n, now_s=services.clock())
    return json_response(Figures(asked.step, STEP_S[asked.step], points))


@contextlib.asynccontextmanager
async def own_figures(store: Store, clock: Callable[[], float]) -> AsyncIterator[None]:
    """Adds what this process has answered to the key figures, meanwhile."""
    writer = FigureWriter(store, "api_s", _totals, now_s=clock())

    async def write() -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await writer.write(now_s=clock())

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        await end_tasks(task)


def _totals() -> dict[str, float]:
    requests, answers = REQUESTS.collect(), list(ANSWERS.collect())
    return {
        # An answer without end lasts for as long as somebody listens.
        **bucket_totals(
            "answer", LATENCY.collect(), lambda labels: not labels["route"].startswith("/live")
        ),
        **{f"level/{level}": counter_total(answers, "level", level) for level in LEVELS},
        "requests": counter_total(requests, "status", ""),
        "failed": counter_total(requests, "status", "5"),
    }
