"""Copies items, with their lists and counts, to other item shards; indexes stay as they are.

An item's index goes to the shard of its id, everything else to that of the index: of items that got
it in another layout, these are two. The parts of a split list become one list again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.state import layout
from models.state.clients.client import RedisClient
from models.state.resharding.copied_keys import KeyWriter, asked, hash_fields
from models.state.resharding.history_numbers import HistoryNumbers
from models.state.shards.at_once import at_once
from models.state.shards.merged_answers import scored_members
from models.state.shards.merged_lists import merged_lists
from models.state.shards.shard_names import item_shard, owner_shard
from models.state.shards.split_lists import NO_SPLITS, list_shards, splits_of

TOP_LISTS = ("all", "recent", "new", "fresh", *layout.POPULARITY_HALF_LIVES_S)


class ItemCopy:
    """Copies the items of one item shard after the other; of the tasks of one loop.

    Parameters
    ----------
    source, prefixes
        Of the item shards of the layout before, and of the new one.
    numbers
        New numbers of histories, all of them given by now.
    writer
        Makes a writer for a task.

    Attributes
    ----------
    last_page
        The greatest page of statistics that was met: indexes beyond it are free.
    """

    def __init__(
        self,
        client: RedisClient,
        source: Sequence[str],
        prefixes: Sequence[str],
        numbers: HistoryNumbers,
        writer: Callable[[], KeyWriter],
    ) -> None:
        self._client = client
        self._source = source
        self._splits = NO_SPLITS
        self._prefixes = prefixes
        self._numbers = numbers
        self._writer = writer
        self.n_copied = 0
        self.last_page = -1

    async def read_splits(self) -> None:
        """Read which lists are in parts, before any items are copied: the new layout has none."""
        (stored,) = await asked(self._client, ("HGETALL", self._source[0] + "split"))
        self._splits = splits_of(stored)

    async def copy_names(self, prefix: str) -> None:
        """Copy the indexes of a shard's ids."""
        writer = self._writer()
        async for fields in hash_fields(self._client, prefix + "items"):
            by_target: dict[str, list[bytes]] = {}
            for name, index in fields:
                target = self._prefixes[owner_shard(name.decode(), len(self._prefixes))]
                by_target.setdefault(target, []).extend((name, index))
            for target, flat in by_target.items():
                await writer.put(target, "HSET", "items", *flat)
        await writer.flush()

    async def copy_items(self, prefix: str) -> None:
        """Copy the ids of a shard's indexes, their lists of neighbours and owners, and counts."""
        writer, pages = self._writer(), set[int]()
        async for fields in hash_fields(self._client, prefix + "ids"):
            await self._copy(prefix, [int(index) for index, _ in fields], writer)
            by_target: dict[str, list[bytes]] = {}
            for index, name in fields:
                by_target.setdefault(self._of_index(int(index)), []).extend((index, name))
            for target, flat in by_target.items():
                await writer.put(target, "HSET", "ids", *flat)
            pages |= {int(index) // layout.STATS_PER_PAGE for index, _ in fields}
            self.n_copied += len(fields)
        await self._copy_stats(prefix, sorted(pages), writer)
        await writer.flush()

    def _of_index(self, index: int) -> str:
        return self._prefixes[item_shard(index, len(self._prefixes))]

    async def _copy(self, prefix: str, indexes: Sequence[int], writer: KeyWriter) -> None:
        names = [f"{family}:{index}" for index in indexes for family in ("pairs", "takers")]
        (values,) = await asked(self._client, ("MGET", *(prefix + name for name in names)))
        for n, index in enumerate(indexes):
            target = self._of_index(index)
            pairs, takers = values[2 * n : 2 * n + 2]
            if index in self._splits:
                pairs = await self._merged(index)
            if pairs is not None:
                await writer.put(target, "SET", f"pairs:{index}", pairs)
            if takers is not None:
                there = self._numbers.of(np.frombuffer(takers, layout.HISTORY_NUMBER))
                there = there[there > 0]
                if len(there):
                    await writer.put(target, "SET", f"takers:{index}", there.tobytes())

    async def _merged(self, index: int) -> bytes | None:
        """A list whose parts are on several shards."""
        shards = list_shards(index, self._splits, len(self._source))
        parts = await at_once(
            asked(self._client, ("GET", f"{self._source[shard]}pairs:{index}")) for shard in shards
        )
        return merged_lists([part for (part,) in parts])

    async def _copy_stats(self, prefix: str, pages: Sequence[int], writer: KeyWriter) -> None:
        for at in range(0, len(pages), 200):
            some = pages[at : at + 200]
            (values,) = await asked(self._client, ("MGET", *(f"{prefix}stats:{p}" for p in some)))
            for page, value in zip(some, values, strict=True):
                if value is not None:
                    target = self._of_index(page * layout.STATS_PER_PAGE)
                    await writer.put(target, "SET", f"stats:{page}", value)
        self.last_page = max(self.last_page, *pages, -1)

    async def copy_tops(self, prefix: str) -> None:
        """Copy the heads of a shard's top lists."""
        writer = self._writer()
        for name in TOP_LISTS:
            (found,) = await asked(
                self._client, ("ZRANGE", f"{prefix}top:{name}", 0, -1, "WITHSCORES")
            )
            for index, score in scored_members(found):
                await writer.put(self._of_index(int(index)), "ZADD", f"top:{name}", score, index)
        await writer.flush()
        for target in self._prefixes:
            for name in TOP_LISTS:
                await writer.put(target, "ZREMRANGEBYRANK", f"top:{name}", 0, -layout.TOPS - 1)
        await writer.flush()


def last_index(shard: int, shards: int, last_page: int) -> int:
    """Number of indexes that a shard takes itself to have given: all further ones are free.

    >>> [last_index(shard, 4, 5) for shard in range(4)], last_index(0, 1, 5), last_index(1, 4, -1)
    ([127, 127, 63, 63], 383, 0)
    """
    first = max(0, -(-(last_page + 1 - shard) // shards))
    return max(0, first * layout.STATS_PER_PAGE - 1)
