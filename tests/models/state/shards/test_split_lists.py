"""Lists of neighbours in parts on several item shards."""

from __future__ import annotations

import math
import random

import pytest

from models.settings import Settings
from models.state import layout
from models.state.clients.client import connect
from models.state.shards.merged_lists import merged_lists
from models.state.shards.sharded_store import ShardedStore
from models.state.shards.split_lists import ListSplit, list_shards, wanted_splits
from models.state.shared_reads import read_group_state
from streams.agents.shards.hot_lists import split_hot_lists
from tests.models.state.pair_records import PairCodes, pack_pairs, unpack_items, unpack_pairs
from tests.models.state.reference import NOW, click
from tests.models.state.shards.test_sharded_steps import make_network, to_log

HOUR_S = layout.POPULARITY_HALF_LIVES_S["hour"]


def popularity(events_per_s: float) -> float:
    """What a top list has of an item with so many events a second for a long time."""
    return math.log2(events_per_s * HOUR_S / math.log(2)) + (NOW - layout.EPOCH) / HOUR_S


def test_an_item_has_parts_by_its_share() -> None:
    """A part for each 8 % of a shard's mean; no more than there are shards; none of quiet items."""
    rest = dict.fromkeys(range(3, 93), popularity(10))
    heads = {1: popularity(1000), 2: popularity(30), **rest}
    found = wanted_splits(heads, {}, 16, now_s=NOW, ahead_s=300)
    begins = NOW - layout.EPOCH + 360
    assert found == {1: [ListSplit(begins, 16)], 2: [ListSplit(begins, 4)]}
    assert set(wanted_splits(heads, {}, 4, now_s=NOW, ahead_s=300)) == {1}
    quiet = {index: log2 - 7 for index, log2 in heads.items()}
    assert not wanted_splits(quiet, {}, 16, now_s=NOW, ahead_s=300)


def test_a_list_is_split_further_and_never_less() -> None:
    """What it was before stays known, for events of before."""
    heads = {1: popularity(1000), 2: popularity(1000)}
    before = {1: [ListSplit(5, 2)], 2: [ListSplit(5, 8)]}
    found = wanted_splits(heads, before, 8, now_s=NOW, ahead_s=300)
    assert found == {1: [ListSplit(5, 2), ListSplit(NOW - layout.EPOCH + 360, 8)]}


def test_merged_parts_are_the_sums_of_their_counts() -> None:
    """Of lists of different bases, with neighbours of one and of both."""
    chance = random.Random(3)

    def some(items: range) -> list[PairCodes]:
        return [
            PairCodes(item, chance.randint(100, 900), chance.randint(100, 900),
                      chance.randint(0, 200), chance.randint(1, 63), chance.randint(0, 63))
            for item in items
        ]  # fmt: skip

    parts = [
        pack_pairs(some(range(1, 100)), NOW),
        pack_pairs(some(range(50, 150)), NOW + 9e6, room=3),
    ]
    raw = merged_lists(parts)
    assert raw is not None
    found, (one, other) = unpack_pairs(raw), map(unpack_pairs, parts)
    assert found.keys() == one.keys() | other.keys()
    for item, channels in found.items():
        for name, count in (
            ("both", layout.BOTH_COUNT), ("month", layout.MONTH_COUNT), ("day", layout.DAY_COUNT)
        ):  # fmt: skip
            logs = [part[item][name] for part in (one, other) if item in part]
            top = max(logs)
            summed = (
                top + math.log2(sum(2 ** (log2 - top) for log2 in logs)) if top > -math.inf else top
            )
            least = unpack_base(raw, count) * count.step_log2
            if summed > least + count.step_log2:
                assert channels[name] == pytest.approx(summed, abs=count.step_log2 / 2 + 1e-9)
            else:  # what is too small beside the greatest
                assert channels[name] in {least + count.step_log2, -math.inf}


def unpack_base(raw: bytes, count: layout.PairCount) -> int:
    """The base of a count in a list."""
    counts = (layout.BOTH_COUNT, layout.MONTH_COUNT, layout.DAY_COUNT)
    return int(layout.PAIR_HEAD.unpack_from(raw)[counts.index(count)])


def test_merged_parts_are_a_list_of_the_usual_length() -> None:
    """The neighbours with the largest counts; of one part, that part; of none, nothing."""
    parts = [
        pack_pairs([PairCodes(n, 500, n, 0) for n in range(first, first + 150)], NOW)
        for first in (1, 151)
    ]
    merged = merged_lists(parts) or b""
    assert sorted(unpack_items(merged)) == list(range(101, 301))
    assert merged_lists([None, parts[0], b""]) == parts[0]
    assert merged_lists([None, None]) is None


async def test_readers_have_all_parts(redis_url: str) -> None:
    """A list is split from a time on: neighbours of before, and of each part, are in one list."""
    async with connect(redis_url) as client:
        try:
            network = await make_network(client, 4, random.Random(1), 20)
            await client.delete("{h/i00}:split")
            to_log(network, "u1", "u1", [click("a", 1, NOW - 50), click("hot", 2, NOW - 49)])
            await network.drain()
            hot = (await network.steps.indexes_of(["hot"]))["hot"]
            await network.steps.split_lists({hot: [ListSplit(NOW - layout.EPOCH - 20, 4)]})
            await network.steps.read_splits(NOW)
            for n, item in enumerate("bcdefghi"):
                user = f"u{n + 2}"
                events = [click(item, 2 * n + 10, NOW - 10), click("hot", 2 * n + 11, NOW - 9)]
                to_log(network, user, user, events)
            await network.drain()
            store = ShardedStore(client, Settings(group="h", shards=4, outcomes=False))
            key = store.key(f"pairs:{hot}")
            (before,) = await store.values([key])
            await read_group_state(store, ["clock"])
            (after,) = await store.values([key])
            indexes = await network.steps.indexes_of("abcdefghi")
            assert set(unpack_items(after or b"")) == set(indexes.values())
            assert set(unpack_items(before or b"")) < set(indexes.values())
            sizes = [
                await client.strlen(f"{{h/i{shard:02d}}}:pairs:{hot}")
                for shard in list_shards(hot, {hot: [ListSplit(0, 4)]}, 4)
            ]
            assert sum(size > 0 for size in sizes) > 1
        finally:
            await client.flushdb()


async def test_a_worker_splits_what_is_hot(redis_url: str) -> None:
    """By the top lists of all shards; a second look changes nothing until it is hotter still."""
    async with connect(redis_url) as client:
        try:
            network = await make_network(client, 4, random.Random(1), 20)
            await client.delete("{h/i00}:split")
            steps = network.steps
            for index in range(100):
                shard = index // layout.STATS_PER_PAGE % 4
                await client.zadd(f"{{h/i{shard:02d}}}:top:hour", {str(index): popularity(1.0)})
            await client.zadd("{h/i01}:top:hour", {"70": popularity(12.0)})
            await split_hot_lists(steps, now_s=NOW)
            splits = await steps.read_splits(NOW)
            assert {index: [one.parts for one in every] for index, every in splits.items()} == {
                70: [4]
            }
            (one,) = splits[70]
            assert one.from_age > NOW - layout.EPOCH + steps.settings.future_limit_s
            await split_hot_lists(steps, now_s=NOW + 30)
            assert await steps.read_splits(NOW) == splits
        finally:
            await client.flushdb()
