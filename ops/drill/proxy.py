"""A TCP proxy that resets, delays or silences the connections that pass through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")

CHUNK_BYTES = 64 * 1024


class TcpProxy:
    """The proxy; a context manager that listens on `port` of loopback.

    Parameters
    ----------
    target
        Gives the host and port that connections are passed on to.

    Attributes
    ----------
    n_held
        Pieces of data that a delay or a silence has held back.
    """

    def __init__(self, target: Callable[[], tuple[str, int]]) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._delay_s = 0.0
        self.port = 0
        self.n_held = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def reset(self) -> int:
        """Break every connection off, as a router does that has forgotten them; gives how many."""
        return self._run(self._reset())

    @property
    def n_open(self) -> int:
        """Sockets of open connections, two for each."""
        return len(self._open)

    def delay(self, delay_s: float) -> None:
        """Delay all data from now on."""
        self._delay_s = delay_s

    def silence(self) -> None:
        """Let nothing through until `resume`: connections stay open, and new ones are taken."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def resume(self) -> None:
        """End a silence; the data held back arrives now."""
        self._loop.call_soon_threadsafe(self._passing.set)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self) -> None:
        self._passing.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _reset(self) -> int:
        broken_off = list(self._open)
        for writer in broken_off:
            _break_off(writer)
        # Each connection through the proxy is one on either side of it.
        return (len(broken_off) + 1) // 2

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            await self._passing.wait()
            upstream_reader, upstream = await asyncio.open_connection(*self._target())
            self._open.add(upstream)
            await asyncio.gather(
                self._pass_on(reader, upstream), self._pass_on(upstream_reader, writer)
            )
        except OSError:
            _break_off(writer)
        finally:
            for one in (writer, upstream):
                if one is not None:
                    self._open.discard(one)
                    one.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            self.n_held += bool(self._delay_s) or not self._passing.is_set()
            await self._passing.wait()
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


def _break_off(writer: asyncio.StreamWriter) -> None:
    """Close with a reset: whatever is under way is lost."""
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
