"""The contract of event sinks: services that the forwarder sends events to."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from models.events import Event

MAX_BATCH_EVENTS = 10
"""Most events in one batch, as in one PutEvents of Amazon Personalize."""


class EventBatch(NamedTuple):
    """One to `MAX_BATCH_EVENTS` events of one session and user, in order.

    Attributes
    ----------
    tracking_id
        The sink's tracking id, which settings map from the one of the message.
    user_id
        None for an anonymous session.
    """

    tracking_id: str
    session_id: str
    user_id: str | None
    events: Sequence[Event]


class SinkAnswer(Enum):
    """Meaning of a failed call for its events.

    Only `REFUSED` ends an attempt: the forwarder bisects the batch until the refused events stand
    alone, and makes dead letters of them. After any other answer the same batch is sent again, with
    exponential backoff, for as long as it takes.
    """

    THROTTLED = "throttled"
    FAILED = "failed"
    DENIED = "denied"
    REFUSED = "refused"


class SendFailed(Exception):
    """A sink did not take a batch.

    Attributes
    ----------
    answer
        Meaning of the failure for the events.
    text
        The error as one bounded line, without secrets and without user or session ids: it is kept
        in logs and the ledger, which no erasure reaches.
    """

    def __init__(self, answer: SinkAnswer, text: str) -> None:
        super().__init__(text)
        self.answer = answer
        self.text = text


class EventSink(Protocol):
    """A service that events are forwarded to.

    To add one, implement `send` and register a factory in `streams.forwarding.sinks.SINKS`; the
    setting `forward_sink` then names it.
    """

    def send(self, batch: EventBatch) -> None:
        """Send one batch; returns once the service has taken all of its events.

        Called from up to `forward_parallel` threads at once for each tracking id; it may block, and
        should give up after `forward_timeout_s`. Batches of one session come one after another, in
        order. A batch may come again, in parts too, after a failure or a crash of the forwarder:
        the service must ignore an event whose eventId it has seen.

        If the process stops while this blocks, its thread is abandoned, and the batch comes again
        in another process.

        Raises
        ------
        SendFailed
            The service did not take the batch, or not for certain. Any other error ends the
            forwarder.
        """
