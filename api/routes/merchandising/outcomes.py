"""Route that reports what became of served lists."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from msgspec import Meta

from api.dependencies import Services
from api.openapi import documented
from api.request_params import AfterParams, parse_query
from api.schemas import json_response
from models.errors import InvalidRequest
from models.state.outcomes.outcome_report import OutcomeReport, outcome_report
from models.state.outcomes.served_outcomes import REASONS, Dimension, ListsOf

router = APIRouter()

MAX_DAYS = 400


class OutcomeParams(AfterParams, frozen=True, kw_only=True):
    """Query parameters of /outcomes."""

    by: Annotated[Dimension, Meta(description="What the rows are of.")] = "placement"
    placement: Annotated[
        Annotated[str, Meta(max_length=128)] | None,
        Meta(description="Lists of this placement alone."),
    ] = None
    arm: Annotated[
        Annotated[str, Meta(max_length=128)] | None,
        Meta(description="Lists of this arm of an experiment alone."),
    ] = None
    recipe: Annotated[
        Annotated[str, Meta(max_length=128)] | None, Meta(description="Lists of this recipe alone.")
    ] = None
    reason: Annotated[
        Annotated[str, Meta(extra_json_schema={"enum": REASONS})] | None,
        Meta(description="Items with this reason alone; lists are not counted then."),
    ] = None
    days: Annotated[
        float,
        Meta(gt=0, le=MAX_DAYS, description="Lists of the last so many days, in whole hours."),
    ] = 1.0


@router.get("/outcomes", **documented(OutcomeReport, "What became of lists", query=OutcomeParams))
async def outcomes(request: Request) -> Response:
    """Impressions, clicks, conversions and value of lists, by one dimension and over time."""
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], OutcomeParams)
    if asked.reason not in (None, *REASONS):
        raise InvalidRequest(f"reason is one of {', '.join(REASONS)}")
    await services.await_effect(asked, request.receive)
    now_s = services.clock()
    with services.redis_gate:
        report = await outcome_report(
            services.store,
            asked.by,
            since_s=now_s - asked.days * 86400,
            until_s=now_s,
            of=ListsOf(asked.placement, asked.arm, asked.recipe, asked.reason),
        )
    return json_response(report)
