"""Dead letters: what could not be decoded, validated or applied, kept with reason and origin."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from models.errors import Unavailable
from models.settings import Settings
from streams.topics import Topics

POLL_MS = 500


class Source(msgspec.Struct, frozen=True):
    """Where the bytes of a dead letter came from."""

    topic: str
    partition: int
    offset: int


class DeadLetter(msgspec.Struct, frozen=True):
    """One thing that could not be processed.

    Attributes
    ----------
    stage
        What gave up on it: sessions, ranker or forward.
    reason, detail
        A word to count by, and a sentence to read.
    payload
        The original bytes, in base64.
    """

    stage: str
    reason: str
    detail: str
    source: Source
    at: float
    payload: str

    def raw(self) -> bytes:
        """The original bytes."""
        return base64.b64decode(self.payload)


def envelope(
    stage: str, reason: str, detail: str, source: tuple[str, int, int], raw: bytes, *, now_s: float
) -> bytes:
    """A dead letter as JSON text; `source` is topic, partition, offset."""
    letter = DeadLetter(
        stage, reason, detail[:500], Source(*source), now_s, base64.b64encode(raw).decode()
    )
    return msgspec.json.encode(letter)


def letters(settings: Settings, *, again: bool = False) -> Iterator[tuple[DeadLetter, Any]]:
    """The dead letters that were not replayed yet, or all of them; then stops.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    consumer = _consumer(settings)
    try:
        yield from _read(consumer, settings, again=again)
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()


def replay(settings: Settings) -> int:
    """Send the dead letters not replayed yet to where they came from again; gives how many.

    What fails again comes back as a new dead letter. Each is marked as replayed only after
    Kafka has acknowledged it, so an interrupted replay may repeat some: harmless, for a repeated
    event takes effect once.
    """
    consumer = _consumer(settings)
    try:
        producer = KafkaProducer(
            bootstrap_servers=settings.kafka, acks="all", enable_idempotence=True
        )
        done: dict[TopicPartition, int] = {}
        sent = []
        for letter, record in _read(consumer, settings, again=False):
            sent.append(producer.send(letter.source.topic, key=record.key, value=letter.raw()))
            done[TopicPartition(record.topic, record.partition)] = record.offset + 1
        for future in sent:
            future.get(timeout=settings.publish_timeout_s)
        producer.close()
        if done:
            consumer.commit({tp: OffsetAndMetadata(offset, "", -1) for tp, offset in done.items()})
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()
    return len(sent)


def _consumer(settings: Settings) -> KafkaConsumer:
    try:
        return KafkaConsumer(
            bootstrap_servers=settings.kafka,
            group_id=f"{settings.group}-dead-letters",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error


def _read(
    consumer: KafkaConsumer, settings: Settings, *, again: bool
) -> Iterator[tuple[DeadLetter, Any]]:
    topic = Topics.of(settings).dead_letters
    partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
    consumer.assign(partitions)
    if again:
        consumer.seek_to_beginning(*partitions)
    idle = 0
    # A broker may not know its end offset; the high watermark of a fetch is right everywhere.
    while idle < 2:
        polled = consumer.poll(timeout_ms=POLL_MS)
        idle = 0 if polled else idle + 1
        for records in polled.values():
            for record in records:
                yield msgspec.json.decode(record.value, type=DeadLetter), record
