"""A task that is cancelled ends, whatever moment of its commands to Redis that falls into."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from models.settings import Settings
from models.state.clients.client import client_of, connect
from models.state.clients.retried_commands import heeding_cancellation
from tests.redis_servers import redis_cluster

MOMENTS = 60
"""Steps of the event loop after which a task is cancelled: more than a command takes."""

LONGEST_S = 10.0


async def _cancel_in_every_moment(client: Any) -> None:
    async def ask_for_ever() -> None:
        while True:
            await client.get("k")

    async def ask_in_pipelines_for_ever() -> None:
        while True:
            await client.pipeline(transaction=False).get("k").set("k", "v").execute()

    for ask in (ask_for_ever, ask_in_pipelines_for_ever):
        await client.get("k")
        for moment in range(MOMENTS):
            asking = asyncio.create_task(ask())
            for _ in range(moment):
                await asyncio.sleep(0)
            asking.cancel()
            ended, _ = await asyncio.wait({asking}, timeout=LONGEST_S)
            asking.cancel()
            assert ended, f"{ask.__name__}: a cancellation after {moment} steps is not heard"
    await client.aclose()


async def test_a_cancellation_is_heard_in_every_moment(redis_url: str) -> None:
    """Before Python 3.12 `asyncio.wait_for`, with which redis-py sends, drops some of them."""
    await _cancel_in_every_moment(connect(redis_url))


@pytest.mark.kafka
@pytest.mark.filterwarnings("ignore:(unclosed|Unclosed|loop is closed):ResourceWarning")
def test_a_cancellation_is_heard_on_a_cluster(tmp_path: Path) -> None:
    """So on a cluster, whose client has retries of its own."""
    with redis_cluster(tmp_path) as cluster:
        settings = Settings(redis=cluster.url, redis_cluster=True, group="h")
        asyncio.run(_cancel_in_every_moment(client_of(settings)))


@pytest.mark.unit
async def test_a_cancellation_wins_over_an_error() -> None:
    """Who retries after an error would otherwise go on."""
    sent = asyncio.Event()

    async def lost() -> None:
        try:
            await sent.wait()
        except asyncio.CancelledError:
            raise ConnectionError from None

    asking = asyncio.create_task(heeding_cancellation(lost()))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


@pytest.mark.unit
async def test_a_clean_up_goes_on_after_the_cancellation_that_began_it() -> None:
    """Only a cancellation that comes while a command is under way ends it."""

    async def command() -> str:
        await asyncio.sleep(0)
        return "released"

    async def work() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return await heeding_cancellation(command())
        return ""

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    working.cancel()
    assert await working == "released"
