"""Refusals of requests that break a limit: the answer, and the metric that counts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
