"""Classification of failures to produce: an outage, a refused message, or neither.

Only after an outage a retry helps. A refusal concerns one message and stops nothing else. Any other
failure, such as a missing permission for the topic, stops the process that produces.
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
"""Errors of an outage beside those that aiokafka itself calls `retriable`."""

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
    """The error that a failure of either client, or of Faust, to produce a message stands for.

    `Unavailable`: a retry may help. `MessageRefused`: it never will, but other messages pass. None:
    neither.

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
