"""Messages of every codec, messages that are too long, and batches that cannot be decoded."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from kafka import KafkaProducer

from models.settings import Settings
from streams.kafka.consuming.offsets import messages
from streams.kafka.dead_letters import Truncated
from streams.kafka.dead_letters import letters as dead_letters
from streams.kafka.topics import Topics
from tests.damage import CODECS, damaged
from tests.servers import own_port
from tests.stack import Stack


def click(item: str, session: str = "s") -> bytes:
    """A message of one click."""
    event = {"eventType": "click", "itemId": item, "sentAt": time.time() - 60}
    return json.dumps({"sessionId": session, "eventList": [event]}).encode()


def produce(settings: Settings, topic: str, *values: bytes, **options: Any) -> list[int]:
    """Produce messages to a partition, 0 by default; gives their offsets."""
    partition, key = options.pop("partition", 0), options.pop("key", b"k")
    producer = KafkaProducer(
        **{"linger_ms": 20, "max_request_size": 2**26, "bootstrap_servers": settings.kafka}
        | options
    )
    sent = [producer.send(topic, key=key, value=value, partition=partition) for value in values]
    offsets = [one.get(30).offset for one in sent]
    producer.close()
    return offsets


def applied(stack: Stack, n_events: int) -> None:
    """Wait until this many events are in effect."""
    stack.wait(lambda: stack.counts().get("events", 0) >= n_events, f"{n_events} events")
    assert stack.counts()["events"] == n_events


@pytest.mark.parametrize("codec", [*CODECS, "all in one"])
def test_every_codec_is_read(stack: Callable[..., Stack], codec: str) -> None:
    """Worker, status, jobs and dead letters read every codec of Kafka."""
    one = stack(partitions=2)
    topics = Topics.of(one.settings)
    used = CODECS if codec == "all in one" else (codec,)
    for number, name in enumerate(used):
        values = [click(f"{name}{n}" + "x" * 60, f"s{number}-{n}") for n in range(20)]
        poison = b"no message " * 50
        produce(one.settings, topics.clicks, *values, poison, compression_type=name)
        record = {"group": one.settings.group, "itemId": f"{name}0", "at": time.time()}
        described = json.dumps(record | {"properties": {"GENRE": "x" * 200}}).encode()
        produce(one.settings, topics.items, described, compression_type=name, key=b"t/i")
    one.start("worker")
    applied(one, 20 * len(used))
    one.wait(lambda: one.status().dead_letters == len(used), "what is no message is kept")
    one.wait(lambda: one.status().lag == 0, "nothing waits")
    read = list(messages(one.settings, {(topics.clicks, 0): 0}))
    assert len(read) == 21 * len(used)

    # A letter that is compressed itself, as by a topic with a codec of its own.
    letters = [(record.key, record.value) for _, record in dead_letters(one.settings)]
    for name in used:
        produce(one.settings, topics.dead_letters, letters[0][1], compression_type=name)
    assert f"{2 * len(used)} dead letters sent again" in one.run("dead-letters", "replay").stdout
    one.wait(lambda: len(list(dead_letters(one.settings))) == 2 * len(used), "all are back")


def test_a_long_message_becomes_a_dead_letter(stack: Callable[..., Stack]) -> None:
    """Key and value have the greatest length that Kafka accepts; others go on."""
    one = stack(partitions=2)
    topics = Topics.of(one.settings)
    produce(one.settings, topics.clicks, b"{" * 260_000, key=b"k" * 770_000)
    # Compressed, it may be far longer than a message that is not.
    produce(
        one.settings, topics.clicks, b"{" * 5_000_000, key=b"k" * 9_000_000, compression_type="zstd"
    )
    produce(one.settings, topics.items, b"{" * 260_000, key=b"k" * 770_000)
    produce(one.settings, topics.examples, b"{" * 260_000, key=b"k" * 770_000)
    produce(one.settings, topics.clicks, *(click(f"behind{n}", f"s{n}") for n in range(3)))
    produce(
        one.settings, topics.clicks, *(click(f"beside{n}", f"t{n}") for n in range(3)), partition=1
    )
    worker = one.start("worker")
    applied(one, 6)
    one.wait(lambda: one.status().dead_letters == 4, "all are kept")

    found = [letter for letter, _ in dead_letters(one.settings)]
    assert sorted(letter.stage for letter in found) == [
        "metadata",
        "ranker",
        "sessions",
        "sessions",
    ]
    assert {letter.truncated for letter in found} == {
        Truncated(770_000),
        Truncated(9_000_000, 5_000_000),
    }
    assert worker.poll() is None
    assert "Traceback" not in one.log()
    assert "away" not in one.log()


def metric(port: int, name: str) -> dict[str, float]:
    """The values of a metric by its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        found[1]: float(found[2])
        for found in re.finditer(rf"^{name}\{{(.*?)\}} (\S+)$", text, re.MULTILINE)
    }


def unreadable(stack: Stack) -> list[tuple[str, str, int, int, int]]:
    """Positions at which readers stand still, by status."""
    found = stack.status().unreadable
    return [(one.reader, one.topic, one.partition, one.first, one.last) for one in found]


