"""Dead letters: messages that could not be decoded, validated or applied, with reason and origin.

A letter always fits into a batch of a broker with Kafka's defaults. A longer message is truncated,
and the letter says so: the whole is at its source for as long as Kafka keeps it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from msgspec import Meta

from models.errors import Unavailable, Unreadable
from models.metadata_records import MAX_RECORD_BYTES
from models.settings import Settings
from streams.kafka.connections.connection import connect, unavailable
from streams.kafka.consuming.offsets import end_offsets, messages
from streams.kafka.handled_letters import HandledLetters
from streams.kafka.topics import Topics

POLL_MS = 500
MAX_SILENT_POLLS = 20

MAX_PAYLOAD_BYTES = MAX_RECORD_BYTES
"""Longest valid message of any topic: in base64 it is two thirds of Kafka's default limit.

Settings may have letters keep less, never more: a letter might not fit.
"""

MAX_KEY_BYTES = 2048
"""Longer than the key of any valid message, a group and an id. No setting: keeping less gains
nothing, and a longer key is of no use to a replay."""

LATEST_S = 253_402_300_799.0
"""The end of the year 9999: a message may carry any timestamp."""

LOGGED_IDS = 10
"""Events of a letter that the log names, at most."""

MAX_DETAIL_CHARS = 500
MAX_GROUP_CHARS = 63

FULL = "catalogue-full"
"""Reason: the group holds as many items or users as it may."""

UNREADABLE = "unreadable"
"""Reason: a batch was skipped because it cannot be decoded."""


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Origin(msgspec.Struct, frozen=True):
    """Position of a dead letter's message."""

    topic: str
    partition: Annotated[int, Meta(ge=0, lt=2**31)]
    offset: Offset


class Truncated(msgspec.Struct, frozen=True):
    """Missing parts of a truncated letter: lengths of the whole, in bytes.

    Attributes
    ----------
    key, payload
        None if the letter has all of it.
    last
        The last offset that the letter stands for, of an unreadable batch.
    """

    key: int | None = None
    payload: int | None = None
    last: Offset | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    """One message that could not be processed.

    Attributes
    ----------
    stage
        Part of the system that rejected it: sessions, metadata, ranker, forward or skip.
    reason, detail
        A word to count by, and a sentence to read.
    payload
        The original bytes, in base64.
    group
        The dataset group it was for; empty if unknown.
    truncated
        Missing parts, which have to be read at `source`; None if the letter is whole.
    """

    stage: str
    reason: str
    detail: str
    source: Origin
    at: Annotated[float, Meta(ge=0, le=LATEST_S)]
    payload: str
    group: str = ""
    truncated: Truncated | None = None

    def raw(self) -> bytes:
        """The original bytes, or their beginning."""
        return base64.b64decode(self.payload)


class _Event(msgspec.Struct):
    eventId: str = ""  # noqa: N815  as it is sent


class _Message(msgspec.Struct):
    eventList: list[_Event]  # noqa: N815  as it is sent


def loggable_event_ids(letter: DeadLetter) -> list[str]:
    """Ids of the first events in a letter, for the log: UUIDs only.

    Another id may tell who the user is, and no erasure would remove it from a log. Empty if the
    payload is no message of events.

    >>> sent = b'{"eventId":"6f1c9d8e-0b57-4c55-9d3b-0f6a2f3f7c11"},{"eventId":"ada-1"}'
    >>> payload = base64.b64encode(b'{"eventList":[' + sent + b"]}").decode()
    >>> loggable_event_ids(DeadLetter("sessions", "invalid", "", Origin("c", 0, 7), 0.0, payload))
    ['6f1c9d8e-0b57-4c55-9d3b-0f6a2f3f7c11']
    """
    try:
        sent = msgspec.json.decode(letter.raw(), type=_Message).eventList
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [one.eventId for one in sent[:LOGGED_IDS] if _UUID.fullmatch(one.eventId)]


