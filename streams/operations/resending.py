"""Replay of dead letters to the topics they came from, and letting them be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from models.errors import MessageRefused, RecommenderError, Unavailable, Unreadable
from models.settings import Settings
from streams.kafka.connections.connection import connect, unavailable
from streams.kafka.dead_letters import (
    DeadLetter,
    handled_letters,
    letter_consumer,
    read_letters,
)
from streams.kafka.producing.produce_errors import classified
from streams.kafka.topics import Topics

POLL_MS = 500
MAX_SILENT_POLLS = 10

MAX_UNDER_WAY = 100
"""Most letters that are sent and not acknowledged: each may be long."""

MAX_REQUEST_BYTES = 100 * 1024 * 1024
"""No bound of ours: Kafka has accepted each message before, if only compressed."""


class Original(NamedTuple):
    """Key and value of a message, as originally produced."""

    key: bytes | None
    value: bytes | None


class _Sent(NamedTuple):
    """A letter, its record, and the futures of the messages sent for it."""

    letter: DeadLetter
    record: Any
    futures: list[Any]


class OriginalMissing(RecommenderError):
    """Kafka no longer has the whole message of a truncated dead letter."""


@dataclass
class ResendReport:
    """Result of a replay: number of letters sent, and those that were not, with the reasons."""

    sent: int = 0
    kept: list[tuple[DeadLetter, str]] = field(default_factory=list)


LetterAt = tuple[int, int]
"""Partition and offset of a dead letter."""


def resend(settings: Settings, only: Collection[LetterAt] | None = None) -> ResendReport:
    """Send dead letters, all that wait or `only` these of them, to their original topics.

    A message that fails again becomes a new dead letter; invalid letters are skipped. The whole
    message of a truncated letter is read at its source; where that is impossible, or Kafka refuses
    the message, the letter is appended again, and counts as not replayed. A letter is marked as
    replayed only after Kafka has acknowledged it, so an interrupted replay may repeat some:
    harmless, for a repeated event takes effect once.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    TooManySingled
        Too many were handled one by one to remember these.
    """
    done = ResendReport()
    consumer = letter_consumer(settings)
    try:
        producer = connect(
            KafkaProducer,
            settings,
            acks="all",
            enable_idempotence=True,
            compression_type="zstd",
            max_request_size=MAX_REQUEST_BYTES,
        )
        try:
            places = _resend_all(settings, consumer, producer, done, only)
        finally:
            producer.close()
        _mark(consumer, places, is_all=only is None)
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()
    return done


def discard(settings: Settings, only: Collection[LetterAt] | None = None) -> int:
    """Leave dead letters, all that wait or `only` these of them, be; the number of them.

    Kafka keeps them as long as others; `letters(again=True)` reads them. Blocking.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    TooManySingled
        Too many were handled one by one.
    """
    consumer = letter_consumer(settings)
    try:
        places = [
            (record.partition, record.offset)
            for _, record in read_letters(consumer, settings, again=False)
            if record is not None and _is_meant(record, only)
        ]
        _mark(consumer, places, is_all=only is None)
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()
    return len(places)


def _is_meant(record: Any, only: Collection[LetterAt] | None) -> bool:  # noqa: ANN401
    return only is None or (record.partition, record.offset) in only


def _mark(consumer: KafkaConsumer, places: Sequence[LetterAt], *, is_all: bool) -> None:
    """Commit that letters were handled: all up to the last one, or these alone."""
    by_partition: dict[int, list[int]] = {}
    for partition, offset in places:
        by_partition.setdefault(partition, []).append(offset)
    own = [tp for tp in consumer.assignment() if tp.partition in by_partition]
    commits = {}
    for tp, handled in handled_letters(consumer, own).items():
        offsets = by_partition[tp.partition]
        marked = handled.up_to(max(offsets) + 1) if is_all else handled.with_single(offsets)
        commits[tp] = marked.commit()
    if commits:
        consumer.commit(commits)


def _resend_all(
    settings: Settings,
    consumer: KafkaConsumer,
    producer: KafkaProducer,
    done: ResendReport,
    only: Collection[LetterAt] | None,
) -> list[LetterAt]:
    """Send the letters; returns the places of those that wait no longer."""
    places: list[LetterAt] = []
    sent: list[_Sent] = []
    for letter, record in read_letters(consumer, settings, again=False):
        if record is None:
            if only is None:
                done.kept.append((letter, letter.detail))
            continue
        if not _is_meant(record, only):
            continue
        places.append((record.partition, record.offset))
        if letter.source.topic == record.topic:
            continue
        try:
            futures = [
                _send(settings, producer, letter.source.topic, original)
                for original in _originals(settings, letter, record.key)
            ]
        except (OriginalMissing, MessageRefused) as error:
            _keep(settings, producer, record)
            done.kept.append((letter, str(error)))
        else:
            sent.append(_Sent(letter, record, futures))
        if len(sent) >= MAX_UNDER_WAY:
            _settle(settings, producer, sent, done)
    _settle(settings, producer, sent, done)
    return places


def _settle(
    settings: Settings, producer: KafkaProducer, sent: list[_Sent], done: ResendReport
) -> None:
    """Wait for acknowledgements, and record the results."""
    for letter, record, futures in sent:
        try:
            for future in futures:
                _acknowledged(settings, future)
        except MessageRefused as error:
            _keep(settings, producer, record)
            done.kept.append((letter, str(error)))
        else:
            done.sent += 1
    sent.clear()


def _send(settings: Settings, producer: KafkaProducer, topic: str, message: Original) -> Any:  # noqa: ANN401
    try:
        return producer.send(topic, key=message.key, value=message.value)
    except KafkaError as error:
        raise classified(error) or unavailable(settings, error) from error


def _acknowledged(settings: Settings, future: Any) -> None:  # noqa: ANN401
    try:
        future.get(timeout=settings.publish_timeout_s)
    except KafkaError as error:
        raise classified(error) or unavailable(settings, error) from error


def _keep(settings: Settings, producer: KafkaProducer, record: Any) -> None:  # noqa: ANN401
    """Append a letter again, unchanged."""
    _acknowledged(settings, producer.send(record.topic, key=record.key, value=record.value))


def _originals(settings: Settings, letter: DeadLetter, key: bytes | None) -> list[Original]:
    """Original messages of a letter, read at its source if it is truncated."""
    if letter.source.topic not in Topics.of(settings).read:
        raise OriginalMissing(f"{letter.source.topic} is none of the topics that are read here")
    lacking = letter.truncated
    if lacking is None:
        # Every reader here treats an empty value as a tombstone; a compacted topic does not.
        return [Original(key, letter.raw() or None)]
    first = letter.source.offset
    last = first if lacking.last is None else lacking.last
    found = list(_read(settings, letter.source.topic, letter.source.partition, first, last))
    if not found:
        raise OriginalMissing(
            "Kafka no longer has the message, of which the letter holds only a part"
        )
    if lacking.last is not None:
        return found
    (whole,) = found
    fits = (
        (lacking.key is None or len(whole.key or b"") == lacking.key)
        and (lacking.payload is None or len(whole.value or b"") == lacking.payload)
        and (lacking.payload is None or (whole.value or b"").startswith(letter.raw()))
    )
    if not fits:
        raise OriginalMissing(
            "another message is at its offset, and the letter holds only a part of it"
        )
    return [Original(whole.key, whole.value if lacking.payload is not None else letter.raw())]


def _read(
    settings: Settings, topic: str, partition: int, first: int, last: int
) -> Iterator[Original]:
    """Messages at these offsets; raises `OriginalMissing` if they are unreadable or gone."""
    place = TopicPartition(topic, partition)
    consumer = connect(KafkaConsumer, settings, auto_offset_reset="none", enable_auto_commit=False)
    try:
        consumer.assign([place])
        consumer.seek(place, first)
        for _ in range(MAX_SILENT_POLLS):
            for record in consumer.poll(timeout_ms=POLL_MS).get(place, ()):
                if record.offset <= last:
                    yield Original(record.key, record.value)
            if consumer.position(place) > last:
                return
        raise OriginalMissing(f"Kafka does not give {topic}/{partition} at offset {first}")
    except Unreadable as error:
        raise OriginalMissing(str(error)) from error
    except KafkaError as error:
        raise OriginalMissing(f"Kafka does not give the truncated message: {error}") from error
    finally:
        consumer.close()
