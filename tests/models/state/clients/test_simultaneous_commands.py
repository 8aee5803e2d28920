"""Commands that are under way at once, of which each has a connection of its own."""

from __future__ import annotations

import asyncio

from models.state.clients.client import connect


async def test_a_burst_of_commands_is_no_outage(redis_url: str) -> None:
    """As many as requests that an API lets wait for Redis and for Kafka."""
    async with connect(redis_url, timeout_s=30) as client:
        waiting = [client.blpop(["never"], timeout=1) for _ in range(400)]
        assert await asyncio.gather(*waiting) == [None] * 400
