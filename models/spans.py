"""Spans of OpenTelemetry, and the thread that sends them; loaded where traces are on.

Spans follow OpenTelemetry's semantic conventions for HTTP and messaging, and hold no id of a user,
a session or an item.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

EXPORT_S = 5.0
"""Time limit of a request to the receiver; a process waits so long for it when it ends."""

Attributes = Mapping[str, str | int]
Kind = Literal["SERVER", "PRODUCER", "CONSUMER", "INTERNAL"]


@dataclass(frozen=True)
class Traces:
    """The traces of a process: makes its spans, which a thread sends to the receiver.

    What the receiver does not take in time is dropped: at most 2,048 spans wait. A span that is
    recorded costs about 40 µs, one that is not about 10.
    """

    provider: TracerProvider

    @contextmanager
    def span(
        self, name: str, kind: Kind, attributes: Attributes, *, parent: bytes | None = None
    ) -> Iterator[Span]:
        """A span around a block, which is the current one of the task; an exception marks it.

        Parameters
        ----------
        parent
            A `traceparent`, whose trace is followed and whose decision to record it is kept;
            without a valid one, the parent is the current span, or the span begins a trace.
        """
        span = self.begin(name, kind, attributes, parent=parent)
        # What an exception says may quote the request.
        with use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                yield span
            except BaseException as error:
                fail(span, type(error).__qualname__)
                raise

    def begin(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        parent: bytes | None = None,
        links: Sequence[Span] = (),
    ) -> Span:
        """A span that the caller ends; see `span`. `links` name spans of other traces."""
        return self._tracer.start_span(
            name,
            _context(parent) if parent else None,
            SpanKind[kind],
            dict(attributes),
            [Link(one.get_span_context()) for one in links],
        )

    @functools.cached_property
    def _tracer(self) -> Tracer:
        return self.provider.get_tracer("recommender", version("streaming-recommender"))

    def close(self) -> None:
        """Send what waits, for `EXPORT_S` at most; spans of later calls are dropped."""
        started.cache_clear()
        self.provider.shutdown()


def fail(span: Span, kind: str) -> None:
    """Mark a span as that of a failure of this kind."""
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)


def traceparent(span: Span) -> bytes:
    """The header that names a span as the parent of others; empty if it is not recorded."""
    context = span.get_span_context()
    if not span.is_recording():
        return b""
    return b"00-%032x-%016x-01" % (context.trace_id, context.span_id)


def is_recorded(parent: bytes) -> bool:
    """True if a `traceparent` is valid and says that its trace is recorded.

    >>> is_recorded(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    True
    >>> is_recorded(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), is_recorded(b"00")
    (False, False)
    """
    return get_current_span(_context(parent)).get_span_context().trace_flags.sampled


def _context(parent: bytes) -> Context:
    carrier = {"traceparent": parent.decode("latin-1")}
    return TraceContextTextMapPropagator().extract(carrier, Context())


@functools.cache
def started(endpoint: str, share: float, service: str) -> Traces:
    """Traces that go to an endpoint, with this share of those that begin here."""
    resource = Resource.create(
        {"service.name": service, "service.version": version("streaming-recommender")}
    )
    provider = TracerProvider(ParentBasedTraceIdRatio(share), resource)
    exporter = OTLPSpanExporter(endpoint, timeout=EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Traces(provider)
