"""Requests at fixed rates, whose latency counts from the moment they were due.

An answer that is late does not delay the next request (an open loop), so a server that stalls is
charged for all that would have come meanwhile: no coordinated omission. Requests that find every
connection taken wait, and their wait counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from benchmarks.peers.peer import Sent

CONNECTIONS = 64
"""Connections of one stream of requests."""

ANSWER_S = 10.0
"""Longest wait for the answers that are missing at the end; they count as failed."""

_END, _LENGTH = b"\r\n\r\n", b"content-length:"


class Connection(asyncio.Protocol):
    """A connection with at most one request under way."""

    def __init__(self, answered: Callable[[Connection, int, bytes], None]) -> None:
        self._answered = answered
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _: Exception | None) -> None:
        """An answer that was under way has failed."""
        self.is_open = False
        self._answered(self, 0, b"")

    def send(self, request: Sent) -> None:
        """Send a request."""
        if self._transport is not None:
            self._transport.write(request.raw)

    def data_received(self, data: bytes) -> None:
        """Hand on the status and body of a whole answer."""
        self._buffer += data
        end = self._buffer.find(_END)
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(_LENGTH)
        length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._buffer) < end + len(_END) + length:
            return
        body = self._buffer[end + len(_END) :][:length]
        status, self._buffer = int(head[9:12]), b""
        self._answered(self, status, body)

    def close(self) -> None:
        """End the connection."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


@dataclass
class Stream:
    """Results of one stream of requests.

    Attributes
    ----------
    latencies_ms
        Of each answer with a status below 400, from when its request was due.
    failed
        Requests without such an answer.
    seconds
        From the first request to the last answer.
    service_ms
        Of the same answers, by method, from when their request was sent: without the wait for a
        connection.
    statuses
        Answers by method and status; 0 is that of a connection that was closed.
    """

    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    seconds: float = 0.0
    service_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[str] = field(default_factory=Counter)

    def quantiles(self) -> dict[str, float]:
        """Milliseconds of p50, p90 and p99, answers a second and failures."""
        ordered = sorted(self.latencies_ms)
        if not ordered:
            return {"failed": self.failed}
        last = len(ordered) - 1
        found = {
            f"p{round(100 * q)}_ms": round(ordered[round(q * last)], 2) for q in (0.5, 0.9, 0.99)
        }
        rate = round(len(ordered) / self.seconds, 1) if self.seconds else 0.0
        return {**found, "per_s": rate, "failed": self.failed}


class _Pool:
    """Connections, the requests that wait for one, and what came of those that did not."""

    def __init__(self, n_requests: int) -> None:
        self.stream, self.all_done = Stream(), asyncio.Event()
        self._n_requests, self._n_done = n_requests, 0
        self._opened: list[Connection] = []
        self._idle: list[Connection] = []
        self._waiting: deque[tuple[float, Sent]] = deque()
        self._due: dict[Connection, tuple[float, float, Sent]] = {}

    async def open(self, port: int, connections: int) -> None:
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, one = await loop.create_connection(
                lambda: Connection(self._answered), "127.0.0.1", port
            )
            self._opened.append(one)
        self._idle = list(self._opened)

    def send(self, due_s: float, request: Sent) -> None:
        """Send a request on the first connection that is free."""
        self._waiting.append((due_s, request))
        self._issue()

    def close(self) -> None:
        """End all connections; requests without an answer have failed."""
        self.stream.failed = self._n_requests - len(self.stream.latencies_ms)
        self._due.clear()
        for one in self._opened:
            one.close()

    def _answered(self, connection: Connection, status: int, _: bytes) -> None:
        due = self._due.pop(connection, None)
        if due is not None:
            due_s, sent_s, sent = due
            now_s = time.perf_counter()
            self._n_done += 1
            method = sent.raw.split(b" ", 1)[0].decode()
            self.stream.statuses[f"{method} {status}"] += 1
            if 200 <= status < 400:
                self.stream.latencies_ms.append(1000 * (now_s - due_s))
                self.stream.service_ms[method].append(1000 * (now_s - sent_s))
        if connection.is_open:
            self._idle.append(connection)
            self._issue()
        if self._n_done == self._n_requests or not any(one.is_open for one in self._opened):
            self.all_done.set()

    def _issue(self) -> None:
        while self._waiting and self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                due_s, sent = self._waiting.popleft()
                self._due[connection] = due_s, time.perf_counter(), sent
                connection.send(sent)


async def as_fast_as_answered(
    port: int, request: Callable[[int], Sent], *, seconds: float, connections: int
) -> float:
    """Answers a second where each connection sends its next request when it has an answer.

    One process that also takes some 40 µs of CPU for each: the figure of a whole machine.
    """
    n_sent, n_answers, ended = 0, 0, asyncio.Event()
    loop = asyncio.get_running_loop()

    def answered(connection: Connection, status: int, _: bytes) -> None:
        nonlocal n_sent, n_answers
        n_answers += 200 <= status < 400
        if connection.is_open:
            connection.send(request(n_sent))
            n_sent += 1
        elif not any(one.is_open for one in opened):
            ended.set()

    opened: list[Connection] = []
    for _ in range(connections):
        _, one = await loop.create_connection(lambda: Connection(answered), "127.0.0.1", port)
        opened.append(one)
    begun_s = time.perf_counter()
    for one in opened:
        one.send(request(n_sent))
        n_sent += 1
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ended.wait()
    rate = n_answers / (time.perf_counter() - begun_s)
    for one in opened:
        one.close()
    return rate


async def at_rate(
    port: int,
    request: Callable[[int], Sent],
    *,
    rate: float,
    seconds: float,
    connections: int = CONNECTIONS,
) -> Stream:
    """Send `request(0)`, `request(1)`, ... at a rate a second, for so long.

    Costs some 50 µs of CPU a request on an event loop of uvloop.
    """
    n_requests = max(1, int(rate * seconds))
    pool = _Pool(n_requests)
    try:
        await pool.open(port, connections)
        begun_s = time.perf_counter()
        for number in range(n_requests):
            due_s = begun_s + number / rate
            early_s = due_s - time.perf_counter()
            # A sleep may end late: then several are due, and each counts from its own moment.
            if early_s > 0:
                await asyncio.sleep(early_s)
            pool.send(due_s, request(number))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await pool.all_done.wait()
        pool.stream.seconds = time.perf_counter() - begun_s
    finally:
        pool.close()
    return pool.stream
