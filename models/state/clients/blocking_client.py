"""A client for a program that does one thing at a time, and an event loop that waits for it alone.

A common event loop asks the system which of many sockets is ready before each read, which takes
longer than the server does. Here the loop reads the one socket once no task can go on; what else
there is to do is done while the server works.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import redis
import redis.exceptions

from models.state.clients.batched_reads import AnswerReader, BatchingClient, MgetBatcher
from models.state.clients.batched_requests import TRIES, Request
from models.state.clients.redis_errors import Parser

RECEIVED_BYTES = 1 << 18

LOOP_SOCKETS = 1
"""Sockets that a loop watches for itself."""


class BlockingBatcher(MgetBatcher):
    """Reads over a connection of its own, which are sent and answered by `receive`.

    Answers have the order of the requests. Keys are batched, a dead connection is renewed, and a
    request is repeated as by `MgetBatcher`.
    """

    def __init__(self, url: str, client: BatchingClient, *, timeout_s: float) -> None:
        super().__init__(client.connection_pool)
        pool = redis.ConnectionPool.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        self._blocking: Any = pool.make_connection()
        self._socket: socket.socket | None = None
        self._answers = AnswerReader(Parser.parse_error)
        self._sent: deque[Request] = deque()
        self._unsent: list[bytes] = []
        self._postponed: Callable[[], None] | None = None

    @property
    def is_waiting(self) -> bool:
        """True if a request has no answer yet."""
        return bool(self._sent)

    def flush(self) -> None:
        """Send what was requested, in one piece."""
        if self._unsent:
            packed, self._unsent = b"".join(self._unsent), []
            try:
                self._connected().sendall(packed)
            except (OSError, redis.exceptions.RedisError) as error:
                self._give_up(error)

    def receive(self) -> None:
        """Send what was requested, wait for the next answers, and hand them to their requests."""
        self.flush()
        if not self._sent:
            return
        self.run_postponed()
        try:
            received = self._connected().recv(RECEIVED_BYTES)
            if not received:
                raise ConnectionResetError("the server closed it")
        except (OSError, redis.exceptions.RedisError) as error:
            self._give_up(error)
            return
        self._answers.feed(received)
        while self._sent and self._answers.hand_to(self._sent[0]):
            self._sent.popleft()

    def postpone(self, work: Callable[[], None]) -> None:
        """Have work done while this next waits for the server; what was postponed before, now.

        An error of it is raised where it is done.
        """
        self.run_postponed()
        self._postponed = work

    def run_postponed(self) -> None:
        """Do postponed work now, if there is any."""
        work, self._postponed = self._postponed, None
        if work is not None:
            work()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._socket = None
        self._blocking.disconnect()

    def _send(self, request: Request) -> None:
        request.tries += 1
        self._sent.append(request)
        self._unsent.append(request.packed)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._blocking.connect()
            self._socket = self._blocking._sock  # noqa: SLF001  no public access
            self._let_system_time_out(self._socket)
            self._answers = AnswerReader(Parser.parse_error)
        return cast(socket.socket, self._socket)

    def _let_system_time_out(self, connected: socket.socket) -> None:
        """Python would ask the system whether a socket is ready before each use of it."""
        if isinstance(connected, ssl.SSLSocket):
            return
        seconds, rest_s = divmod(self._timeout_s, 1)
        packed = struct.pack("ll", int(seconds), int(1e6 * rest_s))
        connected.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connected.setsockopt(socket.SOL_SOCKET, option, packed)

    def _give_up(self, error: Exception) -> None:
        self.close()
        if isinstance(error, TimeoutError | BlockingIOError):
            error = redis.exceptions.TimeoutError(f"no answer: {error}")
        elif isinstance(error, OSError):
            error = redis.exceptions.ConnectionError(f"the connection is lost: {error}")
        unanswered, self._sent = self._sent, deque()
        self._unsent = []
        for request in unanswered:
            if request.tries < TRIES:
                self._send(request)
            else:
                request.fail(error)


class BlockingClient(BatchingClient):
    """A client whose commands go over the connection of its `reads`, in order; see `loop`.

    Pipelines use connections of their own.
    """

    reads: BlockingBatcher

    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop to use this client on."""
        return asyncio.SelectorEventLoop(_AnswerSelector(self.reads))

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401  as there
        """Answer of one command, in the types of redis-py."""
        (answer,) = await self.reads.run(args)
        callback = self.response_callbacks.get(args[0])
        options.pop("keys", None)
        return answer if callback is None else callback(answer, **options)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        self.reads.close()
        await super().aclose(close_connection_pool)


class _AnswerSelector(selectors.DefaultSelector):
    """Waits for answers to a blocking client; for other sockets only where none is due."""

    def __init__(self, reads: BlockingBatcher) -> None:
        super().__init__()
        self._reads = reads

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Sockets that are ready; asked with a timeout of 0 while tasks can go on."""
        if timeout != 0 and self._reads.is_waiting:
            self._reads.receive()
        elif timeout != 0 or len(self.get_map()) > LOOP_SOCKETS:
            return super().select(timeout)
        return []


def connect_blocking(url: str, *, timeout_s: float = 5.0) -> BlockingClient:
    """Blocking client of the Redis server at `url`; connects at its first command."""
    client = cast(
        BlockingClient,
        BlockingClient.from_url(url, socket_timeout=timeout_s, parser_class=Parser),
    )
    client.reads = BlockingBatcher(url, client, timeout_s=timeout_s)
    return client