def envelope(
    stage: str,
    reason: str,
    detail: str,
    source: tuple[str, int, int],
    raw: bytes,
    *,
    now_s: float,
    key: bytes = b"",
    group: str = "",
    payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> bytes:
    """A dead letter as JSON text of bounded length.

    Parameters
    ----------
    source
        Topic, partition, offset.
    key
        The message's key; the letter is to be produced under `letter_key` of it.
    payload_bytes
        Most bytes of the message that it keeps, up to `MAX_PAYLOAD_BYTES`.
    """
    is_long = len(raw) > payload_bytes
    is_keyless = len(key) > MAX_KEY_BYTES
    truncated = Truncated(len(key) if is_keyless else None, len(raw) if is_long else None)
    letter = DeadLetter(
        stage,
        reason,
        _printable(detail, MAX_DETAIL_CHARS),
        Origin(*source),
        min(max(now_s, 0.0), LATEST_S),
        base64.b64encode(raw[:payload_bytes]).decode(),
        _printable(group, MAX_GROUP_CHARS),
        truncated if is_long or is_keyless else None,
    )
    return msgspec.json.encode(letter)


def letter_key(key: bytes) -> bytes | None:
    """Key of a letter: its message's, so that it goes to the same partition; None if too long."""
    return key if 0 < len(key) <= MAX_KEY_BYTES else None


def without_payload(letter: bytes, key: bytes | None) -> bytes:
    """The same letter with its position alone, for a broker with a limit below Kafka's default.

    It is to be produced without a key.
    """
    whole = msgspec.json.decode(letter, type=DeadLetter)
    lacking = whole.truncated or Truncated()
    lacking = Truncated(
        lacking.key if key is None else len(key),
        lacking.payload if lacking.payload is not None else len(whole.raw()),
        lacking.last,
    )
    return msgspec.json.encode(msgspec.structs.replace(whole, payload="", truncated=lacking))


def of_unreadable(error: Unreadable, *, now_s: float) -> bytes:
    """A dead letter for an unreadable batch: it has its position alone."""
    letter = DeadLetter(
        "skip",
        UNREADABLE,
        _printable(str(error), MAX_DETAIL_CHARS),
        Origin(error.topic, error.partition, error.first),
        now_s,
        "",
        truncated=Truncated(last=error.last),
    )
    return msgspec.json.encode(letter)


def _printable(text: str, most: int) -> str:
    """A text of bounded length that can be encoded, and is safe to show in a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:most])


def letters(settings: Settings, *, again: bool = False) -> Iterator[tuple[DeadLetter, Any]]:
    """Dead letters that were neither replayed nor discarded, or all, up to the current end.

    With kafka-python's record of each; None for an unreadable one.

    Raises
    ------
    Unavailable
        Kafka does not answer.
    """
    consumer = letter_consumer(settings)
    try:
        yield from read_letters(consumer, settings, again=again)
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer: {error}") from error
    finally:
        consumer.close()


def ends(settings: Settings) -> dict[str, int]:
    """Current end of the dead letters, by partition; blocking."""
    found = end_offsets(settings, [Topics.of(settings).dead_letters])
    return {str(partition): end for (_, partition), end in found.items()}


def since(settings: Settings, ends: Mapping[str, int]) -> Iterator[DeadLetter]:
    """Dead letters behind these ends; raises `Unavailable`; blocking."""
    topic = Topics.of(settings).dead_letters
    starts = {(topic, int(partition)): end for partition, end in ends.items()}
    return map(_letter, messages(settings, starts))


def waiting_letters(settings: Settings, ends: Mapping[tuple[str, int], int]) -> int:
    """Number of letters in Kafka that were neither replayed nor discarded; blocking.

    Parameters
    ----------
    ends
        Ends of partitions; those of other topics are ignored.
    """
    topic = Topics.of(settings).dead_letters
    own = {TopicPartition(*tp): end for tp, end in ends.items() if tp[0] == topic and end}
    if not own:
        return 0
    consumer = letter_consumer(settings)
    try:
        first = consumer.beginning_offsets(list(own))
        handled = handled_letters(consumer, own)
    except KafkaError as error:
        raise unavailable(settings, error) from error
    finally:
        consumer.close()
    waiting = 0
    for tp, end in own.items():
        done = handled[tp].up_to(first[tp])
        waiting += max(0, end - done.following) - sum(offset < end for offset in done.beyond)
    return waiting


def handled_letters(
    consumer: KafkaConsumer, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, HandledLetters]:
    """Letters of each partition that were replayed or discarded; blocking."""
    return {tp: HandledLetters.of(consumer.committed(tp, metadata=True)) for tp in partitions}


def letter_consumer(settings: Settings) -> KafkaConsumer:
    """A consumer whose committed offsets tell which letters were replayed or discarded."""
    return connect(
        KafkaConsumer,
        settings,
        group_id=f"{settings.group}-dead-letters",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )


def read_letters(
    consumer: KafkaConsumer, settings: Settings, *, again: bool
) -> Iterator[tuple[DeadLetter, Any]]:
    """Dead letters as of `letters`, by the caller's consumer."""
    # Letters that arrive meanwhile are left for the next time: a replay may have made them.
    ends = {
        TopicPartition(*partition): end
        for partition, end in end_offsets(settings, [Topics.of(settings).dead_letters]).items()
    }
    consumer.assign(list(ends))
    handled = dict.fromkeys(ends, HandledLetters())
    if again:
        consumer.seek_to_beginning(*ends)
    else:
        handled = handled_letters(consumer, ends)
    silent_polls = 0
    while any(consumer.position(tp) < end for tp, end in ends.items()):
        try:
            polled = consumer.poll(timeout_ms=POLL_MS)
        except Unreadable as error:
            consumer.seek(TopicPartition(error.topic, error.partition), error.last + 1)
            yield msgspec.json.decode(of_unreadable(error, now_s=0.0), type=DeadLetter), None
            continue
        silent_polls = 0 if polled else silent_polls + 1
        if silent_polls > MAX_SILENT_POLLS:
            raise Unavailable(f"Kafka at {settings.kafka} stopped answering: try again")
        for tp, records in polled.items():
            for record in records:
                if record.offset < ends[tp] and not handled[tp].has(record.offset):
                    yield _letter(record), record


def _letter(record: Any) -> DeadLetter:  # noqa: ANN401  kafka-python is not typed
    """The dead letter in a record; an invalid one becomes a letter with this topic as origin."""
    raw = record.value or b""
    try:
        letter = msgspec.json.decode(raw, type=DeadLetter)
        letter.raw()
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        source = (record.topic, record.partition, record.offset)
        at_s = record.timestamp / 1000
        letter = msgspec.json.decode(
            envelope("unknown", "invalid", f"no dead letter: {error}", source, raw, now_s=at_s),
            type=DeadLetter,
        )
    return letter
