"""Limits on request bodies, and the count and duration of requests that may have one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.admission import Budget
from api.server.refusals import REFUSED
from api.server.request_metrics import count_request

DRAINED = 16
"""Factor of the largest body up to which a larger one is read before the connection is cut."""

FREE_BYTES = 64 * 1024
"""Part of each body outside the budget; the bound on connections bounds its sum."""


class BodyLimits:
    """Bounds request bodies in size, time and memory; counts and times requests by their route.

    Parameters
    ----------
    max_body_bytes
        The largest body.
    timeout_s
        Time limit for a whole body: of all waits for its parts together.
    budget
        Memory that all bodies share beyond `FREE_BYTES` each.
    longer
        Largest body of each path that has a bound of its own.
    streamed
        Paths whose bodies are read in parts that are not kept: they take no memory of the budget.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        timeout_s: float,
        budget: Budget,
        longer: Mapping[str, int] | None = None,
        streamed: Collection[str] = (),
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        self._budget = budget
        self._longer = longer or {}
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        most = self._longer.get(scope["path"], self._max_body_bytes)
        is_kept = scope["path"] not in self._streamed
        body = _Body(receive, most, self._timeout_s, self._budget if is_kept else None, scope)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, body.receive, noted)
        finally:
            body.release()
            count_request(getattr(scope.get("route"), "path", "none"), status, started=started)


class _Body:
    """An incoming request body; raises `HTTPException` if it breaks a bound."""

    def __init__(
        self, receive: Receive, most: int, timeout_s: float, budget: Budget | None, scope: Scope
    ) -> None:
        self._receive = receive
        self._most = most
        self._timeout_s = timeout_s
        self._budget = budget
        self._announced = _announced(scope)
        self._asks = any(name == b"expect" for name, _ in scope["headers"])
        self._received = 0
        self._taken = 0
        self._left_s = timeout_s
        self._is_complete = False

    async def receive(self) -> Message:
        """The next message; after a complete body, the client's disconnection."""
        if self._is_complete:
            return await self._receive()
        # What the application does between two parts is no time of the client's.
        started_s = asyncio.get_running_loop().time()
        self._deadline_s = started_s + self._left_s
        if self._announced > self._most:
            await self._refuse()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._receive()
        except TimeoutError:
            REFUSED.labels("slow").inc()
            text = f"the body did not arrive within {self._timeout_s:g} s"
            raise HTTPException(408, text, {"connection": "close"}) from None
        self._left_s -= asyncio.get_running_loop().time() - started_s
        self._received += len(message.get("body", b""))
        if self._received > self._most:
            await self._refuse()
        more = 0 if self._budget is None else max(0, self._received - FREE_BYTES) - self._taken
        if more > 0 and self._budget is not None:
            if not self._budget.take(more):
                raise HTTPException(503, "there is no memory for so large a body now: try again")
            self._taken += more
        self._is_complete = not message.get("more_body", False)
        return message

    def release(self) -> None:
        """Give the body's memory back at the end of the request."""
        if self._budget is not None:
            self._budget.give_back(self._taken)
        self._taken = 0

    async def _refuse(self) -> NoReturn:
        """Read and drop the body for a while: most clients read the answer only after sending."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._deadline_s):
                # After `Expect: 100-continue` a client waits for the answer before it sends.
                more = not self._asks and self._announced <= DRAINED * self._most
                while more and self._received <= DRAINED * self._most:
                    message = await self._receive()
                    self._received += len(message.get("body", b""))
                    more = message.get("more_body", False)
        raise HTTPException(413, f"a body may have {self._most} bytes")


def _announced(scope: Scope) -> int:
    """The content length of a request; 0 if it has none."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
