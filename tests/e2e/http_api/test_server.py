"""The coalescing transport: all writes are sent, in order, an answer in one piece."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from api.server.coalesced_writes import CoalescedWrites


class Wire:
    """A transport that records sent data."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        """Send."""
        assert not self.is_closed
        self.sent.append(data)

    def close(self) -> None:
        """Send no more."""
        self.is_closed = True

    def get_extra_info(self, name: str) -> str:
        """Other members of a transport."""
        return name


def sent_by(steps: list[list[bytes]], *, closes: bool) -> Wire:
    """The transport after several writes in each step of an event loop."""
    wire: Any = Wire()

    async def writing() -> None:
        transport = CoalescedWrites(wire, asyncio.get_running_loop())
        assert transport.get_extra_info("peername") == "peername"
        for writes in steps:
            for data in writes:
                transport.write(data)
            if not closes:
                await asyncio.sleep(0)
        if closes:
            transport.close()

    asyncio.run(writing())
    assert isinstance(wire, Wire)
    return wire


@given(some.lists(some.lists(some.binary(max_size=5))), some.booleans())
def test_everything_is_sent_in_order(steps: list[list[bytes]], closes: bool) -> None:
    """Nothing is lost, doubled or held back, even if the connection is closed at once."""
    wire = sent_by(steps, closes=closes)
    assert b"".join(wire.sent) == b"".join(data for writes in steps for data in writes)
    assert wire.is_closed == closes


def test_head_and_body_travel_together() -> None:
    """Writes of one step are sent as one, in the next step."""
    assert sent_by([[b"head", b"body"], [b"alone"]], closes=False).sent == [b"headbody", b"alone"]
