"""A service on a real Redis Cluster of six processes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import InvalidInput, InvalidSetting, Unavailable
from models.servers.server_checks import check_redis
from models.settings import Settings
from models.state.clients.client import client_of
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.copies.state_copies import StateCopy
from models.state.messages import Part
from models.state.operations.memory import read_families, read_memory
from models.state.shared_reads import read_group_state
from models.state.store import Store
from models.state.tenants import Tenants
from models.state.users.user_data import user_data_counts
from ops.embedded_servers import start_broker
from tests.e2e.shards.test_sharded_snapshots import check_copies
from tests.models.state.reference import NOW, click, message
from tests.redis_servers import RedisCluster, redis_cluster
from tests.servers import own_port
from tests.stack import EMBEDDED_SESSION_TIMEOUT_S, Redis, Servers, Stack, make_stacks

pytestmark = [
    pytest.mark.kafka,
    # redis-py closes connections to nodes that have left in tasks of their own; the event loops
    # that the tests read with end before.
    pytest.mark.filterwarnings("ignore:(unclosed|Unclosed|loop is closed):ResourceWarning"),
]

_groups = itertools.count()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Six processes."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
async def store(cluster: RedisCluster) -> AsyncIterator[Store]:
    """A store with a group of its own."""
    settings = Settings(redis=cluster.url, redis_cluster=True, group=f"g{next(_groups)}")
    one = Store(client_of(settings), settings)
    yield one
    await one.close()


async def test_a_group_is_on_one_node(cluster: RedisCluster, store: Store) -> None:
    """The atomic step, reads of many tasks, pipelines, and what is asked of a server."""
    part = Part("p/0", -1, [message(0, click("a", 0), click("b", 1), user="ada")])
    results, counts = await store.apply([part], now_s=NOW)
    assert (results[0].status, counts["events"]) == ("applied", 2)
    results, counts = await store.apply([part], now_s=NOW)
    assert counts["events"] == 0
    (history,), (nothing,) = await asyncio.gather(
        store.values([store.key("history:u:ada")]), store.values([store.key("none")])
    )
    assert history
    assert nothing is None
    assert (await read_group_state(store, ["weights"])).clock_s == NOW
    assert await store.linked_user("s", now_s=NOW) == "ada"
    assert (await user_data_counts(store, "ada", now_s=NOW))["events"] == 2
    assert (await store.counts())["events"] == 2
    assert (await read_memory(store.redis)).used_bytes > 0
    assert (await read_families(store))["history"].keys
    await store.ping()
    node = cluster.primary_of(store.key("watermarks"))
    assert store.key("history:u:ada") in cluster.ask("KEYS", "*", node=node).split()


class _Heard:
    """What a listener was told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def heard(self, message: bytes) -> None:
        """Keep it."""
        self.messages.append(message)

    def lost(self) -> None:
        """Nothing is lost here."""


async def test_changes_are_heard(store: Store) -> None:
    """Those of the group, on the connection of its reads."""
    heard = _Heard()
    unsubscribe = store.redis.reads.subscribe(store.key("changed"), heard)
    await store.values([store.key("none")])
    part = Part("p/1", -1, [message(0, click("x", 9), click("y", 10), user="bob", session="s9")])
    await store.apply([part], now_s=NOW)
    await store.values([store.key("none")])
    unsubscribe()
    assert heard.messages[0] == b""
    assert heard.messages[1]


async def test_other_groups_are_refused(store: Store) -> None:
    """One step applies the events of all groups, so they have to be on one node."""
    tenants = Tenants(store.redis, store.settings)
    own = store.settings.group
    await tenants.register("t", own)
    assert await tenants.group_of("t") == own
    with pytest.raises(InvalidInput, match=f"on a Redis Cluster there is no group but '{own}'"):
        await tenants.register("t2", "other")
    with pytest.raises(InvalidInput, match=f"on a Redis Cluster there is no group but '{own}'"):
        await tenants.create("other")


def test_checks_of_a_cluster(cluster: RedisCluster) -> None:
    """A setting that does not fit is told as such; absent nodes are waited for."""
    check_redis(Settings(redis=cluster.url, redis_cluster=True))
    first = f"redis://:{cluster.url.partition(':')[2].partition(':')[2].partition(',')[0]}/0"
    with pytest.raises(InvalidSetting, match="RECOMMENDER_REDIS_CLUSTER"):
        check_redis(Settings(redis=first))
    wrong = cluster.url.replace("Pl4nted-in-Redis", "Pl4nted")
    with pytest.raises(InvalidSetting, match="refuses the user or password"):
        check_redis(Settings(redis=wrong, redis_cluster=True))
    nobody = f"redis://127.0.0.1:{own_port()}/0"
    with pytest.raises(Unavailable):
        check_redis(Settings(redis=nobody, redis_cluster=True))


