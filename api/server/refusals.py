"""Refusals of requests that break a limit: the answer, and the metric that counts them."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from prometheus_client import Counter

from api.schemas import RETRY_AFTER_S, encode

REFUSED = Counter(
    "recommender_refused_total",
    "Requests and connections that were refused",
    ["reason"],
)

REASONS = (
    "events",
    "answers",
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

    def to_http(self) -> bytes:
        """The whole HTTP response; it closes the connection."""
        body = self.body
        retry = f"retry-after: {RETRY_AFTER_S}\r\n" if self.status == 503 else ""
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"{retry}connection: close\r\n\r\n"
        )
        return head.encode() + body
