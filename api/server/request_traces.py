"""Traces of requests: a span for each, to which the messages that it sends to Kafka belong."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.spans import Traces, fail
from models.traces import HEADER

UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that are asked every few seconds, by programs."""


async def serve_traced(
    traces: Traces,
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    headers: Mapping[bytes, bytes],
) -> None:
    """Serve a request in a span, whose parent is that of the request's own `traceparent`.

    Its path and query are not recorded, for they may name a user: only its route is.
    """
    if scope["path"] in UNTRACED:
        await app(scope, receive, send)
        return
    method = scope["method"]
    attributes = {"http.request.method": method, "url.scheme": scope["scheme"]}
    parent = headers.get(HEADER.encode())
    with traces.span(method, "SERVER", attributes, parent=parent) as span:

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    fail(span, str(status))
            await send(message)

        try:
            await app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", None)
            if route is not None:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
