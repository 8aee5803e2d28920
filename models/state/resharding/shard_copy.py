"""Copies what steps of events and metadata have written from the shards of one layout to another's.

The source is frozen, and nobody knows of the target yet: so the order does not matter, but for the
numbers of histories, which items mention. A copy that was broken off is removed, and begun anew.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from models.settings import Settings
from models.state import layout
from models.state.clients.client import RedisClient
from models.state.resharding.copied_keys import KeyWriter, asked, by_tasks, pairs_of, pieces
from models.state.resharding.history_copy import (
    PAGES_AT_ONCE,
    HistoryCopy,
    LinkCopy,
    PagesOfShard,
)
from models.state.resharding.history_numbers import HistoryNumbers
from models.state.resharding.item_copy import ItemCopy, last_index
from models.state.resharding.recent_tables import shared_out
from models.state.resharding.record_copy import RecordCopy, RecordMark
from models.state.shards.merged_answers import ADDED_BY_STEPS, LATEST, scored_members
from models.state.shards.shard_names import ShardKind
from models.state.shards.stored_layout import ShardLayout

TASKS = 6
"""Pieces of work that are under way at once."""

LINKS_AT_ONCE = 16

Counts = dict[str, float]

ShareDone = Callable[[float], None]
"""Is told the share that is done, 0 to 1."""


class ShardCopy:
    """A copy of a group's state to other shards.

    Parameters
    ----------
    source, target
        The layouts.
    fields
        Of the watermarks of all partitions of events.
    records
        The same of metadata.
    check
        Called before anything is written; raises if nothing more may be.
    progress
        Is told how far it is.

    Attributes
    ----------
    n_histories, n_items
        What was copied, so far.
    """

    def __init__(
        self,
        client: RedisClient,
        settings: Settings,
        source: ShardLayout,
        target: ShardLayout,
        *,
        fields: Sequence[str],
        records: Sequence[RecordMark] = (),
        check: Callable[[], None],
        progress: ShareDone,
    ) -> None:
        self._client = client
        self._settings = settings
        self._source, self._target = source, target
        self._fields = list(fields)
        self._records = records
        self._writer: Callable[[], KeyWriter] = functools.partial(KeyWriter, client, check)
        self._progress = progress
        group = settings.group
        kinds: tuple[ShardKind, ...] = ("u", "i")
        self._from = {kind: source.prefixes(group, kind) for kind in kinds}
        self._to = {kind: target.prefixes(group, kind) for kind in kinds}
        self.n_histories = self.n_items = 0

    async def run(self, *, now_s: float) -> None:
        """Copy everything; the target's counts, with its format, and watermarks come last.

        Raises
        ------
        Exception
            What `check` raises, and errors of redis-py of a server that stays away.
        """
        of_shards = [await self._counts(prefix) for prefix in self._from["u"]]
        pages = [
            PagesOfShard(
                prefix, shard, self._source.shards,
                int(counts.get("owner_index", 0)), int(counts.get("session_index", 0)),
            )
            for shard, (prefix, counts) in enumerate(zip(self._from["u"], of_shards, strict=True))
        ]  # fmt: skip
        bounds = {
            is_user: max(one.bound(is_user=is_user) for one in pages) for is_user in (True, False)
        }
        with HistoryNumbers(
            self._target.shards, users=bounds[True], sessions=bounds[False]
        ) as numbers:
            await self._copy_histories(pages, numbers)
            await self._copy_links(now_s)
            await self._copy_small(numbers)
            last_page = await self._copy_items(numbers)
            await self._write_counts(of_shards, numbers, last_page)
        await RecordCopy(self._client, self._from, self._to, self._writer).run(self._records)
        await self._write_marks()

    async def _counts(self, prefix: str) -> Counts:
        (stored,) = await asked(self._client, ("HGETALL", prefix + "counts"))
        return {name.decode(): float(value) for name, value in pairs_of(stored)}

    async def _copy_histories(self, pages: Sequence[PagesOfShard], numbers: HistoryNumbers) -> None:
        copy = HistoryCopy(self._client, self._settings, self._target, numbers, self._writer)
        n_pages = sum(1 for one in pages for _ in one.pages())
        n_done = 0

        async def copy_some(work: tuple[str, Sequence[int]]) -> None:
            nonlocal n_done
            await copy.copy_pages(*work)
            n_done += len(work[1])
            self.n_histories = copy.n_copied
            self._progress(0.6 * n_done / n_pages)

        work = (
            (one.prefix, some) for one in pages for some in pieces(list(one.pages()), PAGES_AT_ONCE)
        )
        await by_tasks(work, copy_some, tasks=TASKS)

    async def _copy_links(self, now_s: float) -> None:
        copy = LinkCopy(self._client, self._settings, self._source, self._target, self._writer)
        await by_tasks(pieces(copy.keys(now_s), LINKS_AT_ONCE), copy.copy, tasks=TASKS)
        self._progress(0.7)

    async def _copy_items(self, numbers: HistoryNumbers) -> int:
        copy = ItemCopy(self._client, self._from["i"], self._to["i"], numbers, self._writer)
        await copy.read_splits()
        await by_tasks(self._from["i"], copy.copy_names, tasks=TASKS)
        n_done = 0

        async def copy_shard(prefix: str) -> None:
            nonlocal n_done
            await copy.copy_items(prefix)
            n_done += 1
            self.n_items = copy.n_copied
            self._progress(0.7 + 0.3 * n_done / self._source.shards)

        await by_tasks(self._from["i"], copy_shard, tasks=TASKS)
        for prefix in self._from["i"]:
            await copy.copy_tops(prefix)
        return copy.last_page

    async def _copy_small(self, numbers: HistoryNumbers) -> None:
        """Copy the codes of event types, tombstones, and the tables of recent events."""
        writer = self._writer()
        tables = []
        for prefix in self._from["u"]:
            types, erased, table = await asked(
                self._client,
                ("HGETALL", prefix + "types"),
                ("ZRANGE", prefix + "erased", 0, -1, "WITHSCORES"),
                ("GET", prefix + "recent"),
            )
            tables.append(table or b"")
            for target in self._to["u"]:
                # A tombstone's owner is not known: in a shard of others it does no harm.
                for digest, until_ms in scored_members(erased):
                    await writer.put(target, "ZADD", "erased", "GT", f"{until_ms:.0f}", digest)
                if erased:
                    ttl_s = self._settings.kept_tombstones_s
                    await writer.put(target, "EXPIRE", "erased", ttl_s)
                await self._put_types(writer, target, types)
        (types,) = await asked(self._client, ("HGETALL", self._from["i"][0] + "types"))
        for target in (*self._to["u"], self._to["i"][0]):
            await self._put_types(writer, target, types)
        for target, table in zip(self._to["u"], shared_out(tables, numbers), strict=True):
            if table:
                await writer.put(target, "SET", "recent", table)
        await writer.flush()

    async def _put_types(self, writer: KeyWriter, target: str, types: object) -> None:
        flat = [each for pair in pairs_of(types) for each in pair]
        if flat:
            await writer.put(target, "HSET", "types", *flat)

    async def _write_counts(
        self, sessions: Sequence[Counts], numbers: HistoryNumbers, last_page: int
    ) -> None:
        """Write sums, of which each shard gets its part, times, and the numbers given."""
        sums = {name: sum(of.get(name, 0) for of in sessions) for name in ADDED_BY_STEPS}
        del sums["items"]
        times = {
            name: max(of[name] for of in sessions if name in of)
            for name in LATEST
            if any(name in of for of in sessions)
        }
        writer = self._writer()
        for shard, prefix in enumerate(self._to["u"]):
            counts: dict[str, str | float] = {
                "format": layout.STATE_FORMAT,
                "owner_index": numbers.given[shard, True],
                "session_index": numbers.given[shard, False],
                **{name: _decimal(name, value) for name, value in times.items()},
            }
            parts = {name: _part(value, shard, len(self._to["u"])) for name, value in sums.items()}
            counts |= {name: part for name, part in parts.items() if part}
            await _put_counts(writer, prefix, counts)
        for shard, prefix in enumerate(self._to["i"]):
            counts = {
                "format": layout.STATE_FORMAT,
                "item_index": last_index(shard, self._target.shards, last_page),
            }
            (n_items,) = await asked(self._client, ("HLEN", prefix + "items"))
            if n_items:
                counts["items"] = n_items
            await _put_counts(writer, prefix, counts)
        await writer.flush()

    async def _write_marks(self) -> None:
        """Write the watermarks of events, with the message at each, to all session shards."""
        writer = self._writer()
        for name in ("watermarks", "witnesses"):
            (values,) = await asked(
                self._client, ("HMGET", self._from["u"][0] + name, *self._fields)
            )
            flat = [
                each
                for field, value in zip(self._fields, values, strict=True)
                if value is not None
                for each in (field, value)
            ]
            for prefix in self._to["u"]:
                if flat:
                    await writer.put(prefix, "HSET", name, *flat)
        await writer.flush()


def _part(value: float, shard: int, shards: int) -> int:
    """A shard's part of a sum that is shared out evenly.

    >>> [_part(7, shard, 3) for shard in range(3)]
    [3, 2, 2]
    """
    return (int(value) + shards - 1 - shard) // shards


def _decimal(name: str, value: float) -> str:
    """A time as the steps write it."""
    return f"{value:.0f}" if name == "clock" else f"{value:.6f}"


async def _put_counts(writer: KeyWriter, prefix: str, counts: dict[str, str | float]) -> None:
    await writer.put(prefix, "HSET", "counts", *(each for pair in counts.items() for each in pair))
