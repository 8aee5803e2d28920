"""The route of live figures, as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.dependencies import Services
from api.openapi import ANY_ERROR, SERVER_ERRORS, described_errors, reference
from api.schemas import LiveFigures
from api.server.uvicorn_protocol import ENDLESS

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
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait([sending, leaving])
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Send) -> None:
        async with contextlib.aclosing(self._messages) as messages:
            async for message in messages:
                await send({"type": "http.response.body", "body": message, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@router.get(
    "/live",
    summary="Counts of the group, each second",
    response_class=EventStream,
    status_code=200,
    responses={
        200: {
            "description": "Live figures; a message of the type `unavailable` has an error.",
            "content": {
                "text/event-stream": {
                    "schema": {
                        "type": "string",
                        "contentMediaType": "application/json",
                        "contentSchema": reference(LiveFigures),
                    }
                }
            },
        },
        **described_errors(SERVER_ERRORS),
        **ANY_ERROR,
    },
)
async def live(request: Request) -> Response:
    """Server-sent events: a message at once and each second, until the client leaves."""
    services: Services = request.app.state.services
    services.live.check_room()
    return EventStream(services.live.messages())
