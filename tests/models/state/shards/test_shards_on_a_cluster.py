"""The shards of a group on a Redis Cluster of processes, whose primaries are killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions

from models.settings import Settings
from models.state.clients.client import client_of
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.messages import Part, shard_of
from models.state.shards.shard_names import shard_prefix
from models.state.shards.sharded_steps import ShardedSteps
from tests.models.state.reference import NOW, Reference, click, message
from tests.models.state.shards.shard_network import ShardNetwork
from tests.models.state.shards.sharded_reference import ShardedReference, assert_same_shards
from tests.redis_servers import RedisCluster, redis_cluster

pytestmark = [
    pytest.mark.kafka,
    # As in the end-to-end tests of a cluster.
    pytest.mark.filterwarnings("ignore:(unclosed|Unclosed|loop is closed):ResourceWarning"),
]

SHARDS = 4
AWAY = (*AWAY_ERRORS, redis.exceptions.RedisClusterException, redis.exceptions.ClusterDownError)


def test_primaries_are_killed_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """Their replicas take over, and may lack the last steps: who reads marks goes on from there."""
    with redis_cluster(tmp_path) as cluster:
        asyncio.run(_kill_primaries(cluster))


async def _kill_primaries(cluster: RedisCluster) -> None:
    settings = Settings(redis=cluster.url, redis_cluster=True, group="h", history_events=20)
    client = client_of(settings)
    try:
        steps = ShardedSteps(client, settings, shards=SHARDS)
        chance = random.Random(3)
        network = ShardNetwork(steps, ShardedReference(SHARDS, limit=20), chance.randrange)
        reference = Reference(limit=20)
        nodes = {
            cluster.primary_of(shard_prefix("h", kind, shard)).port
            for kind in ("u", "i")
            for shard in range(SHARDS)
        }
        assert len(nodes) > 1, "shards are on several primaries"
        for number in range(60):
            user = f"u{chance.randrange(8)}"
            events = [click(x, 2 * number + n) for n, x in enumerate(chance.choices("abcdef", k=2))]
            log = network.events[shard_of(user) % 2]
            log.append(message(len(log), *events, user=user, session=user))
            reference.apply([Part(f"p/{shard_of(user) % 2}", -1, log[-1:])])
            if number in {20, 40}:
                await asyncio.to_thread(cluster.mend)
                cluster.primary_of(shard_prefix("h", "u" if number == 20 else "i", 1)).kill()
            for _ in range(chance.randrange(5)):
                await _retried(network.do_something)
        await _retried(network.drain)
        scanned: Any = _Scanned(client, cluster)
        steps.redis = scanned
        await assert_same_shards(steps, reference, owners_are_same=False)
    finally:
        await client.aclose()


async def _retried(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """As a worker does while Redis is away; an attempt that failed may have taken effect."""
    async with asyncio.timeout(120):
        while True:
            try:
                return await work()
            except AWAY:
                await asyncio.sleep(0.1)


async def test_slots_move_under_steps(tmp_path: Path) -> None:
    """A step finds all keys of its shard or is refused: it names one that never exists.

    Without that, a primary that has a part of the slot would take what is still at the other for
    absent: whatever is there would be overwritten, or what is written here.
    """
    with redis_cluster(tmp_path) as cluster:
        settings = Settings(redis=cluster.url, redis_cluster=True, group="h", history_events=20)
        client = client_of(settings)
        try:
            steps = ShardedSteps(client, settings, shards=2)
            chance, refused = random.Random(5), 0
            network = ShardNetwork(steps, ShardedReference(2, limit=20), chance.randrange)
            reference = Reference(limit=20)

            def write(n: int) -> None:
                for _ in range(n):
                    user, log = f"u{chance.randrange(6)}", network.events[0]
                    event = click(f"i{chance.randrange(7)}", len(log), NOW - 400 + len(log))
                    log.append(message(len(log), event, user=user, session=user))
                    reference.apply([Part("p/0", -1, log[-1:])])

            write(40)
            await _retried(network.drain)
            for kind in ("u", "i"):
                moving = cluster.moving(shard_prefix("h", kind, 1))
                while await asyncio.to_thread(next, moving, None):
                    write(2)
                    try:
                        await network.apply_events(0, 1, 100)
                        await network.apply_deltas(f"{kind}01", 100)
                    except AWAY:
                        refused += 1
            assert refused > 10
            await _retried(network.drain)
            scanned: Any = _Scanned(client, cluster)
            steps.redis = scanned
            await assert_same_shards(steps, reference, owners_are_same=False)
        finally:
            await client.aclose()


class _Scanned:
    """A client that finds keys by `redis-cli`: that of a cluster scans the group's server only."""

    def __init__(self, client: Any, cluster: RedisCluster) -> None:
        self._client = client
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def scan_iter(self, match: str, **_: object) -> AsyncIterator[bytes]:
        """The keys of one shard."""
        node = self._cluster.primary_of(match.removesuffix("*"))
        for key in self._cluster.ask("--scan", "--pattern", match, node=node).splitlines():
            yield key.encode()


async def test_reads_of_a_slot_that_moves_are_an_outage(tmp_path: Path) -> None:
    """No primary has all of several keys: an error is an absence, and no fault of the program.

    Once the slot has moved they are answered.
    """
    with redis_cluster(tmp_path) as cluster:
        settings = Settings(redis=cluster.url, redis_cluster=True, group="h")
        client = client_of(settings)
        keys = [f"{{h/u01}}:pairs:{number}" for number in range(6)]
        try:
            for key in keys:
                await client.set(key, "1")
            assert await client.reads.get(keys) == [b"1"] * 6
            failed = 0
            moving = cluster.moving(keys[0])
            while await asyncio.to_thread(next, moving, None):
                try:
                    assert await client.reads.get([*keys, "{h/u01}:none"]) == [b"1"] * 6 + [None]
                except AWAY_ERRORS:
                    failed += 1
            assert failed
            assert await client.reads.get(keys) == [b"1"] * 6
        finally:
            await client.aclose()
