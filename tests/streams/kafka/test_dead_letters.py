"""Dead letters: they always fit, name their missing parts, and are replayed whole."""

from __future__ import annotations

import time
import uuid
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from models.errors import Unreadable
from models.settings import Settings
from streams.kafka.connections.connection import connect
from streams.kafka.consuming.offsets import end_offsets
from streams.kafka.dead_letters import (
    MAX_KEY_BYTES,
    MAX_PAYLOAD_BYTES,
    DeadLetter,
    Truncated,
    envelope,
    letter_key,
    letters,
    loggable_event_ids,
    of_unreadable,
    waiting_letters,
    without_payload,
)
from streams.kafka.faust_clients.faust_producing import keep_letter
from streams.kafka.topics import Topics, ensure_topics
from streams.operations.resending import resend
from tests.damage import KINDS, damaged

NOW_S = 1.8e9
KAFKAS_LIMIT = 1_048_576
FAUSTS_LIMIT = 1_000_000

anything = st.text(st.characters(exclude_categories=()), max_size=2000)
"""Texts of any characters, including lone surrogates and control characters."""


@given(st.one_of(st.binary(max_size=300), st.just(b"[" * 100_000)))
def test_only_uuids_of_events_are_logged(raw: bytes) -> None:
    """A payload of any content gives none; at most the first ten events are named."""
    letter = msgspec.json.decode(
        envelope("sessions", "invalid", "", ("t", 0, 1), raw, now_s=NOW_S), type=DeadLetter
    )
    assert loggable_event_ids(letter) == []


async def test_a_kept_letter_is_logged_with_its_events(caplog: pytest.LogCaptureFixture) -> None:
    """The record of a dead letter has the ids of its events, which name no user."""
    ids = [str(uuid.UUID(int=n)) for n in range(20)]
    sent = {"eventList": [{"eventId": one, "itemId": "tent"} for one in ["ada-7", *ids]]}
    raw = msgspec.json.encode(sent)
    app = mock.Mock()
    app.producer.send_and_wait = mock.AsyncMock()
    letter = envelope("sessions", "invalid", "no user", ("t", 0, 1), raw, now_s=NOW_S)
    await keep_letter(app, "dead", None, letter)
    (record,) = caplog.records

    assert record.getMessage() == "dead letter of t/0/1 by sessions, invalid: no user"
    assert vars(record)["event_ids"] == ids[:9]


@given(
    st.binary(max_size=3000),
    st.integers(0, 1_100_000),
    st.integers(0, 1_100_000),
    anything,
    anything,
    st.one_of(st.integers(0, MAX_PAYLOAD_BYTES), st.just(MAX_PAYLOAD_BYTES)),
)
def test_a_letter_always_fits(
    begin: bytes, key_bytes: int, value_bytes: int, detail: str, group: str, most: int
) -> None:
    """Key and letter are within Kafka's limit for any message, detail and group."""
    key, value = begin.ljust(key_bytes, b"\xff"), begin.ljust(value_bytes, b"\xff")
    source = ("t" * 249, 2**31 - 1, 2**63 - 1)
    raw = envelope(
        "sessions",
        "invalid",
        detail,
        source,
        value,
        now_s=NOW_S,
        key=key,
        group=group,
        payload_bytes=most,
    )
    assert len(raw) + len(letter_key(key) or b"") < FAUSTS_LIMIT < KAFKAS_LIMIT
    letter = msgspec.json.decode(raw, type=DeadLetter)
    assert letter.raw() == value[:most]
    is_whole = len(key) <= MAX_KEY_BYTES and len(value) <= most
    assert (letter.truncated is None) is is_whole
    if letter.truncated:
        assert letter.truncated.key in (None, len(key))
        assert letter.truncated.payload in (None, len(value))
    small = without_payload(raw, letter_key(key))
    assert len(small) < 5000
    lacking = msgspec.json.decode(small, type=DeadLetter).truncated
    assert lacking is not None
    assert lacking.payload == len(value)


@pytest.fixture
def settings(broker: str, request: pytest.FixtureRequest) -> Settings:
    """Topics of one test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
    made = Settings(kafka=broker, topic_prefix=f"{name}.", group=name, partitions=2)
    ensure_topics(made)
    return made


def produce(
    settings: Settings, topic: str, *messages: tuple[bytes | None, bytes], **options: Any
) -> list[int]:
    """Produce messages to partition 0 of a topic; returns their offsets."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka, max_request_size=2**25, **options)
    sent = [producer.send(topic, key=key, value=value, partition=0) for key, value in messages]
    offsets = [one.get(30).offset for one in sent]
    producer.close()
    return offsets


def arrived(settings: Settings, topic: str, since: int) -> list[tuple[bytes | None, bytes | None]]:
    """Key and value of a topic's messages, of partition 0 behind an offset, of 1 all."""
    consumer = connect(KafkaConsumer, settings, auto_offset_reset="earliest")
    ends = end_offsets(settings, [topic])
    consumer.assign([TopicPartition(*tp) for tp in ends])
    consumer.seek(TopicPartition(topic, 0), since + 1)
    found = []
    deadline_s = time.monotonic() + 30
    while any(consumer.position(TopicPartition(*tp)) < end for tp, end in ends.items()):
        assert time.monotonic() < deadline_s
        for records in consumer.poll(timeout_ms=100).values():
            found += [(record.key, record.value) for record in records]
    consumer.close()
    return found


