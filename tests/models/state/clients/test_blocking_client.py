"""The blocking client: answers in order, and errors of a server that is away."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis.exceptions

from models.state.clients.blocking_client import connect_blocking
from ops.embedded_servers import start_redis
from tests.servers import own_port

T = TypeVar("T")


class Driver:
    """A client and its loop."""

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        self.client: Any = connect_blocking(url, timeout_s=timeout_s)
        self.loop = self.client.loop()

    def __call__(self, request: Coroutine[Any, Any, T]) -> T:
        """Result of a request."""
        return self.loop.run_until_complete(request)

    def close(self) -> None:
        """Close both."""
        self(self.client.aclose())
        self.loop.close()


@pytest.fixture
def driver(redis_url: str) -> Iterator[Driver]:
    """A client of the shared server, emptied afterwards."""
    one = Driver(redis_url)
    yield one
    one(one.client.flushdb())
    one.close()


def test_tasks_get_their_own_answers(driver: Driver) -> None:
    """Keys, commands and pipelines of many tasks at once."""
    client = driver.client

    async def task(n: int) -> None:
        await client.set(f"k{n}", n)
        assert await client.reads.get([f"k{n}", "absent"]) == [str(n).encode(), None]
        assert await client.reads.run(("GET", f"k{n}"), ("STRLEN", f"k{n}")) == [
            b"%d" % n,
            len(str(n)),
        ]
        await client.hset(f"h{n}", "field", n)
        assert await client.hgetall(f"h{n}") == {b"field": str(n).encode()}
        assert await client.pipeline().get(f"k{n}").execute() == [str(n).encode()]

    async def tasks() -> None:
        await asyncio.gather(*map(task, range(30)))

    driver(tasks())


def test_what_is_requested_at_once_is_one_piece(driver: Driver) -> None:
    """A request that nobody awaits yet is applied before those that follow it."""
    client = driver.client

    async def requests() -> Any:
        unawaited = [client.reads.run(("APPEND", "log", str(n))) for n in range(9)]
        found = await client.reads.get(["log"])
        await asyncio.gather(*unawaited)
        return found

    assert driver(requests()) == [b"012345678"]


def test_an_error_answer_is_of_its_own_request(driver: Driver) -> None:
    """Others of the same piece succeed."""
    reads = driver.client.reads

    async def requests() -> Any:
        return await asyncio.gather(
            reads.run(("SET", "a", "1"), ("LPOP", "a")),
            reads.run(("GET", "a")),
            return_exceptions=True,
        )

    failed, found = driver(requests())
    assert isinstance(failed, redis.exceptions.ResponseError)
    assert found == [b"1"]


def test_a_dead_blocking_connection_is_renewed(driver: Driver, redis_url: str) -> None:
    """A connection that died unused costs nobody an error."""
    driver(driver.client.set("there", b"value"))
    with redis.Redis.from_url(redis_url) as other:
        other.client_kill_filter(_type="normal", skipme=True)

    async def read() -> Any:
        return await driver.client.reads.get(["there"])

    assert driver(read()) == [b"value"]


def test_a_server_that_is_away_is_an_error() -> None:
    """For every request, as of the other client."""
    driver = Driver(f"redis://127.0.0.1:{own_port()}")
    for _ in range(2):
        with pytest.raises(redis.exceptions.ConnectionError):
            driver(driver.client.get("a"))
    driver.close()


def test_a_late_answer_is_no_answer_to_another(tmp_path: Path) -> None:
    """A request is given up after its time-out; the next has its own answer."""
    server = start_redis(tmp_path)
    driver = Driver(server.url, timeout_s=0.3)
    try:
        driver(driver.client.set("one", b"1"))
        driver(driver.client.set("two", b"2"))
        server.process.send_signal(signal.SIGSTOP)
        with pytest.raises(redis.exceptions.TimeoutError):
            driver(driver.client.get("one"))
        server.process.send_signal(signal.SIGCONT)

        assert driver(driver.client.get("two")) == b"2"
    finally:
        server.process.send_signal(signal.SIGCONT)
        driver.close()
        server.stop()


def test_postponed_work_is_done_while_the_server_works(driver: Driver) -> None:
    """After what is requested is sent, and before its answer is there; at the latest when asked."""
    reads, order = driver.client.reads, []

    async def read() -> Any:
        pending = reads.get(["k"])
        reads.postpone(lambda: order.append(pending.done()))
        return await pending

    assert driver(read()) == [None]
    assert order == [False]

    reads.postpone(lambda: order.append(1))
    reads.postpone(lambda: order.append(2))
    assert order == [False, 1]
    reads.run_postponed()
    reads.run_postponed()
    assert order == [False, 1, 2]


def test_tasks_may_wait_for_anything(driver: Driver) -> None:
    """Timers, threads and other tasks work beside the client, in any order."""
    client = driver.client

    async def threaded() -> int:
        return await asyncio.to_thread(lambda: 7)

    async def waits() -> Any:
        await client.set("k", "1")
        background = asyncio.create_task(client.incr("k"))
        await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        found = await asyncio.gather(threaded(), background, client.get("k"))
        return found, await client.get("k")

    for _ in range(2):
        assert driver(waits()) == ([7, 2, b"2"], b"2")


def test_a_call_that_is_cancelled_is_not_made(driver: Driver) -> None:
    """On this loop as on any."""
    made: list[int] = []

    async def calls() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(made.append, 1)
        cancelled = loop.call_soon(made.append, 2)
        cancelled.cancel()
        assert cancelled.cancelled()
        await asyncio.sleep(0)

    driver(calls())
    assert made == [1]


def test_errors_come_through_and_end_nothing(driver: Driver) -> None:
    """Of a request, and of postponed work; the next request has its answer."""

    async def fails() -> None:
        await driver.client.get("k")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        driver(fails())

    def divide() -> None:
        raise ZeroDivisionError

    driver.client.reads.postpone(divide)
    with pytest.raises(ZeroDivisionError):
        driver(driver.client.get("k"))
    assert driver(driver.client.get("k")) is None
