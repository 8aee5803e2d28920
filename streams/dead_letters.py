"""Dead letters: what could not be decoded, validated or applied, kept with reason and origin."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from models.errors import Unavailable
from models.events import MAX_MESSAGE_BYTES
from models.settings import Settings
from streams.connection import connect
from streams.ends import end_offsets
from streams.stretches import messages
from streams.topics import Topics

POLL_MS = 500
MAX_SILENT_POLLS = 20


FULL = "catalogue-full"
"""The reason of what went beyond the items or users that a group may hold."""


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
        What gave up on it: sessions, metadata, ranker or forward.
    reason, detail
        A word to count by, and a sentence to read.
    payload
        The original bytes, in base64; of more than a valid message may have, only so many. All are
        at `source` for as long as Kafka keeps them.
    group
        The dataset group it was for; empty where that could not be made out.
    """

    stage: str
    reason: str
    detail: str
    source: Source
    at: float
    payload: str
    group: str = ""

    def raw(self) -> bytes:
        """The original bytes."""
        return base64.b64decode(self.payload)


def envelope(
    stage: str,
    reason: str,
    detail: str,
    source: tuple[str, int, int],
    raw: bytes,
    *,
    now_s: float,
    group: str = "",
) -> bytes:
    """A dead letter as JSON text; `source` is topic, partition, offset."""
    # Whole, in base64, the largest messages that Kafka takes would be larger than it takes.
    payload = base64.b64encode(raw[:MAX_MESSAGE_BYTES]).decode()
    letter = DeadLetter(stage, reason, detail[:500], Source(*source), now_s, payload, group)
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


def ends(settings: Settings) -> dict[str, int]:
    """Where the dead letters end now, by partition; blocking."""
    found = end_offsets(settings, [Topics.of(settings).dead_letters])
    return {str(partition): end for (_, partition), end in found.items()}


def since(settings: Settings, ends: Mapping[str, int]) -> Iterator[DeadLetter]:
    """The dead letters that came since they ended there; raises `Unavailable`; blocking."""
    topic = Topics.of(settings).dead_letters
    starts = {(topic, int(partition)): end for partition, end in ends.items()}
    return map(_letter, messages(settings, starts))


def replay(settings: Settings) -> int:
    """Send the dead letters not replayed yet to where they came from again; gives how many.

    What fails again comes back as a new dead letter; what is none is passed over. Each is marked
    as replayed only after Kafka has acknowledged it, so an interrupted replay may repeat some:
    harmless, for a repeated event takes effect once.
    """
    consumer = _consumer(settings)
    try:
        producer = connect(KafkaProducer, settings, acks="all", enable_idempotence=True)
        done: dict[TopicPartition, int] = {}
        sent = []
        for letter, record in _read(consumer, settings, again=False):
            if letter.source.topic != record.topic:
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
    return connect(
        KafkaConsumer,
        settings,
        group_id=f"{settings.group}-dead-letters",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )


def _read(
    consumer: KafkaConsumer, settings: Settings, *, again: bool
) -> Iterator[tuple[DeadLetter, Any]]:
    # What comes while these are read is for the next time: it may be what they became when sent.
    ends = {
        TopicPartition(*partition): end
        for partition, end in end_offsets(settings, [Topics.of(settings).dead_letters]).items()
    }
    consumer.assign(list(ends))
    if again:
        consumer.seek_to_beginning(*ends)
    silent_polls = 0
    while any(consumer.position(tp) < end for tp, end in ends.items()):
        polled = consumer.poll(timeout_ms=POLL_MS)
        silent_polls = 0 if polled else silent_polls + 1
        if silent_polls > MAX_SILENT_POLLS:
            raise Unavailable(f"Kafka at {settings.kafka} stopped answering: try again")
        for tp, records in polled.items():
            for record in records:
                if record.offset < ends[tp]:
                    yield _letter(record), record


def _letter(record: Any) -> DeadLetter:  # noqa: ANN401  kafka-python is not typed
    """The dead letter in a record; what is none is shown as one whose origin is this topic."""
    raw = record.value or b""
    try:
        letter = msgspec.json.decode(raw, type=DeadLetter)
        letter.raw()
    except (msgspec.MsgspecError, ValueError) as error:
        source = (record.topic, record.partition, record.offset)
        at_s = record.timestamp / 1000
        letter = msgspec.json.decode(
            envelope("unknown", "invalid", f"no dead letter: {error}", source, raw, now_s=at_s),
            type=DeadLetter,
        )
    return letter
