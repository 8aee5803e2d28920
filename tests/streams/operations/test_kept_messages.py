"""What Kafka still has: gaps behind a snapshot, topics made anew, how far a rebuild goes."""

from __future__ import annotations

import pytest

from models.settings import Settings
from streams.kafka.consuming.assignment import Partition
from streams.kafka.consuming.offsets import FirstWaiting, PartitionEnd
from streams.operations import kept_messages
from streams.operations.kept_messages import Gap, kept_text, messages_behind, messages_behind_text

pytestmark = pytest.mark.unit

NAMES = ("events.clicks", "events.purchases", "items", "users")


def offsets(**of_clicks: int) -> dict[Partition, int]:
    """Offsets of a topic's partitions by `p<number>`, and 0 for one of each other topic."""
    return {
        **{("events.clicks", int(name[1:])): offset for name, offset in of_clicks.items()},
        **{(name, 0): 0 for name in NAMES[1:]},
    }


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two partitions of clicks with messages 40 to 99 and 0 to 9; items from 7 on, compacted."""
    firsts = offsets(p0=40, p1=0) | {("items", 0): 7}
    ends = offsets(p0=100, p1=10) | {("items", 0): 12}
    found = {
        "topic_ids": lambda _, names: {name: f"c/{name}" for name in names},
        "first_offsets": lambda *_: firsts,
        "end_offsets": lambda *_: ends,
        "partition_ends": lambda *_: {tp: PartitionEnd(end, end) for tp, end in ends.items()},
        "first_waiting": lambda *_: {
            ("events.clicks", 0): FirstWaiting(40, 1_790_000_000.0),
            ("events.clicks", 1): FirstWaiting(0, None),
            ("items", 0): FirstWaiting(7, 1_780_000_000.0),
        },
    }
    for name, function in found.items():
        monkeypatch.setattr(kept_messages, name, function)


@pytest.mark.usefixtures("kafka")
def test_messages_that_wait_and_those_that_are_gone() -> None:
    """A gap is what came behind the watermark and is no longer there; compaction makes none."""
    marks = {"c/events.clicks/0": 49, "c/events.clicks/1": 9, "c/items/0": 2}
    assert messages_behind(Settings(), marks) == (50 + 5, [], [])

    found = messages_behind(Settings(), marks | {"c/events.clicks/0": 29})
    assert found == (60 + 5, [Gap("events.clicks", 0, 30, 39)], [])
    text = list(messages_behind_text(Settings(), marks | {"c/events.clicks/0": 29}))
    assert text[0].startswith("65 messages wait in Kafka")
    assert "events.clicks/0: messages 30 to 39" in text[1]
    assert "erasures" in text[1]
    assert len(text) == 2


@pytest.mark.usefixtures("kafka")
def test_topics_that_were_made_anew() -> None:
    """Their offsets begin again, so nothing of them is a gap; all of them is applied."""
    found = messages_behind(Settings(), {"old/events.clicks/0": 5, "c/items/0": 11})
    assert found == (
        60 + 10,
        [],
        ["events.clicks", "events.purchases", "users", "recommendations.served"],
    )
    assert "another topic" in list(messages_behind_text(Settings(), {"old/x/0": 1}))[1]


@pytest.mark.usefixtures("kafka")
def test_how_far_back_a_rebuild_goes() -> None:
    """By the oldest message of each topic, and that older ones are in none."""
    text = list(kept_text(Settings(event_retention_s=3 * 86400)))
    assert text == [
        "events.clicks: 70 messages at most, since 2026-09-21 14:13:20 UTC",
        "events.purchases: no messages",
        "items: 5 messages at most; the newest record of each",
        "users: no messages",
        "recommendations.served: no messages",
        "events are kept for 3 days: what is older is in no rebuild, but in snapshots",
    ]
