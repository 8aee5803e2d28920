"""Batches of a Faust agent as messages with the reads that fetched them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from streams.kafka.consuming.assignment import ReceivedMessage

if TYPE_CHECKING:
    from streams.agents.step_spans import StepSpans


def received_messages(
    batch: Sequence[Any], spans: StepSpans | None = None
) -> list[ReceivedMessage]:
    """A batch's messages, with their senders' spans where they are traced.

    A tombstone has an empty value.
    """
    return [
        ReceivedMessage(
            m.topic,
            m.partition,
            m.offset,
            m.value or b"",
            m.key or b"",
            round(1000 * m.timestamp),
            m.read,
            m.follows,
            m.connection,
            b"" if spans is None else spans.parent_of(m.headers),
        )
        for m in (event.message for event in batch)
    ]
