"""A transport that sends an answer's head and body, and pipelined answers, in one system call."""

from __future__ import annotations

import asyncio
from typing import Any


class CoalescedWrites:
    """A transport that sends all writes of one step of the event loop together.

    uvicorn writes an answer's head before its body: two system calls and two packets, which cost
    more than making the answer. Answers to pipelined requests leave together, too, which wakes the
    receiver once.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the transport has
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send in the next step of the loop, with all that is written in this one."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def write_eof(self) -> None:
        """Send what is held, and close the sending side if the transport can."""
        self._flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        """Send what is held, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, []
            self._transport.write(b"".join(held))
