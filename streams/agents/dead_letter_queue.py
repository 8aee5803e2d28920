"""Dead letters of one agent, produced before the watermark moves past the rejected messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from prometheus_client import Counter

from models.errors import RecommenderError
from streams.kafka.consuming.assignment import ReceivedMessage
from streams.kafka.dead_letters import envelope, letter_key


class Rejection(RecommenderError):
    """A message, or a part of it, that will never be applied.

    Attributes
    ----------
    reason, detail
        A word to count by, and a sentence to read.
    payload
        The bytes of the rejected part.
    group
        The dataset group it was for; empty if unknown.
    """

    def __init__(self, reason: str, detail: str, payload: bytes, *, group: str = "") -> None:
        super().__init__(detail)
        self.reason, self.detail, self.payload, self.group = reason, detail, payload, group


@dataclass
class DeadLetterQueue:
    """Produces dead letters to Kafka.

    Attributes
    ----------
    stage
        Name of the agent, as its letters tell it.
    publish
        Produces to the topic of dead letters; returns when Kafka has acknowledged.
    clock
        The present in Unix seconds.
    payload_bytes
        Most of a message that a letter keeps.
    counter
        Counts the letters; None where they are counted elsewhere.
    """

    stage: str
    publish: Callable[[Sequence[bytes], bytes | None], Awaitable[None]]
    clock: Callable[[], float]
    payload_bytes: int
    counter: Counter | None = None

    async def put(self, received: ReceivedMessage, rejection: Rejection) -> None:
        """Produce a dead letter; returns once Kafka has acknowledged it."""
        letter = envelope(
            self.stage,
            rejection.reason,
            rejection.detail,
            received[:3],
            rejection.payload,
            key=received.key,
            now_s=self.clock(),
            group=rejection.group,
            payload_bytes=self.payload_bytes,
        )
        await self.publish([letter], letter_key(received.key))
        if self.counter is not None:
            self.counter.inc()
