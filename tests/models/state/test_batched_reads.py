"""Reads gathered into one command: everybody gets their own, whatever happens to the server."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.exceptions
from hypothesis import given
from hypothesis import strategies as some

from models.state.batched_reads import BatchingClient
from models.state.client import connect
from ops.embedded_servers import start_redis
from tests.servers import own_port

TIMEOUT_S = 0.5


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[BatchingClient]:
    """A client of the shared server, emptied afterwards."""
    one = connect(redis_url)
    yield one
    await one.flushdb()
    await one.aclose()


@given(
    stored=some.dictionaries(some.sampled_from("abcdef"), some.binary(max_size=200_000)),
    wanted=some.lists(some.lists(some.sampled_from("abcdefgh"), max_size=5), max_size=9),
)
def test_everybody_gets_their_own(
    redis_url: str, stored: dict[str, bytes], wanted: list[list[str]]
) -> None:
    """Whoever reads at the same moment gets the values of their own keys, in their order."""

    async def reading() -> list[list[bytes | None]]:
        client = connect(redis_url)
        for key, value in stored.items():
            await client.set(f"reads:{key}", value)
        keys = [[f"reads:{key}" for key in one] for one in wanted]
        answers = await asyncio.gather(*(client.reads.get(one) for one in keys))
        await client.flushdb()
        await client.aclose()
        return answers

    assert asyncio.run(reading()) == [[stored.get(key) for key in one] for one in wanted]


async def test_reads_at_the_same_moment_travel_together(client: BatchingClient) -> None:
    """However many ask in one step of the loop, one command is sent."""
    await client.reads.get(["a"])
    before = (await client.info("commandstats"))["cmdstat_mget"]["calls"]
    first = [client.reads.get(["a"]) for _ in range(20)]
    await asyncio.sleep(0)
    later = [client.reads.get(["b"]) for _ in range(20)]
    await asyncio.gather(*first, *later)

    assert (await client.info("commandstats"))["cmdstat_mget"]["calls"] == before + 2


async def test_answers_come_in_the_order_of_the_questions(client: BatchingClient) -> None:
    """Commands that are sent while others are under way get their own answers."""
    for n in range(50):
        await client.set(str(n), str(n) * n)
    futures = []
    for n in range(50):
        futures.append(client.reads.get([str(n)]))
        await asyncio.sleep(0)

    assert await asyncio.gather(*futures) == [[(str(n) * n).encode()] for n in range(50)]


async def test_a_failed_read_fails_all_who_waited() -> None:
    """Everybody whose keys were in a read that failed learns of it, and the next one is tried."""
    client = connect(f"redis://127.0.0.1:{own_port()}")
    reads = client.reads
    for _ in range(2):
        results = await asyncio.gather(reads.get(["a"]), reads.get(["b"]), return_exceptions=True)
        assert [type(result) for result in results] == [redis.exceptions.ConnectionError] * 2
    await client.aclose()


async def test_an_error_is_an_error_for_all_who_waited(
    client: BatchingClient, redis_url: str
) -> None:
    """What the server says instead of values is raised as the client raises it."""
    await client.acl_setuser("limited", enabled=True, nopass=True, keys="*", commands=["-mget"])
    limited = connect(redis_url.replace("redis://", "redis://limited:any@"))
    reads = limited.reads
    results = await asyncio.gather(reads.get(["a"]), reads.get(["b"]), return_exceptions=True)
    await limited.aclose()
    await client.acl_deluser("limited")

    assert [type(result) for result in results] == [redis.exceptions.NoPermissionError] * 2


async def test_who_gives_up_harms_no_one(client: BatchingClient) -> None:
    """A request that is cancelled while its read is under way takes no other one with it."""
    await client.set("there", b"value")
    impatient = client.reads.get(["absent"])
    patient = client.reads.get(["absent", "there"])
    await asyncio.sleep(0)
    impatient.cancel()

    assert await patient == [None, b"value"]
    assert impatient.cancelled()


async def test_a_dead_connection_is_replaced(client: BatchingClient) -> None:
    """A connection that died unused costs the next read nothing but a new one."""
    await client.set("there", b"value")
    await client.reads.get(["there"])
    await client.client_kill_filter(_type="normal", skipme=True)

    assert await client.reads.get(["there"]) == [b"value"]


async def test_a_server_that_hangs_and_goes_on(tmp_path: Path) -> None:
    """A read is given up after its time, and a late answer to it is never taken for another's."""
    server = start_redis(tmp_path)
    client = connect(server.url, timeout_s=TIMEOUT_S)
    try:
        await client.set("one", b"1")
        await client.set("two", b"2")
        await client.reads.get(["one"])
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(redis.exceptions.TimeoutError):
            await client.reads.get(["one"])
        server.process.send_signal(signal.SIGCONT)
        await client.ping()

        assert await client.reads.get(["two"]) == [b"2"]
    finally:
        server.process.send_signal(signal.SIGCONT)
        await client.aclose()
        server.stop()


async def test_a_server_that_comes_back(tmp_path: Path) -> None:
    """While the server is away every read says so; once it is back, the next one succeeds."""
    server = start_redis(tmp_path, port=own_port())
    client = connect(server.url)
    await client.set("there", b"value")
    await client.reads.get(["there"])
    server.stop()
    with pytest.raises(redis.exceptions.ConnectionError):
        await client.reads.get(["there"])

    again = start_redis(tmp_path, port=server.port)

    assert await client.reads.get(["there"]) == [b"value"]
    await client.aclose()
    again.stop()
