"""The forwarding to Amazon Personalize over HTTP: what became of the events, by tracker."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.dependencies import Services
from api.openapi import documented
from api.schemas import Forwarding, TrackerStatus, json_response
from models.state.forwarding_ledger import tracker_status

router = APIRouter()


@router.get("/forwarding", **documented(Forwarding, "What became of events at AWS"))
async def forwarding(request: Request) -> Response:
    """Each tracker whose events are forwarded, as `recommender status` has it; often there is none.

    Errors of AWS are for operators only: they stand in `recommender status`.
    """
    services: Services = request.app.state.services
    with services.redis_gate:
        told = await tracker_status(
            services.store.redis, services.settings.group, now_s=services.clock()
        )
    trackers = [
        TrackerStatus(
            tracker,
            int(one["forwarded"]),
            int(one["refused"]),
            int(one["waiting"]),
            float(one["oldest_waiting_age_s"]),
        )
        for tracker, one in told.items()
    ]
    return json_response(Forwarding(trackers))
