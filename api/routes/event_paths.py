"""The route that follows accepted events: their place in Kafka, and whether they are in effect."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api.dependencies import Services
from api.openapi import INVALID_REQUEST_ERROR, SERVER_ERRORS, documented
from api.schemas import EventPath, EventPosition, json_response
from models.tokens import MAX_TOKEN_CHARACTERS, parse_token

router = APIRouter()


@router.get(
    "/events/{after}",
    **documented(EventPath, "Follow accepted events", errors=INVALID_REQUEST_ERROR | SERVER_ERRORS),
)
async def event_path(
    request: Request, after: Annotated[str, Path(min_length=1, max_length=MAX_TOKEN_CHARACTERS)]
) -> Response:
    """Waits, as long as ?after= does, until the events of a token are in effect.

    The token is that of POST /events. It names no user, and neither does the answer.
    """
    services: Services = request.app.state.services
    positions = [EventPosition(one.kind, one.partition, one.offset) for one in parse_token(after)]
    started_s = time.perf_counter()
    reached = await services.read_your_writes.wait(
        after, wait_s=services.settings.after_timeout_s, receive=request.receive
    )
    waited_ms = round((time.perf_counter() - started_s) * 1000, 3)
    return json_response(EventPath(positions, reached, waited_ms))
