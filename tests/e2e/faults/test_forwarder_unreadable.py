"""The forwarder reads every codec, and stops at batches that cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from streams.kafka.consuming.offsets import messages
from streams.kafka.dead_letters import letters as dead_letters
from streams.kafka.topics import Topics
from tests.damage import CODECS, damaged
from tests.e2e.faults.test_unreadable import applied, click, produce, unreadable
from tests.stack import Stack
from tests.streams.forwarding.forwarding_fixtures import environment
from tests.streams.forwarding.personalize_stub import PersonalizeStub


@pytest.fixture
def aws() -> Iterator[PersonalizeStub]:
    """A fake Amazon Personalize."""
    with PersonalizeStub() as stub:
        yield stub


def items(aws: PersonalizeStub) -> set[str]:
    """Items of the events that it has received."""
    return {taken.event["itemId"] for taken in list(aws.taken)}


def test_the_forwarder_reads_every_codec(stack: Callable[..., Stack], aws: PersonalizeStub) -> None:
    """All codecs in one partition, in batches of which some messages are missing."""
    one = stack(partitions=2)
    clicks = Topics.of(one.settings).clicks
    sent = set()
    for codec in CODECS:
        names = [f"{codec}{n}" + "x" * 60 for n in range(20)]
        produce(one.settings, clicks, *map(click, names), compression_type=codec)
        sent |= set(names)
    one.start("forward", **environment(aws))
    one.wait(lambda: items(aws) == sent, "all are forwarded")
    one.wait(lambda: one.status().forward["waiting"] == 0, "nothing waits")


@pytest.mark.parametrize(("kind", "is_first"), [("checksum", False), ("zstd", True)])
def test_an_undecodable_batch_stops_one_partition_of_the_forwarder(
    embedded_stack: Callable[..., Stack], aws: PersonalizeStub, kind: str, is_first: bool
) -> None:
    """It is reported, and `skip` goes past it.

    Also where the forwarder has passed nothing in the partition yet.
    """
    one = embedded_stack(partitions=2)
    clicks = Topics.of(one.settings).clicks
    sent = {"beside"} if is_first else {"before", "beside"}
    if not is_first:
        produce(one.settings, clicks, click("before"))
    bad = damaged(one.settings, clicks, 0, kind=kind, messages=2)
    produce(one.settings, clicks, click("behind"))
    produce(one.settings, clicks, click("beside"), partition=1)
    forwarder = one.start("forward", **environment(aws))
    stuck = ("forwarder", clicks, 0, bad, bad + 1)
    one.wait(lambda: unreadable(one) == [stuck] and items(aws) == sent, "it stands still there")
    produce(one.settings, clicks, click("later"), partition=1)
    one.wait(lambda: items(aws) == sent | {"later"}, "the other partition goes on")
    said = one.run("status").stdout
    assert f"the forwarder stands still: {clicks}/0 cannot be read at offsets {bad} to " in said

    # A worker comes to it, too: one word for both.
    one.start("worker")
    one.wait(lambda: len(unreadable(one)) == 2, "both stand still")
    done = one.run("skip", clicks, "0", str(bad + 1), "--yes")
    assert done.returncode == 0, done.stderr
    one.wait(lambda: items(aws) == sent | {"later", "behind"}, "the forwarder goes on")
    applied(one, 4 - is_first)
    one.wait(lambda: unreadable(one) == [], "nothing stands still")
    one.wait(lambda: one.status().forward["waiting"] == 0, "nothing waits")
    assert [letter.source.offset for letter, _ in dead_letters(one.settings)] == [bad]
    assert forwarder.poll() is None
    assert "Traceback" not in one.log()


@pytest.mark.slow
def test_a_skip_holds_for_the_forwarder_alone(
    embedded_stack: Callable[..., Stack], aws: PersonalizeStub
) -> None:
    """A worker that starts later stops at the batch too."""
    one = embedded_stack(partitions=1)
    clicks = Topics.of(one.settings).clicks
    produce(one.settings, clicks, click("before"))
    bad = damaged(one.settings, clicks, 0, kind="zstd")
    produce(one.settings, clicks, click("behind"))
    one.start("forward", **environment(aws))
    one.wait(lambda: bool(unreadable(one)), "it stands still")
    done = one.run("skip", clicks, "0", str(bad), "--yes")
    assert "skipped by the forwarder\n" in done.stdout, done.stderr
    one.wait(lambda: items(aws) == {"before", "behind"}, "it goes on")

    one.start("worker")
    one.wait(lambda: unreadable(one) == [("worker", clicks, 0, bad, bad)], "the worker stops")
    assert one.counts()["events"] == 1


def test_dead_letters_keep_bounded_payloads(
    embedded_stack: Callable[..., Stack], aws: PersonalizeStub
) -> None:
    """A replay reads the whole message at its source, or a single event of it."""
    one = embedded_stack(partitions=2, dead_letter_payload_bytes=4)
    topics = Topics.of(one.settings)
    aws.refuse = lambda event: "no" if event["itemId"] == "refused" else None
    poison = b"no message at all"
    for topic in (topics.clicks, topics.items, topics.examples):
        produce(one.settings, topic, poison)
    produce(one.settings, topics.clicks, click("refused"))
    one.start("worker")
    one.start("forward", **environment(aws))
    one.wait(lambda: one.status().dead_letters == 4, "all are kept")
    kept = {letter.stage: letter for letter, _ in dead_letters(one.settings)}
    assert kept.keys() == {"sessions", "metadata", "ranker", "forward"}
    assert {len(letter.raw()) for letter in kept.values()} == {4}
    lacking = kept["sessions"].truncated
    assert lacking is not None
    assert lacking.payload == len(poison)
    assert "3 dead letters sent again" in one.run("dead-letters", "replay").stdout
    one.wait(lambda: one.status().dead_letters == 4, "they are kept again, beside the forwarder's")
    sent = [record.value for record in messages(one.settings, {(topics.clicks, 0): 0})]
    assert sent.count(poison) == 2
