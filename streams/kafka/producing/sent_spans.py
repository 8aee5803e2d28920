"""Spans of messages that are sent to Kafka, each named in its message's header `traceparent`."""

from __future__ import annotations

import asyncio
from functools import partial

from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata
from opentelemetry.trace import Span

from models.spans import Traces, fail, traceparent
from models.traces import HEADER
from streams.kafka.producing.produced_messages import ProducedMessage


async def send_traced(
    traces: Traces, producer: AIOKafkaProducer, message: ProducedMessage
) -> asyncio.Future[RecordMetadata]:
    """Send a message with a span, a child of the current one, which ends when Kafka has answered.

    One whose span is not recorded has no header.
    """
    attributes = messaging_attributes("send", message.topic) | {
        "messaging.message.body.size": len(message.value or b"")
    }
    span = traces.begin(f"send {message.topic}", "PRODUCER", attributes)
    parent = traceparent(span)
    headers = [(HEADER, parent)] if parent else None
    try:
        sent: asyncio.Future[RecordMetadata] = await producer.send(
            message.topic, message.value, message.key, headers=headers
        )
    except BaseException as error:
        fail(span, type(error).__qualname__)
        span.end()
        raise
    sent.add_done_callback(partial(_ended, span))
    return sent


def messaging_attributes(operation: str, topic: str) -> dict[str, str | int]:
    """Attributes of every span of messages: the system, the operation, and the topic."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }


def _ended(span: Span, sent: asyncio.Future[RecordMetadata]) -> None:
    error = asyncio.CancelledError() if sent.cancelled() else sent.exception()
    if error is not None:
        fail(span, type(error).__qualname__)
    else:
        span.set_attribute("messaging.destination.partition.id", str(sent.result().partition))
        span.set_attribute("messaging.kafka.offset", sent.result().offset)
    span.end()
