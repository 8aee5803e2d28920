"""Events are neither lost nor doubled: kills, redeliveries, lost state, undecodable messages."""

from __future__ import annotations

import csv
import itertools
import json
import random
import re
import shutil
import signal
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer

from models.serving.cached.cache import StateCache
from models.state import layout
from models.state.histories import unpack_history
from models.state.store import Store
from streams.kafka.dead_letters import letters as dead_letters
from streams.kafka.topics import Topics
from tests.servers import own_port
from tests.stack import Redis, Stack

Rows = list[tuple[str, str, str, int]]


def recording(path: Path, n: int, *, seed: int = 7, start: int = 1_700_000_000) -> Rows:
    """A file of distinct events of some users, and its rows."""
    chance = random.Random(seed)
    rows: Rows = []
    for number in range(n):
        kind = "purchase" if chance.random() < 0.1 else "click"
        user, item = f"u{chance.randrange(60)}", f"i{int(chance.paretovariate(0.7)) % 300}"
        rows.append((user, item, kind, start + number))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("user", "item", "type", "ts"))
        writer.writerows(rows)
    return rows


def assert_exact(stack: Stack, rows: Rows, *, group: str | None = None) -> None:
    """The state of a group is exactly that of every row applied once."""
    users: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for user, item, _, second in rows:
        users[user].append((second, item))
    items = Counter(item for _, item, *_ in rows)
    bought = Counter(item for _, item, kind, _ in rows if kind == "purchase")

    async def read(store: Store) -> tuple[dict[str, Any], dict[str, tuple[int, int]]]:
        names = sorted(items)
        indexes = await store.item_indexes(names)
        name_of = dict(zip(indexes, names, strict=True))
        histories = {}
        for user in users:
            history = unpack_history(await store.redis.get(store.key(f"history:u:{user}")))
            kept = zip(history.times.tolist(), history.items.tolist(), strict=True)
            histories[user] = (history.count, [(second, name_of[item]) for second, item in kept])
        stats = await StateCache(store).stats(np.array(indexes, np.int64), time.time())
        counted = {
            name: (int(row["events"]), int(row["purchases"]))
            for name, row in zip(names, stats, strict=True)
        }
        return histories, counted

    histories, counted = stack.stored(read, group=group)
    counts = stack.counts(group=group)
    assert counts["events"] == len(rows)
    assert counts["items"] == len(items)
    assert counts.get("duplicates", 0) == 0
    assert counts["purchases"] == sum(bought.values())
    window = stack.settings.history_events
    assert histories == {user: (len(e), sorted(e)[-window:]) for user, e in users.items()}
    assert counted == {item: (n, bought[item]) for item, n in items.items()}
    status = stack.status()
    assert status.lag == 0
    assert all(one.watermark == one.end - 1 for one in status.partitions)


def wait_applied(stack: Stack, n: int, *, group: str | None = None) -> None:
    """Wait until this many events of a group are in effect."""
    stack.wait(
        lambda: stack.counts(group=group).get("events", 0) >= n, f"{n} events are in effect", 180
    )


def kill_often(stack: Stack, rows: Rows, path: Path, kills: int, *, group: str) -> None:
    """Kill workers at random points during a replay of two groups, until all is in effect."""
    chance = random.Random(11)
    # A worker takes seconds to start; waiting messages make batches in which it is killed.
    rate = str(len(rows) / (4 * kills))
    replays = [
        stack.start("replay", str(path), "--rate", rate, RECOMMENDER_TRACKING_ID=tracking_id)
        for tracking_id in (stack.settings.tracking_id, group)
    ]
    interrupted = 0
    for number in range(kills):
        # Nearer to the end each time, never close to it: there is something to interrupt.
        goal = len(rows) * (number + chance.random()) / (kills + 1)
        worker = stack.start("worker")
        stack.wait(
            lambda goal=goal: stack.counts().get("events", 0) > goal,  # type: ignore[misc]
            f"more than {goal} events are in effect",
        )
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        interrupted += stack.counts()["events"] < len(rows)
    assert interrupted
    assert [replay.wait(120) for replay in replays] == [0, 0]
    stack.start("worker")
    wait_applied(stack, len(rows))
    wait_applied(stack, len(rows), group=group)