@pytest.fixture
def make_stack(cluster: RedisCluster, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes stacks on the cluster and a broker of their own; the cluster is well afterwards."""

    def nothing() -> None:
        pass

    broker = start_broker(tmp_path / "broker")
    servers = Servers(
        broker.address,
        Redis(cluster.url, tmp_path, nothing, nothing, nothing),
        EMBEDDED_SESSION_TIMEOUT_S,
    )
    try:
        with make_stacks(servers, tmp_path) as make:
            yield make
    finally:
        broker.stop()
        cluster.mend()


def test_a_lost_primary_loses_and_doubles_nothing(
    cluster: RedisCluster, make_stack: Callable[..., Stack]
) -> None:
    """Its replica takes the slot over; worker and API find it."""
    _lose_a_primary(make_stack(redis_cluster=True), cluster, "")


@pytest.mark.parametrize("shard", ["/u01", "/i02"])
def test_a_lost_primary_of_a_shard_loses_and_doubles_nothing(
    cluster: RedisCluster, make_stack: Callable[..., Stack], shard: str
) -> None:
    """Shards of both kinds are on all primaries; one of them is killed under events."""
    cluster.mend()
    stack = make_stack(redis_cluster=True, shards=4, outcomes=False)
    _lose_a_primary(stack, cluster, shard)
    nodes = {
        cluster.primary_of(f"{{{stack.settings.group}/{kind}{number:02d}}}:").port
        for kind in "ui"
        for number in range(4)
    }
    assert len(nodes) > 1, "shards are on several primaries"
    stack.wait(lambda: _lag(stack) == 0, "nothing waits")

    async def read(store: Store) -> list[float]:
        return await store.event_counts(await store.item_indexes(["tent", "stove"]))

    assert stack.stored(read) == [40, 1]
    shards = stack.status().shards
    assert len(shards) == 8
    # An item shard that no item's id belongs to holds nothing.
    assert all(one.keys and one.bytes for one in shards if one.applied or one.name[0] == "u")
    assert sum(one.applied > 0 for one in shards if one.name[0] == "i") > 1


def test_shards_of_all_primaries_are_saved_and_restored(
    cluster: RedisCluster, make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    """Of one moment of all primaries, while events flow; and learned again from Kafka."""
    cluster.mend()
    check_copies(make_stack(redis_cluster=True, shards=4, outcomes=False), tmp_path / "kept")


def test_nothing_is_saved_while_a_slot_moves(cluster: RedisCluster) -> None:
    """A slot that is on its way to another primary has keys at both: that is told."""
    cluster.mend()
    settings = Settings(
        redis=cluster.url, redis_cluster=True, group="moving", shards=2, outcomes=False
    )
    slot = cluster.ask("CLUSTER", "KEYSLOT", "{moving/u01}:")
    at = cluster.primary_of("{moving/u01}:")
    other = next(node for node in map(cluster.primary_of, "abcdefgh") if node is not at)
    with StateCopy(settings, longest_pause_s=5) as copy:
        list(copy.values())
    for node, from_or_to, how in ((other, at, "IMPORTING"), (at, other, "MIGRATING")):
        name = cluster.ask("CLUSTER", "MYID", node=from_or_to)
        cluster.ask("CLUSTER", "SETSLOT", slot, how, name, node=node)
    try:
        with (
            StateCopy(settings, longest_pause_s=5) as copy,
            pytest.raises(Unavailable, match="slots of the Redis Cluster are moving"),
        ):
            list(copy.values())
    finally:
        for node in (at, other):
            cluster.ask("CLUSTER", "SETSLOT", slot, "STABLE", node=node)


def _lose_a_primary(stack: Stack, cluster: RedisCluster, shard: str) -> None:
    stack.start("worker")
    stack.start("api")
    stack.wait_ready()
    n_before = stack.counts()["events"]

    def send(first: int, n: int) -> None:
        for number in range(first, first + n):
            stack.click("tent", user=f"u{number}", session=f"s{number}")

    send(0, 20)
    stack.wait(lambda: _events(stack) == n_before + 20, "in effect")
    cluster.primary_of(f"{{{stack.settings.group}{shard}}}:watermarks").kill()
    send(20, 20)
    stack.wait(lambda: _events(stack) >= n_before + 40, "in effect at the replica")
    stack.wait(lambda: _events(stack) == n_before + 40, "in effect once", within_s=20)
    after = stack.click("stove", user="u1", session="s1")
    answer: dict[str, Any] = stack.recommend(f"user_id=u1&after={after}")
    assert answer["freshness"]["afterReached"]
    assert answer["level"] != "cached"
    assert "stove" in str(stack.ask("GET", "/similar/tent"))
    assert stack.run("status").returncode == 0


def _lag(stack: Stack) -> int:
    """Messages that wait; -1 while a node is away: its loss closes all connections of a client."""
    try:
        return stack.status().lag
    except Unavailable:
        return -1


def _events(stack: Stack) -> float:
    """Events in effect; -1 while no node serves the group."""
    try:
        return stack.counts().get("events", 0.0)
    except AWAY_ERRORS:
        return -1.0