@pytest.mark.parametrize("kind", ["checksum", "zstd"])
def test_an_undecodable_batch_stops_its_partition_alone(
    embedded_stack: Callable[..., Stack], kind: str
) -> None:
    """It is reported everywhere, all else goes on, and `skip` goes past it."""
    one = embedded_stack(partitions=2)
    stops_its_partition_alone(one, partial(damaged, one.settings, kind=kind))


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_batch_that_unpacks_too_far_stops_its_partition_alone(
    stack: Callable[..., Stack], codec: str
) -> None:
    """It is valid and a few kilobytes long, so no broker refuses it."""
    one = stack(partitions=2, max_unpacked_bytes=2**20)

    def put(topic: str, partition: int, *, messages: int = 1) -> int:
        values = [b" " * (3 * 2**20 // messages)] * messages
        offsets = produce(
            one.settings,
            topic,
            *values,
            partition=partition,
            compression_type=codec,
            batch_size=2**23,
            linger_ms=500,
        )
        assert offsets == list(range(offsets[0], offsets[0] + messages))
        return offsets[0]

    stops_its_partition_alone(one, put)
    assert "RECOMMENDER_MAX_UNPACKED_BYTES" in one.log()


def stops_its_partition_alone(one: Stack, put: Callable[..., int]) -> None:
    """Check the effect of a batch that `put` puts into a partition, of so many `messages`."""
    topics, port = Topics.of(one.settings), own_port()
    produce(one.settings, topics.clicks, click("before", "s0"))
    bad = put(topics.clicks, 0, messages=3)
    produce(one.settings, topics.clicks, click("behind", "s1"))
    put(topics.items, 1)
    put(topics.examples, 0)
    produce(one.settings, topics.clicks, click("beside", "s2"), partition=1)
    worker = one.start("worker", RECOMMENDER_METRICS_PORT=str(port))
    one.start("api")
    applied(one, 2)
    stuck = [("worker", topics.clicks, 0, bad, bad + 2), ("worker", topics.items, 1, 0, 0)]
    one.wait(lambda: unreadable(one) == stuck, "status names both")

    # New events of other partitions take effect, and those behind it wait.
    produce(one.settings, topics.clicks, click("later", "s3"), partition=1)
    applied(one, 3)
    assert one.status().lag == 5
    said = one.run("status").stdout
    assert f"{topics.clicks}/0 cannot be read at offsets {bad} to {bad + 2}: " in said
    one.wait(lambda: one.ask("GET", "/readyz")[0] == 200, "the API is ready")
    assert (
        f"{topics.clicks}/0 cannot be read at offset"
        in one.ask("GET", "/readyz")[1]["unreadable"][0]
    )
    labels = f'partition="0",reader="worker",topic="{topics.clicks}"'
    assert metric(port, "recommender_unreadable_offset")[labels] == bad

    for wrong in ((topics.clicks, "0", "0"), (topics.clicks, "1", "0"), ("x", "0", "0")):
        refused = one.run("skip", *wrong, "--yes")
        assert (refused.returncode, refused.stderr[:7]) == (1, "Error: ")
    assert one.run("skip", topics.clicks, "0", str(bad)).returncode == 2
    assert one.counts()["events"] == 3
    # Any of its offsets names a batch.
    done = one.run("skip", topics.clicks, "0", str(bad + 1), "--yes")
    assert (done.returncode, done.stdout[-22:]) == (0, "skipped by the worker\n"), done.stderr
    applied(one, 4)
    assert one.run("skip", topics.items, "1", "0", "--yes").returncode == 0
    one.wait(lambda: unreadable(one) == [], "nothing stands still")
    one.wait(lambda: one.status().lag == 0, "nothing waits")
    assert one.run("skip", topics.clicks, "0", str(bad), "--yes").returncode == 1

    found = [(m.source.topic, m.source.offset, m.truncated) for m, _ in dead_letters(one.settings)]
    assert sorted(found) == sorted(
        [
            (topics.clicks, bad, Truncated(last=bad + 2)),
            (topics.items, 0, Truncated(last=0)),
            (topics.examples, 0, Truncated(last=0)),
        ]
    )
    replayed = one.run("dead-letters", "replay")
    assert replayed.returncode == 1
    assert "cannot be read at offset" in replayed.stderr
    assert worker.poll() is None
    assert "Traceback" not in one.log()


def test_a_stop_survives_restarts(embedded_stack: Callable[..., Stack]) -> None:
    """A restarted worker stops at the same place; after a skip, a later one does not."""
    one = embedded_stack(partitions=2)
    topics = Topics.of(one.settings)
    bad = damaged(one.settings, topics.clicks, 0, kind="checksum")
    produce(one.settings, topics.clicks, click("behind", "s1"))
    first = one.start("worker")
    one.wait(lambda: bool(unreadable(one)), "the worker stands still")
    first.kill()
    first.wait()
    assert one.run("skip", topics.clicks, "0", str(bad), "--yes").returncode == 0
    one.start("worker")
    applied(one, 1)
