"""A primary of a group of several shards that stays away: others go on, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.settings import Settings
from models.state.clients.client import client_of
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.histories import unpack_history
from models.state.shards.shard_names import owner_shard, shard_names
from models.state.shards.sharded_store import ShardedStore
from ops.embedded_servers import start_broker
from tests.redis_servers import Node, RedisCluster, redis_cluster
from tests.servers import wait_until
from tests.stack import EMBEDDED_SESSION_TIMEOUT_S, Redis, Servers, Stack, make_stacks

pytestmark = [
    pytest.mark.kafka,
    # As in the other end-to-end tests of a cluster.
    pytest.mark.filterwarnings("ignore:(unclosed|Unclosed|loop is closed):ResourceWarning"),
]

SHARDS = 4
USERS = [f"u{number}" for number in range(24)]
ITEMS = [f"i{number}" for number in range(12)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """Six processes."""
    with redis_cluster(tmp_path / "cluster") as running:
        yield running


@pytest.fixture
def stack(cluster: RedisCluster, tmp_path: Path) -> Iterator[Stack]:
    """A running worker and API of a group of four shards."""

    def nothing() -> None:
        pass

    broker = start_broker(tmp_path / "broker")
    redis = Redis(cluster.url, tmp_path, nothing, nothing, nothing)
    servers = Servers(broker.address, redis, EMBEDDED_SESSION_TIMEOUT_S)
    try:
        with make_stacks(servers, tmp_path) as make:
            stack = make(redis_cluster=True, shards=SHARDS, outcomes=False, exploration_share=0)
            stack.start("worker")
            stack.start("api")
            stack.wait_ready()
            yield stack
    finally:
        broker.stop()


def _primary_of(stack: Stack, cluster: RedisCluster, shard: str) -> Node:
    """That of a shard, or without one of what is one of the group."""
    name = "/".join(part for part in (stack.settings.group, shard) if part)
    return cluster.primary_of(f"{{{name}}}:")


def _kill_with_replica(cluster: RedisCluster, node: Node) -> None:
    """Kill a primary that no replica can stand in for."""
    lines = [line.split() for line in cluster.ask("CLUSTER", "NODES").splitlines()]
    ports = {words[0]: int(words[1].partition("@")[0].rpartition(":")[2]) for words in lines}
    followers = [ports[words[0]] for words in lines if ports.get(words[3]) == node.port]
    for one in cluster.nodes:
        if one.port in followers:
            one.kill()
    node.kill()


def _history(stack: Stack, user: str) -> int:
    """Events in a user's history; -1 while its shard is away."""

    async def read() -> int:
        store = ShardedStore(client_of(stack.settings), stack.settings)
        try:
            (raw,) = await store.values([store.key(f"history:u:{user}")])
        except AWAY_ERRORS:
            return -1
        finally:
            await store.close()
        return len(unpack_history(raw).items)

    return asyncio.run(read())


def _wait_for(stack: Stack, user: str, n: int) -> None:
    stack.wait(lambda: _history(stack, user) == n, f"{n} events of {user}")


@pytest.mark.parametrize("shard", ["u01", ""])
def test_other_shards_go_on_while_a_primary_is_away(
    stack: Stack, cluster: RedisCluster, shard: str
) -> None:
    """Their events take effect and their users are answered; the rest follows, once.

    The primary is that of a session shard, or of the ranker and whatever is one of the group.
    """
    # Every item, as what is new to a shard that is away waits for it.
    sent = [*itertools.product(USERS, ITEMS)][::5]
    n_before = stack.counts()["events"] + len(sent)
    for user, item in sent:
        stack.click(item, user=user, session=f"of-{user}")
    stack.wait(lambda: stack.counts().get("events") == n_before, "in effect")
    stack.wait(lambda: stack.status().lag == 0, "of all shards")

    hit = _primary_of(stack, cluster, shard)
    shards = {name for name in shard_names(SHARDS) if _primary_of(stack, cluster, name) is hit}
    away = [user for user in USERS if f"u{owner_shard(user, SHARDS):02d}" in shards]
    others = [user for user in USERS if user not in away]
    assert away or not shard
    assert others
    before = {user: _history(stack, user) for user in USERS}
    levels = {user: stack.recommend(f"user_id={user}")["level"] for user in USERS}
    assert "cached" not in levels.values()
    _kill_with_replica(cluster, hit)

    for user in USERS:
        stack.click(ITEMS[0], user=user, session=f"of-{user}")
    for user in others:
        _wait_for(stack, user, before[user] + 1)
    for user in others:
        answer: dict[str, Any] = stack.recommend(f"user_id={user}")
        assert answer["level"] != "cached", (user, answer)
        assert answer["items"], answer
    assert {stack.recommend(f"user_id={user}")["level"] for user in away} <= {"cached"}
    status, ready = stack.ask("GET", "/readyz")
    assert status == 200, ready

    for user in USERS:
        stack.click(ITEMS[1], user=user, session=f"of-{user}")
    for user in others:
        _wait_for(stack, user, before[user] + 2)
    cluster.mend()
    n_events = n_before + 2 * len(USERS)
    stack.wait(lambda: stack.status().lag == 0, "nothing waits", within_s=60)
    assert stack.counts()["events"] == n_events
    for user in USERS:
        assert _history(stack, user) == before[user] + 2, user
    assert {stack.recommend(f"user_id={user}")["level"] for user in USERS} == set(levels.values())


def test_a_new_process_reads_while_the_first_node_is_away(cluster: RedisCluster) -> None:
    """Redis-py asks one node what commands there are; whichever answers will do."""
    settings = Settings(redis=cluster.url, redis_cluster=True, shards=SHARDS, outcomes=False)
    names = [f"{{{settings.group}/{name}}}:" for name in shard_names(SHARDS)]
    living = [name for name in names if cluster.primary_of(name) is not cluster.nodes[0]]
    assert cluster.primary_of("{aVD}") is cluster.nodes[0]  # slot 2
    _kill_with_replica(cluster, cluster.nodes[0])

    async def read() -> bool:
        client = client_of(settings)
        try:
            return [await client.get(f"{name}x") for name in living] == [None] * len(living)
        except AWAY_ERRORS:  # a first command may come before its node is known
            return False
        finally:
            await client.aclose()

    wait_until(lambda: asyncio.run(read()), within_s=60, what="a new client reads")
