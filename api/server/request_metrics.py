"""Metrics of requests: count by route and status, and duration by route."""

from __future__ import annotations

import functools
import time

from prometheus_client import Counter, Histogram

CLIENT_CLOSED = 499
"""Status counted for a request whose client disconnected; it is never sent."""

REQUESTS = Counter("recommender_requests_total", "HTTP requests", ["route", "status"])
LATENCY = Histogram(
    "recommender_request_seconds",
    "Duration of HTTP requests",
    ["route"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)


def count_request(route: str, status: int, *, started: float) -> None:
    """Count a request that ends now; `started` is its `time.perf_counter`."""
    requests, latency = _series(route, status)
    requests.inc()
    latency.observe(time.perf_counter() - started)


@functools.cache
def _series(route: str, status: int) -> tuple[Counter, Histogram]:
    """The series of a route, cached: the look-up by label costs more than the count."""
    return REQUESTS.labels(route, status), LATENCY.labels(route)
