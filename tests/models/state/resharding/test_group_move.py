"""A move to other shards: what goes wrong at any step leaves the group where it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from models.errors import ReshardRefused
from models.state.clients.client import connect
from models.state.clients.redis_errors import NotNow
from models.state.messages import Part
from models.state.resharding.group_move import GroupMove
from models.state.resharding.leftovers import remove_leftovers, stay_frozen
from models.state.shards.stored_layout import (
    ShardLayout,
    fix_layout,
    layout_and_move,
    move_text,
    next_generation,
    stored_layout,
)
from tests.models.state.reference import NOW, click, message
from tests.models.state.resharding.test_shard_copy import FIELDS, LIMIT, network_of, on_shards
from tests.models.state.shards.sharded_reference import ShardedReference, assert_same_shards
from tests.models.state.shards.test_sharded_steps import to_log

SOURCE = ShardLayout(2)


@pytest.fixture
async def network(redis_url: str) -> AsyncIterator[Any]:
    """A group of two shards with some state, all of it in effect."""
    async with connect(redis_url) as client:
        try:
            chance = random.Random(5)
            one = network_of(client, SOURCE, ShardedReference(2, limit=LIMIT), chance)
            await fix_layout(client, "h", 2)
            for number in range(12):
                to_log(one, f"u{number}", f"u{number}", [click(f"i{number % 5}", number)])
            await one.drain()
            for prefix in SOURCE.prefixes("h", "u"):
                for field, log in zip(FIELDS, one.events, strict=True):
                    await client.hset(prefix + "watermarks", field, len(log) - 1)
            yield one
        finally:
            await client.flushdb()


async def new_move(network: Any, shards: int, tell: Any = lambda *_: None) -> GroupMove:
    """A move that has not begun."""
    client, settings = network.steps.redis, network.steps.settings
    target = ShardLayout(shards, await next_generation(client, "h"))
    return GroupMove(client, settings, SOURCE, target, fields=FIELDS, tell=tell)


async def assert_is_on(network: Any, layout: ShardLayout) -> None:
    """The group is on a layout, whole, and no key of another is left."""
    client = network.steps.redis
    assert await stored_layout(client, "h") == layout
    await remove_leftovers(client, network.steps.settings, layout, FIELDS)
    there = network_of(client, layout, on_shards(network.reference, layout.shards), random.Random())
    await assert_same_shards(there.steps, there.reference, there.reference.all_links())
    prefixes = (*layout.all_prefixes("h"), "{h}:")
    async for keys in client.found_keys("*"):
        for key in map(bytes.decode, keys):
            assert key.startswith(prefixes) or key.endswith(":frozen"), key


async def step(network: Any) -> None:
    """A step of a worker that knows of nothing."""
    part = Part("p/0", len(network.events[0]) - 1, [])
    await network.steps.apply_events(0, [part], indexes={}, types={}, now_s=NOW)


async def test_a_move_switches_once_and_a_late_worker_writes_nothing(network: Any) -> None:
    """Others see the move; a step on the shards of before is refused then, and for a day."""
    client = network.steps.redis
    seen: list[str] = []
    move = await new_move(network, 3, lambda what, _: seen.append(what))
    async with move.begun():
        layout, reported = await layout_and_move(client, "h")
        assert layout == SOURCE
        assert reported is not None
        text = await move_text(client, network.steps.settings)
        assert text == "it moves to 3 shard(s): getting ready"
        with pytest.raises(ReshardRefused, match="moved to other shards by somebody else"):
            async with (await new_move(network, 4)).begun():
                pass
        await move.run(longest_s=60)
        await stay_frozen(client, SOURCE.all_prefixes("h"))
    with pytest.raises(NotNow, match="FROZEN"):
        await step(network)
    await assert_is_on(network, ShardLayout(3, 1))
    with pytest.raises(NotNow, match="FROZEN"):
        await step(network)
    assert await client.ttl("{h/u00}:frozen") > 80_000
    assert (await layout_and_move(client, "h"))[1] is None
    assert move.pause_s > 0
    assert (move.n_histories, move.n_items) == (12, 5)
    assert seen[0] == "waiting for what is under way"


@pytest.mark.parametrize("n_writes", [0, 1, 4, 9])
async def test_a_move_that_is_broken_off_changes_nothing(network: Any, n_writes: int) -> None:
    """At any of its writes; then it goes through."""
    move = await new_move(network, 3)
    left = n_writes

    def check() -> None:
        nonlocal left
        left -= 1
        if left < 0 and move._is_frozen:
            raise asyncio.CancelledError

    move.check = check  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        async with move.begun():
            await move.run(longest_s=60)
    await step(network)
    await assert_is_on(network, SOURCE)
    again = await new_move(network, 1)
    async with again.begun():
        await again.run(longest_s=60)
    await assert_is_on(network, ShardLayout(1, 2))


async def test_shards_that_thawed_meanwhile_end_a_move(network: Any) -> None:
    """As a primary that fell back to an earlier state has: steps may have changed something."""
    client = network.steps.redis

    async def thaw_one() -> None:
        await client.delete("{h/i01}:frozen")

    thawing: list[asyncio.Task[None]] = []

    def tell(_: str, share: float) -> None:
        if share == 1.0:
            thawing.append(asyncio.create_task(thaw_one()))

    move = await new_move(network, 3, tell)
    with pytest.raises(ReshardRefused, match="nothing has changed"):
        async with move.begun():
            await move.run(longest_s=60)
    assert thawing
    await step(network)
    await assert_is_on(network, SOURCE)


async def test_what_is_under_way_is_waited_for(network: Any) -> None:
    """A shard that is behind the others, as after half a step: events go on, and it gives up."""
    to_log(network, "late", "late", [click("i1", 99)])
    await network.steps.redis.hincrby("{h/u01}:watermarks", FIELDS[0], 1)
    move = await new_move(network, 3)
    with pytest.raises(ReshardRefused, match="events would wait for more than 3 s"):
        async with move.begun():
            await move.run(longest_s=3)
    await step(network)
    assert await stored_layout(network.steps.redis, "h") == SOURCE


async def test_a_move_is_over_for_who_was_away(network: Any) -> None:
    """Another may have begun meanwhile."""
    move = await new_move(network, 3)
    async with move.begun():
        await network.steps.redis.delete("{h}:reshard")
        await move._renew_once()
        with pytest.raises(ReshardRefused, match="Redis was away for too long"):
            await move.run(longest_s=60)
    await step(network)


async def test_frozen_shards_of_who_was_killed_are_taken_over(network: Any) -> None:
    """At the very end of a copy they are frozen for ever; the next run thaws them."""
    client = network.steps.redis
    for prefix in SOURCE.all_prefixes("h"):
        await client.set(prefix + "frozen", "somebody")
    with pytest.raises(NotNow):
        await network.steps.apply_events(
            0, [Part("p/0", -1, [message(0, click("a", 1))])], indexes={}, types={}, now_s=NOW
        )
    assert "was killed" in await move_text(client, network.steps.settings)
    move = await new_move(network, 4)
    async with move.begun():
        await step(network)
        await move.run(longest_s=60)
    await assert_is_on(network, ShardLayout(4, 1))
