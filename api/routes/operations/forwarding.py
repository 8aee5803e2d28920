"""Route that shows the forwarding to Amazon Personalize: counts of events by tracker."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.dependencies import Services
from api.openapi import documented
from api.schemas import Forwarding, TrackerStatus, json_response
from models.state.operations.forwarding_ledger import tracker_status

router = APIRouter()


@router.get("/forwarding", **documented(Forwarding, "Forwarded events by tracker"))
async def forwarding(request: Request) -> Response:
    """Counts of each tracker whose events are forwarded, as in `recommender status`.

    Errors of AWS are for operators only: `recommender status` shows them.
    """
    services: Services = request.app.state.services
    with services.redis_gate:
        statuses = await tracker_status(
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
        for tracker, one in statuses.items()
    ]
    return json_response(Forwarding(trackers))
