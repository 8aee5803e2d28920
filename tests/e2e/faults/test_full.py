"""A Redis with little memory: reads do not fill it; waiting events take effect once it has room."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.embedded_servers import start_redis
from tests.servers import debian_redis
from tests.stack import Redis, Servers, Stack, new_stack

ITEMS = 300


@pytest.fixture(params=["embedded", pytest.param("debian", marks=pytest.mark.kafka)])
def small(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Stack]:
    """A stack with a Redis of its own."""
    if request.param == "embedded":
        server = start_redis(tmp_path / "redis")
        own = Redis(server.url, tmp_path, server.stop, server.process.kill, lambda: None)
        one = new_stack(replace(servers, redis=own), f"f{server.port}", tmp_path / "stack")
        with one.serving():
            yield one
        server.stop()
    else:
        with debian_redis(tmp_path / "redis") as running:
            own = Redis(running.address, tmp_path, running.stop, running.kill, running.start)
            name = f"f{running.address.rpartition(':')[2].split('/')[0]}"
            with new_stack(replace(servers, redis=own), name, tmp_path / "stack").serving() as one:
                yield one


def configure(one: Stack, **values: object) -> None:
    """Change the server's configuration."""

    async def change(store: Any) -> None:
        for name, value in values.items():
            await store.redis.config_set(name.replace("_", "-"), value)

    one.stored(change)


def used(one: Stack) -> int:
    """Memory in use by the server, in bytes."""
    return int(one.stored(lambda store: store.redis.info("memory"))["used_memory"])


def reached(one: Stack, token: str) -> bool:
    """The API's answer to a token."""
    return bool(
        one.recommend(f"user_id=x&num_results=1&after={token}")["freshness"]["afterReached"]
    )


def test_reads_leave_room_for_events(small: Stack) -> None:
    """Under a load of long answers events take effect, and the server is never full."""
    for n in range(0, ITEMS, 10):
        events = [
            {"eventType": "click", "itemId": f"product-{k:05}", "sentAt": 1.7e9 + k}
            for k in range(n, n + 10)
        ]
        status, answer = small.ask("POST", "/events", {"sessionId": f"s{n}", "eventList": events})
        assert status == 202
    small.wait(lambda: reached(small, answer["after"]), "the shop is filled")
    # The top lists in the API's cache may still be those of the empty shop.
    small.wait(lambda: small.recommend("user_id=new&num_results=1")["items"], "they are shown")
    most = used(small) + 2_000_000
    configure(small, maxmemory_policy="noeviction", maxmemory=most)
    stop = threading.Event()

    def read(number: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            url = f"{small.url}/recommend?user_id=u{number}-{n}&num_results=500"
            with urllib.request.urlopen(url, timeout=60) as found:
                assert json.loads(found.read())["items"]

    readers = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for reader in readers:
        reader.start()
    try:
        for n in range(40):
            token = small.click(f"starved-{n % 7}", session=f"r{n}")
            small.wait(lambda t=token: reached(small, t), "it takes effect")  # type: ignore[misc]
        assert used(small) < most
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_events_wait_while_the_server_is_full(small: Stack) -> None:
    """They are accepted and kept in Kafka; readiness says why; with room they take effect."""
    configure(small, maxmemory_policy="noeviction", maxmemory=used(small) // 2)
    token = small.click("later", session="waits")
    assert not reached(small, token)
    status, answer = small.ask("GET", "/readyz")
    assert status == 503
    assert "full" in answer["missing"][0]
    assert small.ask("GET", "/recommend?user_id=x")[0] == 200

    configure(small, maxmemory=0)
    small.wait(lambda: reached(small, token), "it takes effect")
    assert small.ask("GET", "/readyz")[0] == 200
    assert all(process.poll() is None for process in small.processes)

    configure(small, maxmemory_policy="allkeys-lru")
    status, answer = small.ask("GET", "/readyz")
    assert status == 200
    assert "allkeys-lru" in answer["warnings"][0]
    shown = small.status()
    assert shown.redis.policy == "allkeys-lru"
    assert shown.families["history"].keys > 0
