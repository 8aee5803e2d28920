"""Refusals of requests that break a limit: the answer, and the metric that counts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from prometheus_client import Counter
from starlette.types import Receive, Scope, Send

from api.schemas import RETRY_AFTER_S, encode

REFUSED = Counter(
    "recommender_refused_total",
    "Requests and connections that were refused",
    ["reason"],
)

REASONS = (
    "events",
    "answers",
    "audit",
    "logins",
    "bodies",
    "connections",
    "head",
    "malformed",
    "host",
    "origin",
    "rate",
    "slow",
    "unauthenticated",
    "forbidden",
    "unread",
)
for _reason in REASONS:
    REFUSED.labels(_reason)


CLOSES = (b"connection", b"close")
"""Header of the last answer of a connection."""


class Refusal(NamedTuple):
    """An error answer to a request that does not reach the routes.

    Attributes
    ----------
    headers
        Further headers of the answer.
    """

    status: int
    kind: str
    message: str
    headers: Mapping[str, str] | None = None

    @property
    def body(self) -> bytes:
        """The JSON body, in the one shape of an error."""
        return encode({"error": {"type": self.kind, "message": self.message}})

    def to_http(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The whole HTTP response, with these headers as well; temporary ones have Retry-After."""
        body = self.body
        retry = b"retry-after: %d\r\n" % RETRY_AFTER_S if self.status in {429, 503} else b""
        return (
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncache-control: no-store\r\n"
            b"content-length: %d\r\n%s%s\r\n%s"
            % (
                *(self.status, HTTPStatus(self.status).phrase.encode(), len(body), retry),
                *(b"".join([b"%s: %s\r\n" % header for header in headers]), body),
            )
        )


async def too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  ASGI's
    """The application for connections beyond the bound: every request is refused with 503."""
    if scope["type"] == "http":
        refusal = Refusal(503, "overloaded", "the bound on open connections is reached: try again")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(refusal.body)),
            (b"retry-after", b"1"),
            CLOSES,
        ]
        start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": refusal.body})
