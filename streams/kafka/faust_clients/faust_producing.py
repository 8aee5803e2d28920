"""Producing from a Faust app: outages raise `Unavailable`, refused messages `MessageRefused`."""

from __future__ import annotations

import logging

import faust
import msgspec
from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError
from prometheus_client import Counter

from models.errors import MessageRefused
from streams.kafka.dead_letters import DeadLetter, loggable_event_ids, without_payload
from streams.kafka.producing.produce_errors import classified

LOG = logging.getLogger(__name__)

DROPPED = Counter("recommender_examples_dropped_total", "Examples that Kafka refused to take")


async def produce(
    app: faust.App, topic: str, key: bytes | None, value: bytes, partition: int | None = None
) -> None:
    """Produce one message; returns when Kafka has acknowledged it.

    To a partition by its key, if none is given.

    Raises
    ------
    Unavailable
        Kafka is away: a retry may help.
    MessageRefused
        Kafka accepts other messages, but never this one.
    """
    try:
        await app.producer.send_and_wait(topic, key, value, partition, None, None)
    except (KafkaError, ProducerSendError) as error:
        explained = classified(error)
        if explained is None:
            raise
        raise explained from error


async def keep_letter(app: faust.App, topic: str, key: bytes | None, letter: bytes) -> None:
    """Produce a dead letter, and log it once Kafka has acknowledged.

    Without its payload if the topic accepts only shorter messages.
    """
    try:
        await produce(app, topic, key, letter)
    except MessageRefused as error:
        LOG.warning("a dead letter is kept without its payload: %s", error)
        await produce(app, topic, None, without_payload(letter, key))
    kept = msgspec.json.decode(letter, type=DeadLetter)
    source = f"{kept.source.topic}/{kept.source.partition}/{kept.source.offset}"
    LOG.warning(
        "dead letter of %s by %s, %s: %s", source, kept.stage, kept.reason, kept.detail,
        extra={"event_ids": loggable_event_ids(kept)},
    )  # fmt: skip


async def offer(app: faust.App, topic: str, key: bytes | None, value: bytes) -> None:
    """Produce a training example; they are a sample, so a refused one is dropped."""
    try:
        await produce(app, topic, key, value)
    except MessageRefused as error:
        DROPPED.inc()
        LOG.warning("an example is dropped: %s", error)
