"""Errors of a real Redis: temporary ones are told from permanent ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
import redis.exceptions
import uvloop

from models.settings import Settings
from models.state.clients.batched_reads import BatchingClient
from models.state.clients.client import connect
from models.state.clients.redis_errors import AWAY_ERRORS, NotNow
from models.state.messages import Part, StoredEvent, StoredMessage
from models.state.operations.forwarding_ledger import TrackerChange, save_forward
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
    """A store on an empty server, whose settings are restored afterwards."""
    one = Store(connect(redis_url), Settings())
    await one.redis.flushall()
    yield one
    await one.redis.replicaof("NO", "ONE")
    await one.redis.config_set("maxmemory", 0)
    await one.redis.config_set("min-replicas-to-write", 0)
    await one.redis.config_set("replica-serve-stale-data", "yes")
    await one.redis.config_set("lua-time-limit", 5000)
    await one.redis.aclose()


async def apply(store: Store, offset: int = 0) -> None:
    """One step of one event."""
    event = StoredEvent("i", int(NOW_S), "click", 0.0, False, offset)
    message = StoredMessage(offset, "u", "s", 0, NOW_S, [event])
    await store.apply([Part("t/0", offset - 1, [message])], now_s=NOW_S)


async def eternity(client: BatchingClient) -> None:
    """Run an endless script, until it is killed."""
    with pytest.raises(redis.exceptions.ResponseError, match="killed"):
        await client.eval("while true do end", 0)


async def asked_until_refused(store: Store) -> None:
    """Read a key until the server no longer answers; ten seconds at most."""
    for _ in range(200):
        await asyncio.sleep(0.05)
        await store.redis.get("x")


async def test_a_full_server_is_temporary(store: Store) -> None:
    """A script's error on a full server is retried, and works once there is room."""
    await apply(store)
    await store.redis.config_set("maxmemory", 1)
    with pytest.raises(NotNow, match="OOM"):
        await apply(store, 1)
    with pytest.raises(AWAY_ERRORS):
        await store.redis.set("x", "y")
    await store.redis.config_set("maxmemory", 0)
    await apply(store, 1)
    assert (await store.counts())["events"] == 2


async def test_a_replica_is_temporary(store: Store) -> None:
    """A server that became a replica refuses reads or writes until a failover is over."""
    await store.redis.replicaof("127.0.0.1", "1")
    with pytest.raises(NotNow, match="READONLY"):
        await apply(store)
    await store.redis.config_set("replica-serve-stale-data", "no")
    with pytest.raises(NotNow, match="MASTERDOWN"):
        await store.counts()


async def test_too_few_replicas_are_temporary(store: Store) -> None:
    """A primary that requires replicas for writes waits for them."""
    await store.redis.config_set("min-replicas-to-write", 1)
    with pytest.raises(NotNow, match="NOREPLICAS"):
        await store.redis.set("x", "y")


async def test_a_long_script_is_temporary(store: Store, redis_url: str) -> None:
    """While a script runs for too long, the server refuses other commands."""
    await store.redis.config_set("lua-time-limit", 50)
    async with connect(redis_url) as other:
        hanging = asyncio.create_task(eternity(other))
        with pytest.raises(NotNow, match="BUSY"):
            await asked_until_refused(store)
        await store.redis.script_kill()
        await hanging


async def test_a_key_of_another_type_is_permanent(store: Store) -> None:
    """For a command and in a script: the server is not away."""
    await store.redis.set(store.key("watermarks"), "no hash")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE") as failed:
        await apply(store)
    assert not isinstance(failed.value, AWAY_ERRORS)
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE") as failed:
        await store.watermarks(["t/0"])
    assert not isinstance(failed.value, AWAY_ERRORS)


async def test_a_bug_in_a_script_is_permanent(store: Store) -> None:
    """Whatever words its error contains."""
    with pytest.raises(redis.exceptions.ResponseError) as failed:
        await store.redis.eval("return nil .. 'OOM BUSY LOADING'", 0)
    assert not isinstance(failed.value, AWAY_ERRORS)


async def test_the_ledger_is_unavailable_only_while_redis_is_away(store: Store) -> None:
    """The forwarder retries while Redis is away; a wrong type ends it."""
    await store.redis.set("{shop}:forward:positions", "no hash")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        await save_forward(store.redis, "shop", moves={"t/0": TrackerChange(1, {})})


def test_errors_of_files_are_not_an_absent_server() -> None:
    """A file that is missing is a fault of its own, not a reason to answer 503 or to wait."""
    assert not issubclass(FileNotFoundError, AWAY_ERRORS)
    assert not issubclass(PermissionError, AWAY_ERRORS)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "redis://name.invalid:6379"])
async def test_a_server_that_cannot_be_reached_is_away(url: str) -> None:
    """Nothing listens there, or there is no such host: the read says so as any outage."""
    async with connect(url) as client:
        for call in (client.get("x"), client.reads.get(["x"]), client.evalsha("0" * 40, 0)):
            with pytest.raises(AWAY_ERRORS):
                await call


def test_a_connection_that_is_reset_as_it_is_made_is_an_outage() -> None:
    """Also for uvloop, whose error of a write to it is no error of a connection."""
    errors = Counter[str]()

    async def connect_on() -> None:
        async def hold_up() -> None:
            # So that the reset is seen before the first write.
            while True:
                time.sleep(0.001)  # noqa: ASYNC251  what other work does
                await asyncio.sleep(0)

        held_up = asyncio.create_task(hold_up())
        for _ in range(100):
            client = connect(f"redis://127.0.0.1:{port}/0")
            try:
                await client.ping()
            except AWAY_ERRORS as error:
                errors[type(error).__name__] += "is lost" in str(error)
            await client.aclose()
        held_up.cancel()

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        resetting = threading.Thread(target=_reset_all, args=(server,), daemon=True)
        resetting.start()
        uvloop.run(connect_on())
        server.shutdown(socket.SHUT_RDWR)
        resetting.join()
    assert errors.total() > 0


def _reset_all(server: socket.socket) -> None:
    """Reset each connection at once, until the server is closed."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
