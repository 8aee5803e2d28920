"""The parts that an agent is composed of, each a small contract: `AtomicBatches` calls them.

All are called from the worker's event loop under the agent's lock, so never twice at once for one
agent. A rebalance may come at every `await`. None of them has to notice it: `AtomicBatches` drops
the messages of an assignment that has ended, and Kafka delivers them again, here or to
another worker.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from models.state.messages import PartResult
from streams.agents.dead_letter_queue import Rejection
from streams.kafka.consuming.assignment import ReceivedMessage


class DecodedMessage(Protocol):
    """A Kafka message as the store takes it, with its identity in its partition."""

    @property
    def offset(self) -> int:
        """Offset in its partition."""

    @property
    def timestamp_ms(self) -> int:
        """Kafka's timestamp, in milliseconds since the epoch."""

    @property
    def checksum(self) -> int:
        """Checksum of its bytes; see `Witness`."""


M = TypeVar("M", bound=DecodedMessage)
M_co = TypeVar("M_co", bound=DecodedMessage, covariant=True)
M_contra = TypeVar("M_contra", bound=DecodedMessage, contravariant=True)


class BatchPart(NamedTuple, Generic[M]):
    """Messages of one partition in offset order, and the watermark they follow.

    Attributes
    ----------
    field
        Names the partition's watermark in the store.
    expected
        The watermark that they follow. Where the store is at another, it applies nothing of the
        partition and answers `lost`.
    checksum
        Checksum of the message at that watermark; -1 if unknown.
    read
        Number of the read that the messages are of; see `PartitionRead`.
    """

    field: str
    expected: int
    messages: list[M]
    checksum: int
    read: int = 0


class MessageCodec(Protocol[M_co]):
    """Decodes the messages of an agent's topics."""

    def size(self, received: ReceivedMessage) -> int:
        """Estimated share of a step's size that a message takes, at least 1.

        Called once for each accepted message, before `decode`. No I/O, no errors.
        """

    async def decode(self, received: ReceivedMessage) -> M_co:
        """Decode one message.

        Called once for each message of a step, in order, before anything of the step is written.
        It may wait for Redis, and lets `AWAY_ERRORS` through: then it is called again, after a
        wait, for as long as the assignment lasts. So it must have no effects of its own.

        Raises
        ------
        Rejection
            The message will never be valid. It becomes a dead letter, and `without_effects` takes
            its place.
        """

    def without_effects(self, received: ReceivedMessage) -> M_co:
        """A message that only moves the watermark past `received`. No I/O."""


class MessageSplitter(Protocol[M]):
    """Takes messages apart of which the store may refuse a part."""

    def split(
        self, received: ReceivedMessage, message: M, result: PartResult
    ) -> tuple[Rejection, M]:
        """The part of a decoded message that the store refused, and what is left of it.

        Called after a write whose result is `full` or `gone`. The rejection becomes a dead letter;
        then what is left is applied in another write of the same step, with the messages behind it.
        No I/O.
        """


class StepWriter(Protocol[M]):
    """Writes an agent's messages to the store."""

    async def write(self, parts: Sequence[BatchPart[M]]) -> list[PartResult]:
        """Apply parts in one atomic step; one result for each, in order.

        A writer to several shards may leave out those that are away: such a result `is_behind`.
        Then the partition is read again from the last offset that all have, once they answer; in
        that read those that have the messages skip them.

        Called once for each step, once more for every message of which the store refuses a part,
        and again with the same parts after `AWAY_ERRORS`: the attempt that failed may have taken
        effect, which the store notices by the watermarks.

        If the assignment ends while this waits, the effects stay, and are not recorded as this
        worker's progress.
        """

    def on_applied(self, messages: Sequence[M]) -> None:
        """Record in metrics that messages of one partition have come into effect.

        Called after each write, for each of its parts of which something was applied. No I/O.
        """


class StepObserver(Protocol[M_contra]):
    """Looks at the state before a step, and acts after it."""

    async def before_step(self, messages: Sequence[M_contra]) -> Callable[[], None]:
        """Look at the state that decoded messages are about to change.

        Called once for each step, between `MessageCodec.decode` and `StepWriter.write`, which it
        holds up. It must not raise `AWAY_ERRORS`: an outage is no reason to hold up a step longer.

        Returns the action for when all of the step is in effect. That is not called if the
        assignment ends first, and must not block.
        """


Publish = Callable[[Sequence[bytes], bytes | None], Coroutine[None, None, None]]
"""Produces values under one key to a topic.

Returns when Kafka has acknowledged all, however long it is away.
"""
