"""Routes that find events by their id, and follow them: place in Kafka, and whether in effect."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from msgspec import Meta

from api.dependencies import Services
from api.openapi import INVALID_REQUEST_ERROR, SERVER_ERRORS, documented
from api.request_params import AfterParams, parse_query
from api.schemas import EventPath, EventPosition, json_response
from models.errors import Unavailable
from models.kafka_operations import FoundEvents
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


class FindParams(AfterParams, frozen=True, kw_only=True):
    """Query parameters of /events."""

    event_id: Annotated[str, Meta(min_length=1, max_length=256, description="As it was sent.")]


@router.get("/events", **documented(FoundEvents, "Find events by their id", query=FindParams))
async def found_events(request: Request) -> Response:
    """Events of an id among the newest 20,000 messages, each with the token that follows it.

    It takes up to a second of reading Kafka. None is there of an older id, or a refused one. With
    API keys the audit log has an entry of it, without the id: it may tell who the user is.
    """
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], FindParams)
    await services.await_effect(asked, request.receive)
    await services.audit_reading(request.scope, "find_events", [], services.settings.group)
    if services.kafka is None:
        raise Unavailable("this process has no access to the events of Kafka")
    with services.kafka_gate:
        return json_response(await services.kafka.find_events(asked.event_id))
