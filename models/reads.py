"""Reads of many keys by many tasks: what is wanted at the same moment travels in one command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hiredis
import redis.asyncio
import redis.exceptions

Values = list[bytes | None]

REPEATED = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
"""After these a command is sent once more, on a new connection."""

# Its types say that a command is one word.
_pack: Callable[[tuple[str, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]


class Reads:
    """Gathers the keys that concurrent tasks want into one MGET at a time.

    It has one connection of the client's pool to itself and speaks to it directly: of what the
    client does for a command, packing in Python and guarding each step with a timer of its own
    take longer than all the rest. What it does when a server is away is the client's way: a dead
    connection is renewed, a command is repeated once, and each try may take `socket_timeout`.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool) -> None:
        # Typed as Any, as the connection is: redis-py types them in part.
        self._pool: Any = pool
        self._timeout_s: float | None = pool.connection_kwargs.get("socket_timeout")
        self._connection: Any = None
        self._waiting: list[tuple[list[str], asyncio.Future[Values]]] = []
        self._running: asyncio.Task[None] | None = None

    def get(self, keys: list[str]) -> asyncio.Future[Values]:
        """The values of `keys`, absent ones as None.

        Raises, when awaited, what the client raises of a server that is away.
        """
        future: asyncio.Future[Values] = asyncio.get_running_loop().create_future()
        if not keys:
            future.set_result([])
            return future
        self._waiting.append((keys, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                values = await self._mget([key for keys, _ in waiting for key in keys])
            except BaseException as error:
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
                continue
            at = 0
            for keys, future in waiting:
                if not future.done():
                    future.set_result(values[at : at + len(keys)])
                at += len(keys)

    async def _mget(self, keys: list[str]) -> Values:
        command = _pack(("MGET", *keys))
        try:
            return await self._exchange(command)
        except REPEATED:
            return await self._exchange(command)

    async def _exchange(self, command: bytes) -> Values:
        if self._connection is None:
            self._connection = self._pool.get_available_connection()
            # The timer below is for all of it. The connection never goes back to the pool.
            self._connection.socket_timeout = None
        connection = self._connection
        try:
            async with asyncio.timeout(self._timeout_s):
                if not connection.is_connected:
                    await self._pool.ensure_connection(connection)
                await connection.send_packed_command(command, check_health=False)
                values: Values = await connection.read_response(disable_decoding=True)
                return values
        except TimeoutError as error:
            await connection.disconnect(error=error)
            text = f"no answer within {self._timeout_s} s"
            raise redis.exceptions.TimeoutError(text) from error
        except REPEATED as error:
            await connection.disconnect(error=error)
            raise


class Client(redis.asyncio.Redis):
    """A client with `reads`, which all that use it share."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401  handed on as they are
        super().__init__(*args, **options)
        self.reads = Reads(self.connection_pool)
