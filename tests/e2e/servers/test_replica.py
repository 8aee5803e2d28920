"""An API that reads what all users share at a replica of Redis, and a user's own events not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from models.settings import Settings
from models.state.clients import replica_reads
from models.state.clients.client import client_of
from models.state.messages import Part
from models.state.shared_reads import read_group_state
from models.state.store import Store
from models.state.users.user_data import user_data_counts
from ops.embedded_servers import start_redis
from tests.models.state.reference import NOW, click, message
from tests.redis_servers import PASSWORD, watched_redis
from tests.servers import own_port, wait_until
from tests.stack import Stack


class Replica:
    """A replica of a server, which a test may detach, stop and start again."""

    def __init__(self, folder: Path, of: str) -> None:
        self._folder, self._port = folder, own_port()
        self._of = of.rpartition("@")[2].removeprefix("redis://").partition("/")[0].split(":")
        self.start()

    def start(self) -> None:
        """Start it; returns once it follows."""
        self._server = start_redis(self._folder, port=self._port)
        self.url = self._server.url
        self.attach()

    def attach(self) -> None:
        """Let it follow."""
        with redis.Redis.from_url(self.url) as client:
            client.replicaof(*self._of)
            wait_until(
                lambda: client.info("replication")["master_link_status"] == "up",
                within_s=60,
                what="the replica follows",
            )

    def detach(self) -> None:
        """Let it stay as it is."""
        with redis.Redis.from_url(self.url) as client:
            client.replicaof("NO", "ONE")

    def calls(self, command: str) -> int:
        """How often a command was called."""
        with redis.Redis.from_url(self.url) as client:
            found: dict[str, Any] = client.info("commandstats").get(f"cmdstat_{command}", {})
            return int(found.get("calls", 0))

    def stop(self) -> None:
        """End it."""
        self._server.stop()


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[str]:
    """URL of a server."""
    server = start_redis(tmp_path / "primary")
    yield server.url
    server.stop()


@pytest.mark.slow
async def test_the_primary_answers_while_the_replica_is_away(
    primary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What all share is read at the replica, a user's own events never."""
    monkeypatch.setattr(replica_reads, "REST_S", 0.0)
    replica = await asyncio.to_thread(Replica, tmp_path / "replica", primary)
    settings = Settings(redis=primary, redis_replica=replica.url)
    store = Store(client_of(settings, reads_replica=True), settings)
    try:
        part = Part("p/0", -1, [message(0, click("a", 0), user="ada")])
        await store.apply([part], now_s=NOW)
        await store.redis.wait(1, 10_000)
        before = replica.calls("mget")
        assert (await store.values([store.key("history:u:ada")]))[0]
        assert replica.calls("mget") == before
        assert (await store.shared_values([store.key("history:u:ada")]))[0]
        assert replica.calls("mget") == before + 1
        assert (await read_group_state(store, ["weights"])).clock_s == NOW
        await asyncio.to_thread(replica.stop)
        found = await asyncio.gather(
            *(store.shared_values([store.key("history:u:ada")]) for _ in range(9))
        )
        assert all(value for (value,) in found)
        await asyncio.to_thread(replica.start)
        assert (await store.shared_values([store.key("history:u:ada")]))[0]
        assert replica.calls("mget") >= 1
    finally:
        await store.close()
        await asyncio.to_thread(replica.stop)


def test_own_events_are_fresh_where_the_replica_stands_still(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    """Read-your-writes holds: tokens and the user's own events are the primary's."""
    first = stack()
    replica = Replica(tmp_path / "replica", first.settings.redis)
    try:
        one = stack(redis_replica=replica.url)
        one.start("worker")
        one.start("api")
        one.wait_ready()
        replica.detach()
        for item in ("tent", "stove"):
            after = one.click(item, user="ada", session="mine")
            answer = one.recommend(f"user_id=ada&after={after}")
            assert answer["freshness"]["afterReached"]
            assert answer["freshness"]["userEventAt"] > 0
            assert answer["level"] != "cached"
        assert one.stored(lambda store: user_data_counts(store, "ada", now_s=0.0))["events"] == 2
        assert replica.calls("mget") > 0
        replica.stop()
        after = one.click("lamp", user="ada", session="mine")
        assert one.recommend(f"user_id=ada&after={after}")["freshness"]["afterReached"]
    finally:
        replica.stop()


@pytest.mark.kafka
async def test_sentinels_name_a_replica(tmp_path: Path) -> None:
    """It is asked without naming it in the settings."""
    with watched_redis(tmp_path) as watched:
        settings = Settings(
            redis=watched.url,
            redis_sentinel_master="shop-state",
            redis_sentinel_password=PASSWORD,
            redis_replica="sentinel",
        )
        store = Store(client_of(settings, reads_replica=True), settings)
        part = Part("p/0", -1, [message(0, click("a", 0), user="ada")])
        await store.apply([part], now_s=NOW)
        await store.redis.wait(1, 10_000)
        (found,) = await store.redis.shared_reads.run(("ROLE",))
        assert found[0] == b"slave"
        assert (await store.shared_values([store.key("history:u:ada")]))[0]
        (found,) = await store.redis.reads.run(("ROLE",))
        assert found[0] == b"master"
        await store.close()
