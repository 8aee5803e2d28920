"""The HTTP server: uvicorn, sending the head of an answer and its body in one packet."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OneWrite(HttpToolsProtocol):
    """uvicorn's protocol on a `Joined` transport."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  asyncio types it in part
        """Begin to serve a connection."""
        super().connection_made(Joined(transport, self.loop))  # type: ignore[arg-type]


class Joined:
    """A transport that sends what is written in one step of the event loop together.

    uvicorn writes an answer's head before its body: two system calls and two packets, which cost
    more than to make the answer. And answers to questions that came together leave together: to
    wake a receiver once for all of them takes less than once for each.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the transport has
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send in the next step of the loop, with whatever else is written in this one."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        """Send what is held, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._transport.write(b"".join(held))
