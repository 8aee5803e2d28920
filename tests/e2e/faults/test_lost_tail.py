"""Apache Kafka restarts without its last messages, as after a crash of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streams.kafka.topics import ensure_topics
from tests.servers import apache_kafka, debian_redis
from tests.stack import Redis, Servers, Stack, new_stack

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("worker_is_running", [True, False])
def test_events_at_the_offsets_of_lost_ones_take_effect(
    tmp_path: Path, *, worker_is_running: bool
) -> None:
    """Each event accepted after the crash counts once, and the log counts the lost ones."""
    with apache_kafka(tmp_path / "kafka") as kafka, debian_redis(tmp_path / "redis") as redis:
        kept = Redis(redis.address, tmp_path / "redis", redis.stop, redis.kill, redis.start)
        stack = new_stack(Servers(kafka.address, kept), "tail", tmp_path, partitions=2)
        ensure_topics(stack.settings)
        try:
            worker = stack.start("worker")
            stack.start("api")
            stack.wait_ready()
            for n in range(30):
                assert stack.ask("POST", "/events", body("old", n))[0] == 202
            stack.wait(lambda: counted(stack, "old") == 30, "all is in effect")
            if not worker_is_running:
                worker.kill()
                worker.wait()
            kafka.kill()
            cut_segments(tmp_path / "kafka" / "data")
            kafka.start()
            for n in range(12):
                stack.wait(
                    lambda n=n: stack.ask("POST", "/events", body("new", n))[0] == 202,  # type: ignore[misc]
                    "Kafka accepts again",
                )
            if not worker_is_running:
                worker = stack.start("worker")
            stack.wait(lambda: counted(stack, "new") == 12, "events after the crash are in effect")

            assert counted(stack, "old") == 30
            assert worker.poll() is None
            assert "Kafka has lost messages of" in stack.log()
        finally:
            stack.stop_all()


def body(item: str, n: int) -> dict[str, object]:
    """An event of one session."""
    event = {"eventType": "click", "itemId": item, "eventId": f"{item}-{n}", "sentAt": 1.79e9 + n}
    return {"sessionId": "s", "eventList": [event]}


def counted(stack: Stack, item: str) -> int:
    """Events of an item in effect."""
    status, answer = stack.ask("GET", f"/items/{item}")
    return int(answer["events"]) if status == 200 else 0


def cut_segments(data: Path) -> None:
    """Cut the last third of every partition of the clicks, as if not synced to disk."""
    for segment in data.glob("*events.clicks-*/*.log"):
        size = segment.stat().st_size
        os.truncate(segment, size - size // 3)
        for suffix in (".index", ".timeindex"):
            segment.with_suffix(suffix).write_bytes(b"")
