"""The agent of served lists: decodes them, and applies them in atomic steps of their own.

What is an outcome of a list is found in whichever step comes last, this one or that of the event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import Counter

from models.errors import InvalidEvent
from models.served_messages import parse_served
from models.state.messages import PartResult
from models.state.outcomes.served_outcomes import (
    ServedMessage,
    ServedPart,
    apply_served,
    stored_list,
)
from models.state.store import Store
from models.state.tenants import Tenants
from streams.agents.atomic_batches import AtomicBatches
from streams.agents.contracts import BatchPart, Publish
from streams.agents.dead_letter_queue import DeadLetterQueue, Rejection
from streams.kafka.consuming.assignment import PartitionLog, ReceivedMessage

if TYPE_CHECKING:
    from streams.agents.step_spans import StepSpans

STEP_LISTS = 100
"""Bound of the lists in one atomic step: a longer step would hold up requests."""

LIST_BYTES = 500
"""Typical bytes of a list in a message, to estimate the size of a step."""

SERVED = Counter("recommender_served_lists_total", "Served lists by outcome", ["outcome"])


def served_agent(
    tenants: Tenants,
    *,
    publish: Publish,
    log: PartitionLog,
    clock: Callable[[], float],
    spans: StepSpans | None = None,
) -> AtomicBatches[ServedMessage]:
    """The agent of the topic of served lists; one for each worker process.

    Parameters
    ----------
    publish
        Produces to the topic of dead letters.
    clock
        The present in Unix seconds.
    spans
        Traces the messages of each step; None for no traces.
    """
    settings = tenants.settings
    return AtomicBatches(
        tenants,
        ServedCodec(settings.group, settings.future_limit_s, clock),
        ServedWriter(tenants.store(settings.group), clock),
        DeadLetterQueue(
            "served", publish, clock, settings.dead_letter_payload_bytes, SERVED.labels("dead")
        ),
        log=log,
        step_size=STEP_LISTS,
        spans=spans,
    )


class ServedCodec:
    """Decodes messages of served lists: a `MessageCodec`.

    Parameters
    ----------
    own_group
        The settings' group, which the store has no name for.
    """

    def __init__(self, own_group: str, future_limit_s: float, clock: Callable[[], float]) -> None:
        self._own_group = own_group
        self._future_limit_s = future_limit_s
        self._clock = clock

    def size(self, received: ReceivedMessage) -> int:
        """Estimated number of lists in a message."""
        return 1 + len(received.value) // LIST_BYTES

    async def decode(self, received: ReceivedMessage) -> ServedMessage:
        """The message as the store takes it; asks Redis nothing.

        Raises
        ------
        Rejection
            It is invalid.
        """
        try:
            message = parse_served(
                received.value, now_s=self._clock(), future_limit_s=self._future_limit_s
            )
        except InvalidEvent as error:
            raise Rejection("invalid", str(error), received.value, group="") from error
        group = "" if message.group == self._own_group else message.group
        return self.without_effects(received)._replace(
            group=group, lists=[stored_list(one) for one in message.lists]
        )

    def without_effects(self, received: ReceivedMessage) -> ServedMessage:
        """A message without lists, which only moves the watermark."""
        _, timestamp_ms, checksum = received.witness
        return ServedMessage(received.offset, "", [], timestamp_ms, checksum)


class ServedWriter:
    """Writes served lists to the store: a `StepWriter`."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def write(self, parts: Sequence[BatchPart[ServedMessage]]) -> list[PartResult]:
        """Apply parts in one atomic step; one result for each."""
        results, counts = await apply_served(
            self._store, [ServedPart(*part[:4]) for part in parts], now_s=self._clock()
        )
        for outcome, count in counts.items():
            SERVED.labels(outcome).inc(count)
        return results

    def on_applied(self, messages: Sequence[ServedMessage]) -> None:
        """Nothing to record: `write` has counted."""
