"""Copies of a group of several shards: of one moment of all, and exactly once from there."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as properties
from hypothesis import strategies as st

from models.settings import Settings
from models.state.clients.client import connect
from models.state.copies.saved_values import SavedValue
from models.state.copies.state_copies import StateCopy
from models.state.copies.state_replacements import (
    StateReplacement,
    forget_learned,
    skipped_deltas,
)
from models.state.messages import Part
from models.state.shards.sharded_steps import ShardedSteps
from tests.models.state.copies.test_state_copies import use_small_reads
from tests.models.state.pair_records import unpack_pairs
from tests.models.state.reference import NOW, Reference, click, contents, message
from tests.models.state.shards.shard_network import ShardNetwork
from tests.models.state.shards.sharded_reference import (
    ShardedReference,
    assert_same_shards,
    names_of,
    shard_store,
)

N_USERS = 25


async def operate(network: ShardNetwork, number: int) -> None:
    """The two messages of a user, on different partitions, and some operations between them.

    Which of the two a shard applies first is left to chance, and with it where their pair is.
    """
    for partition in (0, 1):
        log, place = network.events[partition], 2 * number + partition
        event = click(f"i{place}", place, NOW - 400 + number)
        log.append(message(len(log), event, user=f"u{number}", session=f"u{number}"))
    for _ in range(network.chance(5)):
        await network.do_something()


async def assert_each_counts_once(network: ShardNetwork) -> None:
    """Every message, and the pair of every user's two, in the order in which they were applied."""
    stored = await asyncio.gather(
        *(contents(shard_store(network.steps, "i", shard)) for shard in range(network.steps.shards))
    )
    names = names_of(list(stored))
    followed = {
        names[int(key.removeprefix("pairs:"))]
        for of_shard in stored
        for key, raw in of_shard.items()
        if key.startswith("pairs:")
        for pair in unpack_pairs(raw).values()
        if pair["next"] > 0
    }
    reference = Reference(limit=20)
    for number in range(N_USERS):
        first = int(f"i{2 * number}" not in followed)
        for partition in (first, 1 - first):
            reference.apply([Part(f"p/{partition}", -1, [network.events[partition][number]])])
    await assert_same_shards(network.steps, reference)


@properties(
    max_examples=15,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from([2, 3]), st.randoms())
def test_a_restored_copy_of_shards_goes_on_exactly_once(
    redis_url: str, shards: int, chance: random.Random
) -> None:
    """Made while deltas are on their way; what came since is applied again, in another order."""
    settings = Settings(
        group="h", redis=redis_url, shards=shards, outcomes=False, history_events=20
    )

    async def check(client: Any) -> None:
        steps = ShardedSteps(client, settings, shards=shards)
        network = ShardNetwork(steps, ShardedReference(shards, limit=20), chance.randrange)
        for number in range(N_USERS // 2):
            await operate(network, number)
        values: list[SavedValue] = []
        with StateCopy(settings, longest_pause_s=5) as copy:
            for some in copy.values():
                values += some
                await network.do_something()
            moment = copy.moment
        for number in range(N_USERS // 2, N_USERS):
            await operate(network, number)
        network.late.clear()
        await client.flushdb()
        await asyncio.to_thread(restore, settings, values, network.last_deltas())
        for partition in (0, 1):
            field = f"p/{partition}"
            found = [await network.mark("u", shard, field) for shard in range(shards)]
            own = [mark for mark in found if mark >= 0]
            assert moment.watermarks.get(field, -1) == min(own, default=-1)
        await network.drain()
        await assert_each_counts_once(network)

    async def run() -> None:
        async with connect(redis_url) as client:
            try:
                await check(client)
            finally:
                await client.flushdb()

    with pytest.MonkeyPatch.context() as patch:
        use_small_reads(patch)
        asyncio.run(run())


def restore(settings: Settings, values: list[SavedValue], skipped: dict[str, int]) -> None:
    """Make the state that of a copy."""
    with StateReplacement(settings, [], what="restore", replaces=False) as state:
        state.write(values)
        state.write(skipped_deltas(settings, skipped))
        state.finish()


async def test_shards_are_forgotten_and_learned_again(redis_url: str) -> None:
    """All that they hold; of deltas that Kafka has none counts beside the new ones."""
    settings = Settings(group="h", redis=redis_url, shards=2, outcomes=False, history_events=20)
    async with connect(redis_url) as client:
        try:
            steps = ShardedSteps(client, settings, shards=2)
            chance = random.Random(5)
            network = ShardNetwork(steps, ShardedReference(2, limit=20), chance.randrange)
            for number in range(N_USERS):
                await operate(network, number)
            await network.drain()
            await client.sadd("{h}:columns", "device")
            network.late.clear()
            await asyncio.to_thread(
                forget_learned,
                settings,
                what="rebuild",
                progress=lambda _: None,
                skipped=network.last_deltas(),
            )
            left = {bytes(key).decode() async for key in client.scan_iter(match="*")}
            assert left == {"{h}:columns"} | {
                f"{{h/{name}}}:watermarks" for name, log in network.deltas.items() if log
            }
            await network.drain()
            await assert_each_counts_once(network)
        finally:
            await client.flushdb()


def test_a_replaced_state_of_more_shards_leaves_nothing(redis_url: str) -> None:
    """Whatever number of shards was there before."""
    settings = Settings(group="h", redis=redis_url, shards=2, outcomes=False)
    with redis.Redis.from_url(redis_url) as client:
        client.hset("{h/u07}:counts", "events", 1)
        with StateReplacement(settings, [], what="restore", replaces=True) as state:
            state.finish()
        assert client.keys("*") == []


def test_only_partitions_of_deltas_are_skipped() -> None:
    """Events are not."""
    with pytest.raises(ValueError, match="no partition of deltas"):
        skipped_deltas(Settings(), {"k/t/0": 7})
