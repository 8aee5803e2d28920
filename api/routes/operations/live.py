"""Routes of server-sent events: live figures, and events as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.dependencies import Services
from api.openapi import ANY_ERROR, SERVER_ERRORS, described_errors, parameters, reference
from api.request_params import AfterParams, parse_query
from api.schemas import LiveFigures
from api.server.uvicorn_protocol import ENDLESS
from models.audit_entries import pseudonym
from models.background_tasks import end_tasks
from models.errors import Unavailable
from models.kafka_operations import TailedEvent, TailedEvents
from models.serving.merchandising.rule_members import IdParam

router = APIRouter()


class EventStream(Response):
    """An answer of server-sent events that ends when the client leaves, or the server stops."""

    media_type = "text/event-stream"

    def __init__(self, messages: AsyncGenerator[bytes]) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._messages = messages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the messages as they come."""
        # The scope itself may be a copy; its state is that of the connection's request.
        scope["state"][ENDLESS] = True
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(sending, leaving)
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Send) -> None:
        async with contextlib.aclosing(self._messages) as messages:
            async for message in messages:
                await send({"type": "http.response.body", "body": message, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _of_stream(content: type[msgspec.Struct], text: str) -> dict[str, Any]:
    """Arguments of a route's decorator that describe an answer of server-sent events."""
    schema = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": reference(content),
    }
    return {
        "response_class": EventStream,
        "status_code": 200,
        "responses": {
            200: {"description": text, "content": {"text/event-stream": {"schema": schema}}},
            **described_errors(SERVER_ERRORS),
            **ANY_ERROR,
        },
    }


@router.get(
    "/live",
    summary="Counts of the group, each second",
    **_of_stream(LiveFigures, "Live figures; a message of the type `unavailable` has an error."),
)
async def live(request: Request) -> Response:
    """Server-sent events: a message at once and each second, until the client leaves."""
    services: Services = request.app.state.services
    services.live.check_room()
    return EventStream(services.live.messages())


class TailParams(AfterParams, frozen=True, kw_only=True):
    """Query parameters of /live/events."""

    user_id: IdParam | None = None
    session_id: IdParam | None = None
    item_id: IdParam | None = None
    event_type: IdParam | None = None

    def wants(self, event: TailedEvent) -> bool:
        """True if the event is of all that is named."""
        return all(
            wanted is None or wanted == found
            for wanted, found in (
                (self.user_id, event.user_id),
                (self.session_id, event.session_id),
                (self.item_id, event.item_id),
                (self.event_type, event.event_type),
            )
        )


@router.get(
    "/live/events",
    summary="Events as they come to Kafka",
    openapi_extra={"parameters": parameters(TailParams)},
    **_of_stream(TailedEvents, "Events since the message before; none after 15 s of silence."),
)
async def live_events(request: Request) -> Response:
    """Server-sent events: those of any sender from now on, until the client leaves.

    Kafka is read once for all who look on, and only while somebody does. With API keys the audit
    log has an entry of it.
    """
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], TailParams)
    await services.await_effect(asked, request.receive)
    group = services.settings.group
    of_user = [] if asked.user_id is None else [pseudonym(group, asked.user_id)]
    await services.audit_reading(request.scope, "follow_events", of_user, group)
    if services.tail is None:
        raise Unavailable("this process has no access to the tail of events")
    services.tail.check_room()
    return EventStream(services.tail.messages(asked.wants))
