"""Spans of messages from their arrival at an agent to their effect, and of the steps that bring it.

A message whose sender named a recorded span has a span of its own in that trace: one trace leads
from the HTTP request to the effect. A step brings many messages into effect at once, so it cannot
be a child of theirs: it is a trace of its own, linked to the spans of its messages.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry.trace import Span

from models.spans import Traces, fail, is_recorded
from models.traces import HEADER
from streams.kafka.consuming.assignment import Assignment, Partition, ReceivedMessage
from streams.kafka.producing.sent_spans import messaging_attributes

MAX_HEADERS = 32
"""Headers of a message that are looked through."""


class StepSpans:
    """Makes the spans of an agent's steps, one step at a time.

    Parameters
    ----------
    consumer_group
        Kafka's consumer group, which every span names.
    """

    def __init__(self, traces: Traces, consumer_group: str) -> None:
        self._traces = traces
        self._consumer_group = consumer_group
        self._open: dict[tuple[str, int, int], Span] = {}

    @contextmanager
    def of_step(
        self, assignment: Assignment, received: Mapping[Partition, Sequence[ReceivedMessage]]
    ) -> Iterator[None]:
        """Spans around a step; nothing if no message of it is traced.

        `recommender.in_effect` of a message's span is false where the assignment ended, or the
        state was behind: the message is read again then.
        """
        spans = {
            one[:3]: self._begin(one)
            for ones in received.values()
            for one in ones
            if one.traceparent
        }
        if not spans:
            yield
            return
        # Two agents share this, and their steps overlap.
        self._open |= spans
        step = self._traces.begin(
            "apply step",
            "INTERNAL",
            {"messaging.batch.message_count": sum(map(len, received.values()))},
            links=list(spans.values()),
        )
        try:
            yield
        finally:
            step.end()
            for (topic, partition, offset), span in spans.items():
                del self._open[topic, partition, offset]
                read = assignment.reads[topic, partition]
                is_done = not assignment.has_ended and read.applied >= offset
                span.set_attribute("recommender.in_effect", is_done)
                span.end()

    def reject(self, received: ReceivedMessage, reason: str) -> None:
        """Mark the span of a message that has become a dead letter, or a part of it has."""
        span = self._open.get(received[:3])
        if span is not None:
            fail(span, reason)

    def parent_of(self, headers: Iterable[tuple[str, bytes | None]] | None) -> bytes:
        """The `traceparent` among a message's headers, if that trace is recorded; else empty."""
        for name, value in itertools.islice(headers or (), MAX_HEADERS):
            if name == HEADER:
                return value if value and is_recorded(value) else b""
        return b""

    def close(self) -> None:
        """Send the spans that wait."""
        self._traces.close()

    def _begin(self, one: ReceivedMessage) -> Span:
        attributes = messaging_attributes("process", one.topic) | {
            "messaging.consumer.group.name": self._consumer_group,
            "messaging.destination.partition.id": str(one.partition),
            "messaging.kafka.offset": one.offset,
            "messaging.message.body.size": len(one.value),
        }
        return self._traces.begin(
            f"process {one.topic}", "CONSUMER", attributes, parent=one.traceparent
        )
