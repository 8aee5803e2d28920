"""OpenTelemetry traces, where a setting names their receiver; off, nothing of it is loaded.

A trace begins with an HTTP request. It goes on in the header `traceparent` of the Kafka messages
that the request sends (W3C Trace Context), and ends where they take effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from models.extras import require_extra
from models.settings import Settings

if TYPE_CHECKING:
    from models.spans import Traces

HEADER = "traceparent"
"""Header of HTTP requests and Kafka messages that names a trace and a span in it."""


def traces_of(settings: Settings, process: Literal["api", "worker"]) -> Traces | None:
    """The traces of this process; None, at no cost, where the settings name no receiver.

    Raises
    ------
    NotConfigured
        The extra `traces` is not installed.
    """
    if not settings.traces_endpoint:
        return None
    require_extra("opentelemetry.exporter.otlp.proto.http", "traces", "RECOMMENDER_TRACES_ENDPOINT")
    from models.spans import started  # noqa: PLC0415  an extra

    # A worker follows recorded traces; the only ones that it begins are those of their steps.
    share = settings.traces_share if process == "api" else 1.0
    return started(settings.traces_endpoint, share, f"recommender-{process}")
