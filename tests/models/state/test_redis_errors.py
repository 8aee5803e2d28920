"""What Redis answers, on a real one: what passes is told from what never will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import redis.exceptions

from models.settings import Settings
from models.state.batched_reads import BatchingClient
from models.state.client import connect
from models.state.forwarding_ledger import TrackerChange, save_forward
from models.state.messages import Part, StoredEvent, StoredMessage
from models.state.redis_errors import AWAY_ERRORS, NotNow
from models.state.store import Store
from ops.embedded_servers import start_redis

NOW_S = 1.8e9


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an embedded Redis."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """A store on an empty server, whose settings are put back afterwards."""
    one = Store(connect(redis_url), Settings())
    await one.redis.flushall()
    yield one
    await one.redis.replicaof("NO", "ONE")
    await one.redis.config_set("maxmemory", 0)
    await one.redis.config_set("min-replicas-to-write", 0)
    await one.redis.config_set("replica-serve-stale-data", "yes")
    await one.redis.aclose()


async def apply(store: Store, offset: int = 0) -> None:
    """One step of one event."""
    event = StoredEvent("i", int(NOW_S), "click", 0.0, False, offset)
    message = StoredMessage(offset, "u", "s", 0, NOW_S, [event])
    await store.apply([Part("t/0", offset - 1, [message])], now_s=NOW_S)


async def eternity(client: BatchingClient) -> None:
    """Run a script without an end, until it is killed."""
    with pytest.raises(redis.exceptions.ResponseError, match="killed"):
        await client.eval("while true do end", 0)


async def asked_until_refused(store: Store) -> None:
    """Ask for a key until the server no longer answers; ten seconds long."""
    for _ in range(200):
        await asyncio.sleep(0.05)
        await store.redis.get("x")


async def test_a_full_server_passes(store: Store) -> None:
    """What a script meets on a full server is to be tried again, and works once there is room."""
    await apply(store)
    await store.redis.config_set("maxmemory", 1)
    with pytest.raises(NotNow, match="OOM"):
        await apply(store, 1)
    with pytest.raises(AWAY_ERRORS):
        await store.redis.set("x", "y")
    await store.redis.config_set("maxmemory", 0)
    await apply(store, 1)
    assert (await store.counts())["events"] == 2


async def test_a_replica_passes(store: Store) -> None:
    """A server that became a replica refuses to write, or to read, until a failover is over."""
    await store.redis.replicaof("127.0.0.1", "1")
    with pytest.raises(NotNow, match="READONLY"):
        await apply(store)
    await store.redis.config_set("replica-serve-stale-data", "no")
    with pytest.raises(NotNow, match="MASTERDOWN"):
        await store.counts()


async def test_too_few_replicas_pass(store: Store) -> None:
    """A primary that must have replicas to write to waits for them."""
    await store.redis.config_set("min-replicas-to-write", 1)
    with pytest.raises(NotNow, match="NOREPLICAS"):
        await store.redis.set("x", "y")


async def test_somebodys_long_script_passes(store: Store, redis_url: str) -> None:
    """While a script runs for too long, the server refuses all others."""
    await store.redis.config_set("lua-time-limit", 50)
    async with connect(redis_url) as other:
        hanging = asyncio.create_task(eternity(other))
        with pytest.raises(NotNow, match="BUSY"):
            await asked_until_refused(store)
        await store.redis.script_kill()
        await hanging


async def test_a_key_of_another_type_never_passes(store: Store) -> None:
    """What no waiting mends is no server that is away: of a script as of a command."""
    await store.redis.set(store.key("watermarks"), "no hash")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE") as failed:
        await apply(store)
    assert not isinstance(failed.value, AWAY_ERRORS)
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE") as failed:
        await store.watermarks(["t/0"])
    assert not isinstance(failed.value, AWAY_ERRORS)


async def test_a_bug_in_a_script_never_passes(store: Store) -> None:
    """Nor does an error of the script's own, whatever words are in it."""
    with pytest.raises(redis.exceptions.ResponseError) as failed:
        await store.redis.eval("return nil .. 'OOM BUSY LOADING'", 0)
    assert not isinstance(failed.value, AWAY_ERRORS)


async def test_the_ledger_says_unavailable_only_of_a_server_that_is(store: Store) -> None:
    """The forwarder tries again for ever where Redis is away; a wrong type ends it."""
    await store.redis.set("{shop}:forward:positions", "no hash")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        await save_forward(store.redis, "shop", moves={"t/0": TrackerChange(1, {})})
