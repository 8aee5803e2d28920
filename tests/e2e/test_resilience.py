"""Nothing lost, nothing counted twice: kills, redeliveries, lost state, poison."""

from __future__ import annotations

import csv
import itertools
import json
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaProducer

from models.catalogue import Catalogue
from models.sessions import unpack_history
from models.store import Store
from streams.topics import Topics
from tests.stack import Stack

Rows = list[tuple[str, str, str, int]]


def recording(path: Path, n: int, *, seed: int = 7) -> Rows:
    """A file of distinct events of some users, and its rows."""
    chance = random.Random(seed)
    rows: Rows = []
    for number in range(n):
        kind = "purchase" if chance.random() < 0.1 else "click"
        user, item = f"u{chance.randrange(60)}", f"i{int(chance.paretovariate(0.7)) % 300}"
        rows.append((user, item, kind, 1_700_000_000 + number))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user", "item", "type", "ts"))
        writer.writerows(rows)
    return rows


def assert_exact(stack: Stack, rows: Rows) -> None:
    """The state is exactly that of every row applied once."""
    users = Counter(user for user, *_ in rows)
    items = Counter(item for _, item, *_ in rows)
    bought = Counter(item for _, item, kind, _ in rows if kind == "purchase")

    async def read(store: Store) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
        histories = {
            user: unpack_history(await store.redis.get(store.key(f"history:u:{user}"))).count
            for user in users
        }
        names = sorted(items)
        indexes = await store.item_indexes(names)
        stats = await Catalogue(store).stats(np.array(indexes, np.int64), time.time())
        counted = {
            name: (int(row["events"]), int(row["purchases"]))
            for name, row in zip(names, stats, strict=True)
        }
        return histories, counted

    histories, counted = stack.stored(read)
    counts = stack.counts()
    assert counts["events"] == len(rows)
    assert counts.get("duplicates", 0) == 0
    assert counts["purchases"] == sum(bought.values())
    assert histories == dict(users)
    assert counted == {item: (n, bought[item]) for item, n in items.items()}
    status = json.loads(stack.run("status", "--json").stdout)
    assert status["lag"] == 0
    assert all(p["watermark"] == p["end"] - 1 for p in status["partitions"])


def wait_applied(stack: Stack, n: int) -> None:
    """Wait until that many events are in effect."""
    stack.wait(lambda: stack.counts().get("events", 0) >= n, f"{n} events are in effect", 180)


def kill_often(stack: Stack, rows: Rows, path: Path, kills: int) -> None:
    """Replay a file while workers are killed at random points, until all is in effect."""
    chance = random.Random(11)
    assert stack.run("replay", str(path)).returncode == 0
    for number in range(kills):
        # Nearer to the end each time, so that every kill finds something under way.
        goal = len(rows) * (number + chance.random()) / kills
        worker = stack.start("worker")
        stack.wait(
            lambda goal=goal: stack.counts().get("events", 0) > goal,  # type: ignore[misc]
            f"more than {goal} events are in effect",
        )
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    stack.start("worker")
    wait_applied(stack, len(rows))


