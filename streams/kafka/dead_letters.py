"""Dead letters: what could not be decoded, validated or applied, kept with reason and origin.

A letter always fits into what a broker with Kafka's defaults takes. What is too long for it is cut,
and then the letter says so: the whole is at its source for as long as Kafka keeps it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from msgspec import Meta

from models.errors import Unavailable, Unreadable
from models.metadata_records import MAX_RECORD_BYTES
from models.settings import Settings
from streams.kafka.connection import connect, unavailable
from streams.kafka.offsets import end_offsets, messages
from streams.kafka.topics import Topics

POLL_MS = 500
MAX_SILENT_POLLS = 20

MAX_PAYLOAD_BYTES = MAX_RECORD_BYTES
"""The longest message that is valid anywhere: in base64 it is two thirds of what Kafka takes.

Settings may have letters keep less, never more: then a letter might not fit.
"""

MAX_KEY_BYTES = 2048
"""Longer than the key of any valid message, a group and an id; so no setting: there is nothing to
gain by keeping less, and a longer one is of no use to a replay."""

LATEST_S = 253_402_300_799.0
"""The end of the year 9999: whoever produces a message gives it any time."""

MAX_DETAIL_CHARS = 500
MAX_GROUP_CHARS = 63

FULL = "catalogue-full"
"""The reason of what went beyond the items or users that a group may hold."""

UNREADABLE = "unreadable"
"""The reason of what was passed over because nobody could decode it."""


Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Origin(msgspec.Struct, frozen=True):
    """Where the bytes of a dead letter came from."""

    topic: str
    partition: Annotated[int, Meta(ge=0, lt=2**31)]
    offset: Offset


class Truncated(msgspec.Struct, frozen=True):
    """What a letter lacks of its message: lengths of the whole, in bytes.

    Attributes
    ----------
    key, payload
        None where the letter has all of it.
    last
        The last offset that the letter stands for, where nothing could be decoded.
    """

    key: int | None = None
    payload: int | None = None
    last: Offset | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    """One thing that could not be processed.

    Attributes
    ----------
    stage
        What gave up on it: sessions, metadata, ranker, forward or skip.
    reason, detail
        A word to count by, and a sentence to read.
    payload
        The original bytes, in base64.
    group
        The dataset group it was for; empty where that could not be made out.
    truncated
        What is not in the letter, and has to be read at `source`; None if all is.
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
    """A dead letter as JSON text, bounded whatever is in it.

    Parameters
    ----------
    source
        Topic, partition, offset.
    key
        The message's; the letter is to be produced under `letter_key` of it.
    payload_bytes
        How much of the message it keeps at most, up to `MAX_PAYLOAD_BYTES`.
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
    """What a letter is produced under: its message's key, so that it goes to the same partition."""
    return key if 0 < len(key) <= MAX_KEY_BYTES else None


def without_payload(letter: bytes, key: bytes | None) -> bytes:
    """The same letter with its position alone, for a broker that takes less than Kafka's default.

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
    """A dead letter for messages that nobody could decode: it has their position alone."""
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
    """A text in bounds that can be encoded, and changes nothing where it is shown."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:most])


def letters(settings: Settings, *, again: bool = False) -> Iterator[tuple[DeadLetter, Any]]:
    """The dead letters that were not replayed yet, or all of them; then stops.

    Beside each is its record, as kafka-python has it; None where that could not be decoded.

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
    """Where the dead letters end now, by partition; blocking."""
    found = end_offsets(settings, [Topics.of(settings).dead_letters])
    return {str(partition): end for (_, partition), end in found.items()}


def since(settings: Settings, ends: Mapping[str, int]) -> Iterator[DeadLetter]:
    """The dead letters that came since they ended there; raises `Unavailable`; blocking."""
    topic = Topics.of(settings).dead_letters
    starts = {(topic, int(partition)): end for partition, end in ends.items()}
    return map(_letter, messages(settings, starts))


def waiting_letters(settings: Settings, ends: Mapping[tuple[str, int], int]) -> int:
    """How many letters were not replayed, of those that Kafka still has; blocking.

    Parameters
    ----------
    ends
        Where partitions end; of other topics, they are passed over.
    """
    topic = Topics.of(settings).dead_letters
    own = {TopicPartition(*tp): end for tp, end in ends.items() if tp[0] == topic and end}
    if not own:
        return 0
    consumer = letter_consumer(settings)
    try:
        first = consumer.beginning_offsets(list(own))
        done = {tp: max(first[tp], consumer.committed(tp) or 0) for tp in own}
    except KafkaError as error:
        raise unavailable(settings, error) from error
    finally:
        consumer.close()
    return sum(max(0, end - done[tp]) for tp, end in own.items())


def letter_consumer(settings: Settings) -> KafkaConsumer:
    """A consumer whose committed offsets say which letters were replayed."""
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
    """As `letters`, with a consumer of the caller's."""
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
                if record.offset < ends[tp]:
                    yield _letter(record), record


def _letter(record: Any) -> DeadLetter:  # noqa: ANN401  kafka-python is not typed
    """The dead letter in a record; what is none is shown as one whose origin is this topic."""
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