def test_worker_killed_in_mid_batch(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """A worker killed -9 at random points ends in the state of an undisturbed run.

    Of two groups with the same users, sessions and items, whose events share the topics.
    """
    one = stack(batch_events=50)
    other = one.tenant("other")
    rows = recording(tmp_path / "events.csv", 3000)

    kill_often(one, rows, tmp_path / "events.csv", kills=3, group=other)

    assert_exact(one, rows)
    assert_exact(one, rows, group=other)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "servers", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True
)
def test_worker_killed_twenty_times(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """The same twenty times, on the broker that is run in earnest."""
    one = stack(batch_events=50)
    other = one.tenant("other")
    rows = recording(tmp_path / "events.csv", 5000)

    kill_often(one, rows, tmp_path / "events.csv", kills=20, group=other)

    assert_exact(one, rows)
    assert_exact(one, rows, group=other)


@pytest.mark.slow
def test_two_workers_and_a_replay_again(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """Two workers share the partitions, one is killed; a second replay changes nothing."""
    one = stack()
    rows = recording(tmp_path / "events.csv", 3000)
    ports = own_port(), own_port()
    first, _ = (one.start("worker", RECOMMENDER_METRICS_PORT=str(port)) for port in ports)
    one.wait(lambda: all(metrics(port) for port in ports), "both have started")
    # Slow enough that the group has been balanced anew before it is over.
    rate = len(rows) / (8 * one.settings.session_timeout_s)
    replay = one.start("replay", str(tmp_path / "events.csv"), "--rate", str(rate))
    one.wait(lambda: all(applied_by(port) > 0 for port in ports), "both work")
    first.kill()
    assert one.counts()["events"] < len(rows)
    assert replay.wait(120) == 0
    wait_applied(one, len(rows))
    assert_exact(one, rows)

    before = learned(one)
    assert one.run("replay", str(tmp_path / "events.csv")).returncode == 0
    one.wait(lambda: one.status().lag == 0, "nothing waits")

    assert learned(one) == before
    counts = one.counts()
    assert counts["events"] == len(rows)
    assert counts["duplicates"] == len(rows)


def metrics(port: int) -> str:
    """Metrics of the worker with this port; empty while it starts."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
    except OSError:
        return ""
    return text


def applied_by(port: int) -> float:
    """Events applied by the worker with this metrics port; 0 while it starts."""
    text = metrics(port)
    found = re.search(r'^recommender_events_total\{outcome="applied"\} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found else 0


def learned(stack: Stack) -> dict[bytes, bytes]:
    """State that events have changed: items, counts, neighbours, top lists and histories."""

    async def read(store: Store) -> dict[bytes, bytes]:
        kept: dict[bytes, bytes] = {}
        for name in ("items", "ids", "types", "stats:*", "pairs:*", "top:*", "history:*"):
            for key in await store.redis.keys(store.key(name)):
                # A history begins with the time when its newest event was accepted.
                kept[key] = (
                    (await store.redis.get(key))[layout.HISTORY_HEAD.size :]
                    if name == "history:*"
                    else await store.redis.dump(key)
                )
        return kept

    return stack.stored(read)


@pytest.mark.slow
def test_redis_stopped_under_a_running_stream(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """The stream waits while Redis is away for ten seconds; nothing is lost."""
    one = stack()
    rows = recording(tmp_path / "events.csv", 2000)
    one.start("worker")
    replay = one.start("replay", str(tmp_path / "events.csv"), "--rate", "200")
    one.wait(lambda: one.counts().get("events", 0) > 300, "the replay is under way")
    with one.servers.redis.away():
        back_at = time.monotonic() + 10
        one.wait(lambda: time.monotonic() > back_at, "ten seconds have gone by")

    assert replay.wait(120) == 0
    wait_applied(one, len(rows))
    assert_exact(one, rows)


@pytest.mark.slow
def test_redis_forgets(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """Redis comes back with older data, with and without new events: all count again."""
    one = stack()
    other = one.tenant("other")
    rows = recording(tmp_path / "events.csv", 4000)
    few = recording(tmp_path / "few.csv", 1000, seed=3)
    one.start("worker")
    replay = one.start("replay", str(tmp_path / "events.csv"), "--rate", "400")
    beside = one.start(
        "replay", str(tmp_path / "few.csv"), "--rate", "100", RECOMMENDER_TRACKING_ID=other
    )
    one.wait(lambda: one.counts().get("events", 0) > 500, "the replay is under way")
    older = tmp_path / "older"
    shutil.copytree(one.servers.redis.data, older)
    one.wait(lambda: one.counts().get("events", 0) > 1500, "more is in effect")
    restore(one.servers.redis, older)
    one.wait(lambda: "Redis has lost effects" in one.log(), "the worker goes back")

    assert (replay.wait(120), beside.wait(120)) == (0, 0)
    wait_applied(one, len(rows))
    wait_applied(one, len(few), group=other)
    assert_exact(one, rows)
    assert_exact(one, few, group=other)

    restore(one.servers.redis, older)
    wait_applied(one, len(rows))
    wait_applied(one, len(few), group=other)
    assert_exact(one, rows)
    assert_exact(one, few, group=other)


def restore(redis: Redis, older: Path) -> None:
    """Crash Redis, and start it with an older state of its data."""
    redis.kill()
    shutil.rmtree(redis.data)
    shutil.copytree(older, redis.data)
    redis.start()


def test_poison_goes_to_the_dead_letters(stack: Callable[..., Stack]) -> None:
    """Undecodable and invalid messages are kept with their reasons; the stream goes on."""
    one = stack(max_items=2)
    topic = Topics.of(one.settings).clicks
    producer = KafkaProducer(bootstrap_servers=one.settings.kafka)

    moments = itertools.count(1_700_000_000)

    def message(*items: str) -> bytes:
        events = [{"eventType": "click", "itemId": i, "sentAt": next(moments)} for i in items]
        return json.dumps({"sessionId": "s", "eventList": events}).encode()

    for value in (
        None,
        b"x" * 900_000,
        b"\xff{",
        b'{"sessionId":"s"}',
        message("a", "b"),
        message("a", "c"),
        message("b"),
    ):
        producer.send(topic, key=b"s", value=value).get(30)
    worker = one.start("worker")
    wait_applied(one, 4)

    listed = one.run("dead-letters", "list", "--json")
    letters = [json.loads(line) for line in listed.stdout.splitlines()]
    assert sorted(letter["reason"] for letter in letters) == [
        "catalogue-full",
        "invalid",
        "invalid",
        "invalid",
        "invalid",
    ]
    assert {letter["source"]["topic"] for letter in letters} == {topic}
    lines = one.run("dead-letters", "list").stdout.splitlines()
    assert len(lines) == 5
    assert all(re.match(rf"\d{{4}}-\S+Z  {topic}/\d+/\d+  sessions  \w", line) for line in lines)
    assert all(line.isprintable() and len(line) < 1000 for line in lines)
    assert any(r"\xff{" in line for line in lines)
    for letter in letters:
        source = letter["source"]
        place = f"dead letter of {topic}/{source['partition']}/{source['offset']} by sessions"
        assert one.log().count(place) == 1
    assert "5 dead letters" in listed.stderr
    worker.terminate()
    assert worker.wait(20) == 0
    assert "Traceback" not in one.log()

    one.start("worker", RECOMMENDER_MAX_ITEMS="10")
    # A message that is no dead letter is shown as one, and not replayed.
    producer.send(Topics.of(one.settings).dead_letters, value=b"junk").get(30)
    producer.close()
    assert "5 dead letters sent again" in one.run("dead-letters", "replay").stdout
    wait_applied(one, 5)
    one.wait(lambda: len(list(dead_letters(one.settings))) == 4, "four are back")
    assert one.status().dead_letters == 4


@pytest.mark.slow
def test_redis_away_while_partitions_move(stack: Callable[..., Stack], tmp_path: Path) -> None:
    """Workers that get partitions while Redis is away wait longer than Faust would."""
    one = stack()
    rows = recording(tmp_path / "events.csv", 2000)
    first = one.start("worker")
    assert one.run("replay", str(tmp_path / "events.csv")).returncode == 0
    one.wait(lambda: one.counts().get("events", 0) > 0, "the first worker is under way")
    with one.servers.redis.away():
        second = one.start("worker")
        # Faust's own limit is 30 s from the assignment, which takes some seconds.
        back_at = time.monotonic() + 45
        one.wait(lambda: time.monotonic() > back_at, "Faust's limit has gone by")

    more = recording(tmp_path / "more.csv", 2000, start=1_710_000_000)
    assert one.run("replay", str(tmp_path / "more.csv")).returncode == 0
    wait_applied(one, len(rows + more))
    assert_exact(one, rows + more)
    assert (first.poll(), second.poll()) == (None, None)

    with one.servers.redis.away():
        for worker in (first, second):
            worker.terminate()
            assert worker.wait(20) == 0
    assert "Traceback" not in one.log()
