"""Batched reads: each task gets its own values, also when the server fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.exceptions
from hypothesis import given
from hypothesis import strategies as some

from models.state.clients.batched_reads import BatchingClient
from models.state.clients.client import connect
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
def test_each_task_gets_its_own_values(
    redis_url: str, stored: dict[str, bytes], wanted: list[list[str]]
) -> None:
    """Tasks that read at the same moment get the values of their own keys, in their order."""

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


async def test_reads_of_one_moment_are_one_command(client: BatchingClient) -> None:
    """All reads of one step of the event loop are one command."""
    await client.reads.get(["a"])
    before = (await client.info("commandstats"))["cmdstat_mget"]["calls"]
    first = [client.reads.get(["a"]) for _ in range(20)]
    await asyncio.sleep(0)
    later = [client.reads.get(["b"]) for _ in range(20)]
    await asyncio.gather(*first, *later)

    assert (await client.info("commandstats"))["cmdstat_mget"]["calls"] == before + 2


async def test_answers_match_their_commands(client: BatchingClient) -> None:
    """Commands sent while others are under way get their own answers."""
    for n in range(50):
        await client.set(str(n), str(n) * n)
    futures = []
    for n in range(50):
        futures.append(client.reads.get([str(n)]))
        await asyncio.sleep(0)

    assert await asyncio.gather(*futures) == [[(str(n) * n).encode()] for n in range(50)]


async def test_a_failed_read_fails_all_its_tasks() -> None:
    """All tasks of a failed read get the error, and the next read is tried."""
    client = connect(f"redis://127.0.0.1:{own_port()}")
    reads = client.reads
    for _ in range(2):
        results = await asyncio.gather(reads.get(["a"]), reads.get(["b"]), return_exceptions=True)
        assert [type(result) for result in results] == [redis.exceptions.ConnectionError] * 2
    await client.aclose()


async def test_an_error_answer_reaches_all_tasks(client: BatchingClient, redis_url: str) -> None:
    """An error answer is raised as the client raises it."""
    await client.acl_setuser("limited", enabled=True, nopass=True, keys="*", commands=["-mget"])
    limited = connect(redis_url.replace("redis://", "redis://limited:any@"))
    reads = limited.reads
    results = await asyncio.gather(reads.get(["a"]), reads.get(["b"]), return_exceptions=True)
    await limited.aclose()
    await client.acl_deluser("limited")

    assert [type(result) for result in results] == [redis.exceptions.NoPermissionError] * 2


async def test_a_cancelled_read_leaves_the_others(client: BatchingClient) -> None:
    """A task that is cancelled during its read does not cancel the others."""
    await client.set("there", b"value")
    impatient = client.reads.get(["absent"])
    patient = client.reads.get(["absent", "there"])
    await asyncio.sleep(0)
    impatient.cancel()

    assert await patient == [None, b"value"]
    assert impatient.cancelled()


async def test_a_dead_connection_is_replaced(client: BatchingClient) -> None:
    """A connection that died unused is renewed for the next read."""
    await client.set("there", b"value")
    await client.reads.get(["there"])
    await client.client_kill_filter(_type="normal", skipme=True)

    assert await client.reads.get(["there"]) == [b"value"]


async def test_a_late_answer_is_dropped(tmp_path: Path) -> None:
    """A read is given up after its time-out, and a late answer is never taken for another's."""
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


async def test_reads_succeed_after_an_outage(tmp_path: Path) -> None:
    """Reads fail while the server is away, and succeed once it is back."""
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
