"""State on another number of shards: what the naive meaning says, before and after more events."""

from __future__ import annotations

import asyncio
import copy
import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.settings import Settings
from models.state.clients.client import connect
from models.state.messages import Part
from models.state.resharding.leftovers import remove_leftovers
from models.state.resharding.shard_copy import ShardCopy
from models.state.shards.shard_names import owner_shard
from models.state.shards.sharded_steps import ShardedSteps
from models.state.shards.stored_layout import ShardLayout
from models.state.store import Store
from tests.models.state.message_fixtures import MESSAGES
from tests.models.state.reference import NOW, click
from tests.models.state.shards.shard_network import ShardNetwork
from tests.models.state.shards.sharded_reference import ShardedReference, assert_same_shards
from tests.models.state.shards.test_sharded_steps import Drawn, numbered, some_splits, to_log

FIELDS = ["p/0", "p/1"]
LIMIT = 20


class OneShard:
    """A group of one shard, as `ShardNetwork` is one of several."""

    def __init__(self, client: Any, one: Settings, reference: ShardedReference) -> None:
        self.steps: Any = _Form(client, one)
        self.store = Store(client, one)
        self.reference = reference
        self.events: Any = ([], [])

    async def do_something(self) -> None:
        """Nothing: there is one kind of step."""

    async def drain(self) -> None:
        """Everything in effect."""
        for field, log in zip(FIELDS, self.events, strict=True):
            (mark,) = await self.store.watermarks([field])
            await self.store.apply([Part(field, mark, log)], now_s=NOW)
            self.reference.apply_events(0, field, log)


class _Form:
    """What says on how many shards a group is."""

    def __init__(self, client: Any, one: Settings) -> None:
        self.redis, self.settings, self.shards = client, one, 1


def network_of(
    client: Any, layout: ShardLayout, reference: ShardedReference, chance: random.Random
) -> Any:
    """Steps on a layout."""
    one = Settings(group="h", history_events=LIMIT, outcomes=False).on_shards(*layout)
    if layout.shards == 1:
        return OneShard(client, one, reference)
    return ShardNetwork(
        ShardedSteps(client, one, shards=layout.shards), reference, chance.randrange
    )


def on_shards(before: ShardedReference, shards: int) -> ShardedReference:
    """The same meaning for another number of shards."""
    after = ShardedReference(shards, limit=LIMIT)
    for name in (
        "histories", "trimmed", "owner_counts", "accepted_at", "erasures", "pairs", "items",
        "item_purchases", "recent_owners", "counts", "newest_accepted_at",
    ):  # fmt: skip
        setattr(after, name, copy.deepcopy(getattr(before, name)))
    links = _links_of(before)
    for of_shard in before._of_shards:
        for shard, new in enumerate(after._of_shards):
            _share_out(before, of_shard, new, functools.partial(int.__eq__, shard), shards)
    for shard, (new_links, *_) in enumerate(after._of_shards):
        for session, user in links.items():
            if shard in {owner_shard(one, shards) for one in (session, user)}:
                new_links[session] = user
    for (_, field), mark in before._marks.items():
        for shard in range(shards):
            if field in FIELDS:
                after._marks[shard, field] = max(mark, after._marks[shard, field])
    return after


def _links_of(before: ShardedReference) -> dict[str, str]:
    """The user of each session: where shards differ, that of the session knows."""
    every: dict[str, str] = {}
    own: dict[str, str] = {}
    for shard, links in enumerate(before.all_links()):
        every |= links
        own |= {s: user for s, user in links.items() if owner_shard(s, before.shards) == shard}
    return every | own


def _share_out(
    before: ShardedReference, old: Any, new: Any, is_here: Callable[[int], bool], shards: int
) -> None:
    """Give a shard what it has of another's tombstones and recent events."""
    (_, tombstones, recent), (_, new_tombstones, new_recent) = old, new
    for owner, until_ms in tombstones.items():
        new_tombstones[owner] = max(new_tombstones[owner], until_ms)
    for event, owners in recent.items():
        there = {one for one in owners if any(map(is_here, _shards_of(before, one, shards)))}
        if there:
            new_recent[event] |= there


