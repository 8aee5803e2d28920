"""The drill at a small size; `make drill` runs it in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kafka import TopicPartition

from models.state.messages import StoredMessage
from tests.drill.audit import log_of
from tests.drill.load import covered_s
from tests.drill.storm import Plan, run
from tests.drill.tails import Record, Tail


# A producer whose broker was killed leaves the pair of sockets by which kafka-python wakes it.
@pytest.mark.filterwarnings(
    r"ignore:unclosed <socket.socket fd=\d+, family=1, type=1, proto=0>:ResourceWarning",
    r"ignore:Exception ignored in. <socket.socket fd=\d+, family=1, type=1, proto=0>",
)
@pytest.mark.kafka
def test_a_small_drill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """With fifteen kinds of faults or more, every event takes effect once."""
    report = run(tmp_path, Plan(n_faults=18, seed=7, audit_every=18), say=print)
    assert report["kinds"] >= 15
    assert report["acknowledged_events"] > 300
    assert report["passed"], json.dumps(report, indent=1)


def test_lost_events_in_effect_come_before_those_at_their_offsets() -> None:
    """Twice at one offset, and once behind it."""
    place = TopicPartition("clicks", 0)
    tails = [
        Tail(place, 2, [event(2, "b"), event(3, "c"), event(4, "never")], in_effect=3),
        Tail(place, 2, [event(2, "d"), event(3, "never")], in_effect=2),
        Tail(place, 3, [event(3, "f"), event(4, "g")], in_effect=9),
        Tail(place, 3, [event(3, "never")], in_effect=-1),
    ]
    log = log_of([event(0, "a"), event(2, "e"), event(3, "c"), event(4, "h")], tails)
    assert items_of(log.messages["clicks", 0]) == ["a", "b", "c", "d", "e", "f", "g", "c", "h"]
    assert {name: places[0][2] for name, places in log.positions.items()} == {
        "id-a": 0,
        "id-e": 2,
        "id-c": 3,
        "id-h": 4,
    }


def test_time_without_acceptance() -> None:
    """Messages that wait at the same time count once."""
    assert covered_s([]) == 0
    assert covered_s([(5.0, 6.0), (1.0, 4.0), (2.0, 3.0), (3.5, 4.5)]) == 4.5


def event(offset: int, item: str) -> Record:
    """A message of one event on an item."""
    told = {"eventId": f"id-{item}", "eventType": "click", "itemId": item, "sentAt": 1_790_000_000}
    body = {"sessionId": "s", "eventList": [told]}
    return Record("clicks", 0, offset, json.dumps(body).encode())


def items_of(messages: list[StoredMessage]) -> list[str]:
    """Items of the messages, whose numbers must begin at 0."""
    assert [message.offset for message in messages] == list(range(len(messages)))
    return [message.events[0].item_id for message in messages]
