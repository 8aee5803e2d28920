"""What a failure to produce means: Kafka is away, it refuses this one message, or neither.

Only the first is worth trying again. The second is the message's own fault and stops nothing else;
whatever is neither, such as a topic that this user may not write to, ends who asked for it.
"""

from __future__ import annotations

import aiokafka.errors as aio
import kafka.errors as py
from faust.exceptions import ProducerSendError

from models.errors import MessageRefused, RecommenderError, Unavailable

PASSING = (
    py.RetriableError,
    py.BrokerNotAvailableError,
    py.UnknownError,
    aio.BrokerNotAvailableError,
    aio.KafkaTimeoutError,
    aio.KafkaUnavailableError,
    aio.ReplicaNotAvailableError,
    aio.UnknownError,
)
"""Beside what aiokafka itself calls `retriable`."""

REFUSALS = (
    py.InvalidRecordError,
    py.InvalidTimestampError,
    py.MessageSizeTooLargeError,
    py.RecordListTooLargeError,
    aio.InvalidTimestampError,
    aio.MessageSizeTooLargeError,
    aio.RecordListTooLargeError,
    aio.RecordTooLargeError,
)


def classified(error: Exception) -> RecommenderError | None:
    """What a failure of either client, or of Faust's, to produce a message means.

    `Unavailable`: trying again later may help. `MessageRefused`: it will never, but others pass.
    None: it is neither.

    >>> classified(ProducerSendError("no reason given")) is None
    True
    >>> classified(aio.MessageSizeTooLargeError("1100000 bytes"))
    MessageRefused('Kafka refuses the message: MessageSizeTooLargeError: ...1100000 bytes')
    """
    cause = error.__cause__ if isinstance(error, ProducerSendError) else error
    said = f"{type(cause).__name__}: {cause}"
    if isinstance(cause, REFUSALS):
        return MessageRefused(f"Kafka refuses the message: {said}")
    if isinstance(cause, PASSING) or getattr(cause, "retriable", False) is True:
        return Unavailable(f"Kafka does not take messages: {said}")
    return None