def _shards_of(reference: ShardedReference, known: str, shards: int) -> set[int]:
    """Shards that a recent event goes to: a user's, or all where its owner is not there."""
    owner, _, erasures = known.partition("#")
    if known and owner in reference.histories and reference.erasures[owner] == int(erasures):
        return {owner_shard(owner[2:], shards)}
    return set(range(shards))


async def copied(network: Any, target: ShardLayout) -> None:
    """Copy the state of a network's layout to another, once a step of all shards has been done.

    That gives all the same watermark, as workers' steps do.
    """
    one = network.steps.settings
    source = ShardLayout(network.steps.shards, one.generation)
    for prefix in source.prefixes("h", "u"):
        for field, log in zip(FIELDS, network.events, strict=True):
            if log:
                await network.steps.redis.hset(prefix + "watermarks", field, len(log) - 1)
    copy_ = ShardCopy(
        network.steps.redis,
        one,
        source,
        target,
        fields=FIELDS,
        check=lambda: None,
        progress=lambda _: None,
    )
    await copy_.run(now_s=NOW)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    MESSAGES,
    MESSAGES,
    st.lists(st.integers(1, 5), min_size=2, max_size=4).filter(
        lambda numbers: all(a != b for a, b in itertools.pairwise(numbers))
    ),
    st.randoms(),
)
def test_any_state_moves_to_any_number_of_shards(
    redis_url: str, first: Drawn, more: Drawn, numbers: list[int], chance: random.Random
) -> None:
    """From one to the next, events before and behind each move: always what the reference says."""

    async def check() -> None:
        async with connect(redis_url) as client:
            try:
                reference = ShardedReference(numbers[0], limit=LIMIT)
                network = network_of(client, ShardLayout(numbers[0], 0), reference, chance)
                await _split_some(network, chance)
                await _apply(network, first, 0)
                for generation, shards in enumerate(numbers[1:], 1):
                    target = ShardLayout(shards, generation)
                    await copied(network, target)
                    await remove_leftovers(client, network.steps.settings, target, FIELDS)
                    moved = network_of(client, target, on_shards(network.reference, shards), chance)
                    moved.events = network.events
                    network = moved
                    await _assert_same(network)
                    await _split_some(network, chance)
                    await _apply(network, more, 1000 * generation)
            finally:
                await client.flushdb()

    asyncio.run(check())


async def _split_some(network: Any, chance: random.Random) -> None:
    if network.steps.shards > 1:
        await network.steps.split_lists(some_splits(network.steps.shards, chance))


async def _apply(network: Any, drawn: Drawn, first: int) -> None:
    for number, (user, session, events) in enumerate(drawn):
        to_log(network, user, session, numbered(events, first + 5 * number))
        for _ in range(3):
            await network.do_something()
    await network.drain()
    await _assert_same(network)


async def _assert_same(network: Any) -> None:
    await assert_same_shards(
        network.steps, network.reference, network.reference.all_links(), owners_are_same=True
    )


async def test_new_items_get_free_indexes(redis_url: str) -> None:
    """Pages of another layout are nobody's to give; full pages stay full."""
    chance = random.Random(1)
    async with connect(redis_url) as client:
        try:
            network = network_of(client, ShardLayout(2), ShardedReference(2, limit=LIMIT), chance)
            for number in range(70):
                to_log(network, f"u{number}", f"u{number}", [click(f"i{number}", number)])
            await network.drain()
            for generation, shards in enumerate((3, 1, 4), 1):
                target = ShardLayout(shards, generation)
                await copied(network, target)
                await remove_leftovers(client, network.steps.settings, target, FIELDS)
                moved = network_of(client, target, on_shards(network.reference, shards), chance)
                moved.events = network.events
                network = moved
                for number in range(20):
                    name = f"n{generation}-{number}"
                    to_log(network, name, name, [click(name, 1000 * generation + number)])
                await network.drain()
                await _assert_same(network)
        finally:
            await client.flushdb()