def test_worker_killed_in_mid_batch(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """A worker killed -9 at random points ends in exactly the state of an undisturbed run."""
    one = stack(batch_events=50)
    rows = recording(tmp_path / "events.csv", 3000)

    kill_often(one, rows, tmp_path / "events.csv", kills=3)

    assert_exact(one, rows)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_worker_killed_twenty_times(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """The same twenty times."""
    one = stack(batch_events=50)
    rows = recording(tmp_path / "events.csv", 20_000)

    kill_often(one, rows, tmp_path / "events.csv", kills=20)

    assert_exact(one, rows)


def test_two_workers_and_a_replay_again(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """Two workers share the partitions, one is killed; the same file again changes nothing."""
    one = stack()
    rows = recording(tmp_path / "events.csv", 3000)
    first, _ = one.start("worker"), one.start("worker")
    replay = one.start("replay", str(tmp_path / "events.csv"), "--rate", "600")
    one.wait(lambda: one.counts().get("events", 0) > 600, "the replay is under way")
    first.kill()
    assert replay.wait(120) == 0
    wait_applied(one, len(rows))
    assert_exact(one, rows)

    assert one.run("replay", str(tmp_path / "events.csv")).returncode == 0
    one.wait(lambda: json.loads(one.run("status", "--json").stdout)["lag"] == 0, "nothing waits")

    counts = one.counts()
    assert counts["events"] == len(rows)
    assert counts["duplicates"] == len(rows)


def test_redis_stopped_under_a_running_stream(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """While Redis is away for ten seconds the stream waits; nothing is lost."""
    one = stack()
    rows = recording(tmp_path / "events.csv", 2000)
    one.start("worker")
    replay = one.start("replay", str(tmp_path / "events.csv"), "--rate", "200")
    one.wait(lambda: one.counts().get("events", 0) > 300, "the replay is under way")
    one.servers.redis.stop()
    back_at = time.monotonic() + 10
    one.wait(lambda: time.monotonic() > back_at, "ten seconds have gone by")
    one.servers.redis.start()

    assert replay.wait(120) == 0
    wait_applied(one, len(rows))
    assert_exact(one, rows)


def test_redis_forgets(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """Redis comes back with older data: the worker reads on from the watermark it finds."""
    one = stack()
    rows = recording(tmp_path / "events.csv", 4000)
    redis = one.servers.redis
    one.start("worker")
    replay = one.start("replay", str(tmp_path / "events.csv"), "--rate", "400")
    one.wait(lambda: one.counts().get("events", 0) > 500, "the replay is under way")
    copy = tmp_path / "older"
    shutil.copytree(redis.data, copy)
    one.wait(lambda: one.counts().get("events", 0) > 1500, "more is in effect")
    redis.kill()
    shutil.rmtree(redis.data)
    shutil.copytree(copy, redis.data)
    redis.start()

    assert replay.wait(120) == 0
    wait_applied(one, len(rows))
    assert_exact(one, rows)


def test_poison_goes_to_the_dead_letters(stack: Callable[..., Stack]) -> None:
    """What cannot be decoded or applied is kept with its reason; the stream goes on."""
    one = stack(max_items=2)
    topic = Topics.of(one.settings).clicks
    producer = KafkaProducer(bootstrap_servers=one.settings.kafka)

    moments = itertools.count(1_700_000_000)

    def message(*items: str) -> bytes:
        events = [{"eventType": "click", "itemId": i, "sentAt": next(moments)} for i in items]
        return json.dumps({"sessionId": "s", "eventList": events}).encode()

    for value in (
        b"\xff{",
        b'{"sessionId":"s"}',
        message("a", "b"),
        message("a", "c"),
        message("b"),
    ):
        producer.send(topic, key=b"s", value=value).get(30)
    producer.close()
    worker = one.start("worker")
    wait_applied(one, 4)

    listed = one.run("dead-letters", "list", "--json")
    letters = [json.loads(line) for line in listed.stdout.splitlines()]
    assert sorted(letter["reason"] for letter in letters) == [
        "catalogue-full",
        "invalid",
        "invalid",
    ]
    assert {letter["source"]["topic"] for letter in letters} == {topic}
    assert "3 dead letters" in listed.stderr
    worker.terminate()
    assert worker.wait(20) == 0
    assert "Traceback" not in one.log()

    one.start("worker", RECOMMENDER_MAX_ITEMS="10")
    assert "3 dead letters sent again" in one.run("dead-letters", "replay").stdout
    wait_applied(one, 5)
    assert len(one.run("dead-letters", "list", "--json").stdout.splitlines()) == 2


def test_worker_that_starts_before_redis(stack: Callable[..., Stack]) -> None:
    """A worker started while Redis is away waits for it, or ends with an error to be restarted."""
    one = stack()
    one.servers.redis.stop()
    try:
        worker = one.start("worker")
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(12)
    finally:
        one.servers.redis.start()
    one.start("api")
    one.wait_ready()
