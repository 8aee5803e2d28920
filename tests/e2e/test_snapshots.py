"""State that is saved while events flow, restored elsewhere, and learned again from Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from models.state.copies.state_replacements import LEARNED
from models.state.histories import unpack_history
from models.state.layout import STATE_FORMAT
from ops.embedded_servers import start_redis
from tests.e2e.snapshot_fixtures import saved_while_events_flow
from tests.models.state.old_state import write_old_state
from tests.stack import Stack

NOT_FROM_EVENTS = {"ranker", "served", "tried"}
"""Families that depend on what was asked, and when."""

READERS: dict[bytes, tuple[Any, ...]] = {
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"zset": ("ZRANGE", 0, -1, "WITHSCORES"),
}


def learned(url: str, group: str) -> dict[bytes, Any]:
    """Values of all keys that are learned from events and metadata, but times of working."""
    found: dict[bytes, Any] = {}
    with redis.Redis.from_url(url) as client:
        commands: Any = client.execute_command
        for key in commands("KEYS", f"{{{group}}}:*"):
            if key.decode().split(":")[1] not in LEARNED - NOT_FROM_EVENTS:
                continue
            name, *rest = READERS[commands("TYPE", key)]
            found[key] = commands(name, key, *rest)
    found[f"{{{group}}}:counts".encode()].pop(b"applied_at", None)
    return found


def visit(n: int) -> dict[str, Any]:
    """A message of one of ten users, some of whose sessions are anonymous first."""
    event = {
        "eventType": "click",
        "itemId": f"i{n * 7 % 23}",
        "eventId": f"e{n}",
        "sentAt": time.time(),
    }
    one: dict[str, Any] = {"sessionId": f"s{n % 20}", "eventList": [event]}
    return one | ({"userId": f"u{n % 10}"} if n % 3 else {})


def send_visit(one: Stack, number: int) -> None:
    """Send the event of a number."""
    status, answer = one.ask("POST", "/events", visit(number))
    assert status == 202, answer


@pytest.mark.slow
def test_a_restored_state_equals_one_that_never_stopped(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    """Saved under load, restored into an empty Redis, and what came since applied from Kafka."""
    # Steps of one message: counts are rounded at the end of each.
    one = stack(partitions=1, batch_events=1, after_timeout_s=1)
    group, folder = one.settings.group, str(tmp_path / "kept")
    processes = [one.start("worker"), one.start("api")]
    one.wait_ready()
    items = [{"itemId": f"i{n}", "properties": {"GENRES": "x"}} for n in range(9)]
    status, answer = one.ask("PUT", "/items", {"items": items})
    assert status == 202, answer
    one.wait(lambda: one.status().lag == 0, "items are in effect")
    manifest = saved_while_events_flow(one, folder, lambda n: send_visit(one, n))
    assert one.ask("DELETE", "/users/u1")[0] in {200, 202}
    one.wait(lambda: one.status().lag == 0, "all is in effect")
    for process in processes:
        process.terminate()
        process.wait(60)
    never_stopped = learned(one.settings.redis, group)
    shown = one.run("snapshot", "list", folder)
    assert manifest["name"] in shown.stdout, shown.stderr

    other = start_redis(tmp_path / "other")
    moved = Stack(
        one.servers,
        one.settings.model_copy(update={"redis": other.url}),
        one.logs,
        one.environment | {"RECOMMENDER_REDIS": other.url},
    )
    try:
        restored = moved.run("snapshot", "restore", folder)
        assert restored.returncode == 0, restored.stderr
        assert manifest["name"] in restored.stdout
        assert "messages wait in Kafka" in restored.stdout
        assert "WARNING" not in restored.stdout + restored.stderr
        as_saved = learned(other.url, group)
        key = f"{{{group}}}:counts".encode()
        assert 0 < int(as_saved[key][b"events"]) < int(never_stopped[key][b"events"])
        worker = moved.start("worker")
        moved.wait(lambda: moved.status().lag == 0, "what came since is in effect")
        assert learned(other.url, group) == never_stopped
        check_rebuild(moved, worker, never_stopped)
    finally:
        moved.stop_all()
        other.stop()


def check_rebuild(one: Stack, worker: Any, before: dict[bytes, Any]) -> None:
    """State that an earlier release wrote is refused, and learned again from Kafka alone.

    API keys stay, and what is configured.
    """
    group, url = one.settings.group, one.settings.redis
    worker.terminate()
    worker.wait(60)
    keys = one.run("keys", "create", "before", "--role", "read")
    assert keys.returncode == 0, keys.stderr
    with redis.Redis.from_url(url) as client:
        client.delete(*keys_of(url, group))
        assert len(write_old_state(client, group)) > 20
        client.sadd(f"{{{group}}}:columns", "device")
    refused = one.run("worker")
    assert refused.returncode == 1
    assert f"format 1, and this release reads format {STATE_FORMAT}" in refused.stderr
    assert "recommender rebuild" in refused.stderr
    told = one.run("rebuild")
    assert told.returncode == 0, told.stderr
    assert f"{group}.events.clicks: " in told.stdout
    assert "nothing was removed" in told.stdout
    done = one.run("rebuild", "--yes")
    assert done.returncode == 0, done.stderr
    assert keys_of(url, group) == [f"{{{group}}}:columns"]
    assert "  before  read  " in one.run("keys", "list").stdout

    one.start("worker")
    one.wait(lambda: one.status().lag == 0, "all is learned again")
    assert named(learned(url, group), group) == named(before, group)


def named(found: dict[bytes, Any], group: str) -> dict[str, Any]:
    """Histories and counters, with names: numbers follow the order in which topics were read."""
    prefix = f"{{{group}}}:"
    names = {int(n): name for n, name in found[f"{prefix}ids".encode()].items()}
    histories = {}
    for key, raw in found.items():
        name = key.decode().removeprefix(prefix)
        if name.startswith("history:"):
            one = unpack_history(raw)
            items = [names[item] for item in one.items.tolist()]
            histories[name] = one.count, one.accepted_at, items, one.times.tolist()
    return histories | {"counts": found[f"{prefix}counts".encode()]}


def keys_of(url: str, group: str) -> list[str]:
    """All keys of a group."""
    with redis.Redis.from_url(url) as client:
        keys: list[Any] = client.keys(f"{{{group}}}:*")
        return [key.decode() for key in keys]
