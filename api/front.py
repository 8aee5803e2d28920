"""FastAPI, and in front of it the routes that are asked most."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.reference import document
from api.routes import HOT, Answering
from api.traffic import count

GONE = 499
"""Status that is counted for a request whose client did not wait for the answer."""

JSON = (b"content-type", b"application/json")


class Front(FastAPI):
    """The application; answers `HOT` routes itself, and hands all else to FastAPI.

    FastAPI's and Starlette's layers take as long as half a recommendation, and such a route has
    use for none of them: it reads no body, and its query string is checked by its own schema. What
    a browser of another origin asks goes through them, for they know what it may be told.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's start and end."""
        answering = None
        if scope["type"] == "http" and scope["method"] == "GET":
            answering = HOT.get(scope["path"])
        if answering is None or b"origin" in dict(scope["headers"]):
            await super().__call__(scope, receive, send)
        else:
            await self._answer(answering, scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the schemas of what routes take and answer."""
        if self.openapi_schema is None:
            self.openapi_schema = document(super().openapi())
        return self.openapi_schema

    async def _answer(
        self, answering: Answering, scope: Scope, receive: Receive, send: Send
    ) -> None:
        started, status = time.perf_counter(), 500
        try:
            body = await answering(self.state.services, scope["query_string"], receive)
        except ClientDisconnect:
            status = GONE  # there is nobody to answer
        except Exception as error:  # noqa: BLE001  its handler decides, as behind FastAPI
            response: Response = await self._handler(error)(Request(scope), error)
            status = response.status_code
            await response(scope, receive, send)
        else:
            status = 200
            length = (b"content-length", b"%d" % len(body))
            await send({"type": "http.response.start", "status": 200, "headers": [JSON, length]})
            await send({"type": "http.response.body", "body": body})
        finally:
            count(scope["path"], status, started=started)

    def _handler(self, error: Exception) -> Callable[[Request, Exception], Any]:
        """What was registered for the error's class, or the nearest that it derives from."""
        return next(
            self.exception_handlers[kind]
            for kind in type(error).__mro__
            if kind in self.exception_handlers
        )
