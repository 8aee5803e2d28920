"""Reads of many keys by many tasks, batched into one MGET per step of the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import redis.asyncio
import redis.exceptions

Values = list[bytes | None]
Wanted = list[tuple[list[str], asyncio.Future[Values]]]

TRIES = 2
"""A command whose connection died is sent once more, on a new one."""

# Its types say that a command is one word.
_pack: Callable[[tuple[str, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


class MgetBatcher:
    """Batches the keys that tasks read in one step of the event loop into one MGET.

    It owns one connection of the client's pool, and writes to its transport directly: the client's
    tasks, streams and timers take longer than the rest of a command. With a server that is away it
    behaves as the client does: a dead connection is renewed, a command is repeated once, and each
    try may take `socket_timeout`.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool) -> None:
        # Typed as Any, as the connection is: redis-py types them in part.
        self._pool: Any = pool
        self._timeout_s: float = pool.connection_kwargs["socket_timeout"]
        self._connection: Any = None
        self._link: _RawConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._wanted: Wanted = []
        self._held: list[_Command] = []

    def get(self, keys: list[str]) -> asyncio.Future[Values]:
        """The values of `keys`, absent ones as None.

        Raises, when awaited, the client's errors of a server that is away.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Values] = loop.create_future()
        if not keys:
            future.set_result([])
            return future
        if not self._wanted:
            loop.call_soon(self._gather)
        self._wanted.append((keys, future))
        return future

    def _gather(self) -> None:
        wanted, self._wanted = self._wanted, []
        self._send(_Command(wanted))

    def _send(self, command: _Command) -> None:
        if self._link is not None:
            self._link.send(command)
            return
        self._held.append(command)
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._renew()
        except TimeoutError:
            self._fail(redis.exceptions.TimeoutError(f"no connection within {self._timeout_s} s"))
        except asyncio.CancelledError:
            self._fail(redis.exceptions.ConnectionError("the client is ending"))
            raise
        except Exception as error:  # noqa: BLE001  handed to the waiting tasks
            self._fail(error)
        else:
            self._link = _RawConnection(self._connection, self._timeout_s, self._lost)
            held, self._held = self._held, []
            for command in held:
                self._link.send(command)
        finally:
            self._connecting = None

    async def _renew(self) -> None:
        if self._connection is None:
            self._connection = self._pool.get_available_connection()
        await self._connection.disconnect(nowait=True)
        await self._pool.ensure_connection(self._connection)

    def _fail(self, error: Exception) -> None:
        held, self._held = self._held, []
        for command in held:
            command.fail(error)

    def _lost(self, commands: list[_Command], error: Exception) -> None:
        self._link = None
        for command in commands:
            if command.tries < TRIES:
                self._send(command)
            else:
                command.fail(error)


class _Command:
    """An MGET of the keys of several tasks."""

    def __init__(self, wanted: Wanted) -> None:
        self.packed = _pack(("MGET", *(key for keys, _ in wanted for key in keys)))
        self.tries = 0
        self._wanted = wanted

    def answer(self, values: Values) -> None:
        """Hand each task its values."""
        at = 0
        for keys, future in self._wanted:
            if not future.done():
                future.set_result(values[at : at + len(keys)])
            at += len(keys)

    def fail(self, error: Exception) -> None:
        """Hand the error to all tasks."""
        for _, future in self._wanted:
            if not future.done():
                future.set_exception(error)


class _RawConnection(asyncio.Protocol):
    """A connection that the client has made, taken over from its streams.

    redis-py has no public access to the transport; asyncio permits to change its protocol.
    `on_lost` is called with the commands without an answer, and the error.
    """

    def __init__(
        self,
        connection: Any,  # noqa: ANN401  as above
        timeout_s: float,
        on_lost: Callable[[list[_Command], Exception], None],
    ) -> None:
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001
        self._streams: Any = self._transport.get_protocol()
        self._transport.set_protocol(self)
        self._reader = hiredis.Reader(
            replyError=connection._parser.parse_error  # noqa: SLF001
        )
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._sent: deque[tuple[_Command, asyncio.TimerHandle]] = deque()
        self._loop = asyncio.get_running_loop()
        self._error: Exception = redis.exceptions.ConnectionError("the server closed a connection")

    def send(self, command: _Command) -> None:
        """Send a command; its answer comes after those of all before."""
        command.tries += 1
        timer = self._loop.call_later(self._timeout_s, self._give_up)
        self._sent.append((command, timer))
        self._transport.write(command.packed)

    def data_received(self, data: bytes) -> None:
        """Hand complete answers to their commands."""
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            if isinstance(answer, hiredis.PushNotification):
                continue
            command, timer = self._sent.popleft()
            timer.cancel()
            if isinstance(answer, Exception):
                command.fail(answer)
            else:
                command.answer(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """Report the loss to the streams, and to the commands under way."""
        self._streams.connection_lost(error)
        for _, timer in self._sent:
            timer.cancel()
        self._on_lost([command for command, _ in self._sent], self._error)

    def _give_up(self) -> None:
        # A late answer must not be taken for another's: nothing more is read from this connection.
        self._error = redis.exceptions.TimeoutError(f"no answer within {self._timeout_s} s")
        self._transport.abort()


class BatchingClient(redis.asyncio.Redis):
    """A client with `reads`, the batcher that all its users share."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  those of redis-py
        super().__init__(*args, **options)
        self.reads = MgetBatcher(self.connection_pool)
