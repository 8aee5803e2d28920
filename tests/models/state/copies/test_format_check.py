"""State of another release's format is refused; own state, and none, is not."""

from __future__ import annotations

import asyncio

import pytest
import redis

from cli.servers import check_servers
from models.errors import CannotStart, Unavailable
from models.settings import Settings
from models.state import layout
from models.state.catalogue.metadata import put_items
from models.state.copies.format_check import check_format, stored_format
from models.state.groups.group_registry import GROUPS
from models.state.messages import Part
from models.state.store import Store
from tests.models.state.old_state import write_old_state
from tests.models.state.reference import NOW, click, message
from tests.servers import own_port


async def test_state_of_an_earlier_release_is_refused(store: Store, redis_url: str) -> None:
    """By a sentence that names the group and what to do; of other groups, too."""
    settings = store.settings.model_copy(update={"redis": redis_url})
    await asyncio.to_thread(check_format, settings)
    await put_items(store, [("a", {})], NOW)
    await asyncio.to_thread(check_format, settings)
    await store.apply([Part("p/0", -1, [message(0, click("a", 0))])], now_s=NOW)
    await asyncio.to_thread(check_format, settings)
    assert await stored_format(store.redis, store.settings.group) == layout.STATE_FORMAT

    await store.redis.sadd(GROUPS, "other")
    try:
        await asyncio.to_thread(check_format, settings)
        await store.redis.hset("{other}:counts", "events", 1)
        with pytest.raises(CannotStart, match=r"group other .* format 0.*recommender rebuild"):
            await asyncio.to_thread(check_format, settings)
    finally:
        await store.redis.unlink(GROUPS, "{other}:counts")
    await store.redis.hincrby(store.key("counts"), "format", 1)
    with pytest.raises(CannotStart, match=f"reads format {layout.STATE_FORMAT}"):
        # As every command does at its start.
        await asyncio.to_thread(check_servers, settings, needs_kafka=False)


async def test_state_that_an_earlier_release_wrote_is_refused(store: Store, redis_url: str) -> None:
    """As that release wrote it, not only by another number."""
    settings = store.settings.model_copy(update={"redis": redis_url})
    with redis.Redis.from_url(redis_url) as client:
        write_old_state(client, settings.group)
    with pytest.raises(CannotStart, match=r"format 1, and this release .*recommender rebuild"):
        await asyncio.to_thread(check_format, settings)


def test_a_server_that_is_away_is_unavailable() -> None:
    """Waiting may help."""
    with pytest.raises(Unavailable):
        check_format(Settings(redis=f"redis://127.0.0.1:{own_port()}"))
