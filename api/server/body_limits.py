"""What surrounds every request but the hottest: bounds of its body, and its count and duration."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.server.admission import Budget
from api.server.refusals import REFUSED
from api.server.request_metrics import count_request

DRAINED = 16
"""Times the largest body that is read of one too large, before the connection is cut."""

FREE_BYTES = 64 * 1024
"""What a body may have without asking the budget; the bound on connections bounds the sum."""


class BodyLimits:
    """Bounds request bodies in size, time and memory; counts and times requests by their route.

    Parameters
    ----------
    max_body_bytes
        The largest body.
    timeout_s
        How long a whole body may take from when it is first waited for.
    budget
        The memory that all bodies share beyond `FREE_BYTES` each.
    longer
        The largest bodies of paths that have bounds of their own.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        timeout_s: float,
        budget: Budget,
        longer: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s
        self._budget = budget
        self._longer = longer or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        most = self._longer.get(scope["path"], self._max_body_bytes)
        body = _Body(receive, most, self._timeout_s, self._budget, scope)

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
    """A request's body on its way in; raises `HTTPException` for one that breaks a bound."""

    def __init__(
        self, receive: Receive, most: int, timeout_s: float, budget: Budget, scope: Scope
    ) -> None:
        self._receive = receive
        self._most = most
        self._timeout_s = timeout_s
        self._budget = budget
        self._announced = _announced(scope)
        self._asks = any(name == b"expect" for name, _ in scope["headers"])
        self._received = 0
        self._taken = 0
        self._deadline_s: float | None = None
        self._is_complete = False

    async def receive(self) -> Message:
        """The next message; once the body is complete, that the client has gone."""
        if self._is_complete:
            return await self._receive()
        if self._deadline_s is None:
            self._deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        if self._announced > self._most:
            await self._refuse()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._receive()
        except TimeoutError:
            REFUSED.labels("slow").inc()
            text = f"the body did not arrive within {self._timeout_s:g} s"
            raise HTTPException(408, text, {"connection": "close"}) from None
        self._received += len(message.get("body", b""))
        if self._received > self._most:
            await self._refuse()
        more = max(0, self._received - FREE_BYTES) - self._taken
        if more > 0:
            if not self._budget.take(more):
                raise HTTPException(503, "there is no room for so large a body now: try again")
            self._taken += more
        self._is_complete = not message.get("more_body", False)
        return message

    def release(self) -> None:
        """The request is over, and what was kept of its body."""
        self._budget.give_back(self._taken)
        self._taken = 0

    async def _refuse(self) -> NoReturn:
        """Read on for a while, keeping nothing: a sender hears the answer once it has finished."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._deadline_s):
                # One that asked whether it may send waits for the answer, and has sent nothing.
                more = not self._asks and self._announced <= DRAINED * self._most
                while more and self._received <= DRAINED * self._most:
                    message = await self._receive()
                    self._received += len(message.get("body", b""))
                    more = message.get("more_body", False)
        raise HTTPException(413, f"a body may have {self._most} bytes")


def _announced(scope: Scope) -> int:
    """The length that a request gives its body; 0 where it does not say."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