def letter_of(
    settings: Settings, offset: int, key: bytes, value: bytes
) -> tuple[bytes | None, bytes]:
    """Key and value of a dead letter for a message of the clicks topic."""
    source = (Topics.of(settings).clicks, 0, offset)
    return letter_key(key), envelope("sessions", "no", "d", source, value, key=key, now_s=NOW_S)


LONG = 600_000
MESSAGES = {
    "short": (b"k", b"v"),
    "without a key": (b"", b"v"),
    "long key": (b"k" * LONG, b"v"),
    "long value": (b"k", b"v" * LONG),
    "both": (b"k" * LONG, b"v" * LONG),
    "far beyond what a batch may have": (b"k" * 10_000_000, b"v" * LONG),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_replay_sends_the_whole_message(settings: Settings, name: str) -> None:
    """The rest of a truncated one is read at its source."""
    topics = Topics.of(settings)
    key, value = MESSAGES[name]
    (offset,) = produce(settings, topics.clicks, (key or None, value), compression_type="zstd")
    produce(settings, topics.dead_letters, letter_of(settings, offset, key, value))

    done = resend(settings)

    assert (done.sent, done.kept) == (1, [])
    assert arrived(settings, topics.clicks, offset) == [(key or None, value)]
    assert list(letters(settings)) == []


def test_replayed_letters_are_not_counted_as_waiting(settings: Settings) -> None:
    """The count goes back to 0, and then counts later letters."""
    topics = Topics.of(settings)

    def waiting() -> int:
        return waiting_letters(settings, end_offsets(settings, [topics.dead_letters]))

    (offset,) = produce(settings, topics.clicks, (b"k", b"v"))
    before = waiting()
    for _ in range(2):
        produce(settings, topics.dead_letters, letter_of(settings, offset, b"k", b"v"))
    added = waiting() - before
    resend(settings)
    done = waiting()
    produce(settings, topics.dead_letters, letter_of(settings, offset, b"k", b"v"))

    assert (before, added, done, waiting()) == (0, 2, 0, 1)


def test_a_truncated_message_is_never_sent_in_part(settings: Settings) -> None:
    """A letter whose source has another message by now, or none, stays, with the reason."""
    topics = Topics.of(settings)
    (offset,) = produce(settings, topics.clicks, (b"k", b"another"))
    for at in (offset, offset + 5):
        produce(settings, topics.dead_letters, letter_of(settings, at, b"k", b"v" * LONG))

    done = resend(settings)

    assert done.sent == 0
    reasons = [reason for _, reason in done.kept]
    assert "another message is at its offset" in reasons[0]
    assert "Kafka" in reasons[1]
    assert arrived(settings, topics.clicks, offset) == []
    assert [letter.source.offset for letter, _ in letters(settings)] == [offset, offset + 5]


def test_a_letter_of_a_foreign_topic_is_not_sent(settings: Settings) -> None:
    """No message is produced to a topic that is not read here."""
    letter = envelope("sessions", "no", "d", ("their.topic", 0, 0), b"v", now_s=NOW_S)
    produce(settings, Topics.of(settings).dead_letters, (None, letter))
    done = resend(settings)
    assert done.sent == 0
    assert "none of the topics" in done.kept[0][1]


def test_an_unreadable_batch_is_sent_once_it_is_readable(settings: Settings) -> None:
    """Its letter stands for all of its messages."""
    topics = Topics.of(settings)
    messages = [(b"k", b"%d" % n) for n in range(3)]
    offsets = produce(settings, topics.clicks, *messages)
    error = Unreadable(topics.clicks, 0, offsets[0], offsets[-1], "a codec of the future")
    produce(settings, topics.dead_letters, (None, of_unreadable(error, now_s=NOW_S)))
    assert [letter.truncated for letter, _ in letters(settings)] == [Truncated(last=offsets[-1])]

    assert resend(settings).sent == 1

    assert arrived(settings, topics.clicks, offsets[-1]) == messages


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_batch_is_reported_and_skipped(settings: Settings, kind: str) -> None:
    """Letters behind an unreadable one are listed and sent; an unreadable source is a reason."""
    topics = Topics.of(settings)
    bad = damaged(settings, topics.clicks, 0, kind=kind, messages=3)
    error = Unreadable(topics.clicks, 0, bad, bad + 2, "damaged")
    produce(settings, topics.dead_letters, (None, of_unreadable(error, now_s=NOW_S)))
    damaged(settings, topics.dead_letters, 0, kind=kind, messages=2)
    (offset,) = produce(settings, topics.clicks, (b"k", b"v"))
    produce(settings, topics.dead_letters, letter_of(settings, offset, b"k", b"v"))

    listed = [letter for letter, _ in letters(settings)]
    done = resend(settings)

    assert [letter.reason for letter in listed] == ["unreadable", "unreadable", "no"]
    assert (listed[1].source.topic, listed[1].truncated) == (topics.dead_letters, Truncated(last=2))
    assert done.sent == 1
    assert all("cannot be read at offset" in reason for _, reason in done.kept)
    assert arrived(settings, topics.clicks, offset) == [(b"k", b"v")]
