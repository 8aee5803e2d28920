"""Routes that say what decides about recommendations, and what was shown."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.dependencies import Services
from api.openapi import documented
from api.schemas import json_response
from models.serving.exposure import Exposure, exposure
from models.serving.transparency import Transparency, transparency

router = APIRouter()


@router.get(
    "/transparency", **documented(Transparency, "What decides about recommendations, in words")
)
async def main_parameters(request: Request) -> Response:
    """Main parameters and their weights, measured on the model that serves now.

    For the terms and the pages of a platform that Regulation (EU) 2022/2065 (Digital Services Act)
    applies to, articles 27 and 38.
    """
    services: Services = request.app.state.services
    now_s = services.clock()
    with services.redis_gate:
        shared = await services.recommender.cache.refresh(now_s)
        columns = await services.store.context_columns()
    return json_response(transparency(services.settings, shared, columns, now_s=now_s))


@router.get("/exposure", **documented(Exposure, "What served lists showed"))
async def shown_items(request: Request) -> Response:
    """Coverage of the catalogue, share of the popular items and novelty of lists served lately."""
    services: Services = request.app.state.services
    with services.redis_gate:
        found = await exposure(services.recommender.cache, now_s=services.clock())
    return json_response(found)
