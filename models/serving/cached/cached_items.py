"""Containers of the state cache: item ids, and item statistics.

Times are as in `models.state.timed_cache`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any

import numpy as np
from numba import b1, f8, i8
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes
from models.machine_code import compiled
from models.ranking.features import STATS
from models.state import layout
from models.state.store import Store
from models.state.timed_cache import NEVER

LOG = logging.getLogger(__name__)

MAX_PAGES_READ = 256
"""Pages of statistics in one background read."""

STALE_PAGE_S = 5.0
"""Age from which on a request waits for new statistics; until then they are read in background."""

EMPTY_PAGE = bytes(layout.STATS_PER_PAGE * layout.STAT.itemsize)


class ItemIds:
    """Ids of a group's items by index; they never change. In a list, as there may be a million."""

    def __init__(self, store: Store, *, size: int) -> None:
        self._store = store
        self._size = size
        self._ids: list[str | None] = []
        self._n = 0

    async def of(self, items: Sequence[int], others: Indexes = NO_ITEMS) -> list[str | None]:
        """Item ids; None for an index without an item.

        If some must be read, those of `others` are read along, as they will be wanted next.
        """
        found = self._held(items)
        if None in found:
            wanted = (*items, *others.tolist())
            held = zip(wanted, self._held(wanted), strict=True)
            missing = [item for item, item_id in held if item_id is None]
            read = dict(zip(missing, await self._store.item_ids(missing), strict=True))
            found = [item_id or read[item] for item, item_id in zip(items, found, strict=True)]
            self._keep(read)
        return found

    def known(self, items: Collection[int]) -> list[str]:
        """Ids of the items that are held; reads nothing."""
        return [item_id for item_id in self._held(items) if item_id is not None]

    def _held(self, items: Collection[int]) -> list[str | None]:
        ids = self._ids
        try:
            return [ids[item] for item in items]
        except IndexError:
            return [ids[item] if item < len(ids) else None for item in items]

    def _keep(self, ids: Mapping[int, str | None]) -> None:
        # Indexes are given in sequence: the list has no more gaps than items never asked for.
        found = {item: item_id for item, item_id in ids.items() if item_id is not None}
        if self._n + len(found) > self._size:
            self._ids, self._n = [], 0
        held = self._ids
        held.extend([None] * (max(found, default=0) + 1 - len(held)))
        for item, item_id in found.items():
            self._n += held[item] is None
            held[item] = item_id


class ItemStatistics:
    """Counts and popularities of a group's items, in pages as stored; renewed in the background.

    `is_told_changes`: every change is told by `item_changed`, before anything else is read; what
    has not changed is then not read again. Only items that exist may be asked for.
    """

    def __init__(self, store: Store, *, max_age_s: float, is_told_changes: bool = False) -> None:
        self._store = store
        self._max_age_s = max_age_s
        self._stats = np.zeros(layout.STATS_PER_PAGE, layout.STAT)
        self._page_read_at = np.full(1, NEVER)
        self._is_page_wanted = np.zeros(1, np.bool_)
        self._is_told_changes = is_told_changes
        # Pages that are held as they were before a change, or not at all.
        self._is_outdated = np.ones(1, np.bool_)
        self._changed: set[int] = set()
        self._read_ahead: dict[int, bytes] = {}
        self._last_page = 0
        self.task: asyncio.Task[None] | None = None

    def item_changed(self, item: int | None) -> None:
        """Note a change of an item's statistics: 0 for a new item, None for any.

        A new item has a greater index than those before: its page is the last one, or not held yet.
        """
        if item is None:
            self._is_outdated[:] = True
            self._changed.clear()
            self._read_ahead.clear()
            return
        page = item // layout.STATS_PER_PAGE if item else self._last_page
        if page < len(self._is_outdated):
            self._is_outdated[page] = True
        self._read_ahead.pop(page, None)
        self._changed.add(page)

    def read_ahead(self) -> None:
        """Read pages that have changed along with what is read next; `of` shows them when due.

        For a reader that waits for what it reads before anything changes.
        """
        if self._changed:
            pages = [*self._changed]
            self._changed.clear()
            reading = self._store.shared_values(self._keys(pages))
            reading.add_done_callback(functools.partial(self._keep_ahead, pages))

    def _keep_ahead(self, pages: list[int], reading: asyncio.Future[list[bytes | None]]) -> None:
        # After an error, whoever needs a page reads it.
        if not reading.cancelled() and reading.exception() is None:
            raws = zip(pages, reading.result(), strict=True)
            self._read_ahead |= {page: raw or EMPTY_PAGE for page, raw in raws}

    def _keys(self, pages: list[int]) -> list[str]:
        key = self._store.key("stats:")
        return [f"{key}{page}" for page in pages]

    async def of(self, items: Indexes, now_s: float) -> NDArray[np.void]:
        """``(n,)`` of `layout.STAT`; waits for pages that are older than `STALE_PAGE_S`."""
        if not len(items):
            return np.zeros(0, layout.STAT)
        stats, highest, oldest, newest = self._held(items, now_s)
        self._last_page = max(self._last_page, highest)
        if highest >= len(self._page_read_at):
            self._grow(highest + 1)
            oldest = NEVER
        if now_s - oldest > STALE_PAGE_S or newest - now_s > STALE_PAGE_S:
            pages = np.unique(items // layout.STATS_PER_PAGE)
            is_stale = np.abs(now_s - self._page_read_at[pages]) > STALE_PAGE_S
            await self._read(pages[is_stale], now_s)
            stats, *_ = self._held(items, now_s)
        elif now_s - oldest > self._max_age_s and (self.task is None or self.task.done()):
            self.task = in_background(self._read_wanted(now_s))
        return stats

    def _held(self, items: Indexes, now_s: float) -> tuple[NDArray[np.void], int, float, float]:
        renewed_before_s = now_s - self._max_age_s
        return _stats_of(
            self._stats, self._page_read_at, items, renewed_before_s, self._is_page_wanted
        )

    async def _read_wanted(self, now_s: float) -> None:
        pages = np.flatnonzero(self._is_page_wanted)[:MAX_PAGES_READ]
        self._is_page_wanted[pages] = False
        await self._read(pages, now_s)

    async def _read(self, pages: Indexes, now_s: float) -> None:
        wanted = pages[self._is_outdated[pages]] if self._is_told_changes else pages
        if len(wanted):
            raws = await self._raw_pages(wanted.tolist())
            # As bytes: numpy copies records field by field.
            held = self._stats.view(np.uint8).reshape(-1, len(EMPTY_PAGE))
            # Of a shard that is away, as they were.
            raws = [
                raw or held[page].tobytes() for page, raw in zip(wanted.tolist(), raws, strict=True)
            ]
            held[wanted] = np.frombuffer(b"".join(raws), np.uint8).reshape(-1, len(EMPTY_PAGE))
            self._is_outdated[wanted] = False
        self._page_read_at[pages] = now_s

    async def _raw_pages(self, pages: list[int]) -> list[bytes]:
        ahead = [self._read_ahead.pop(page, None) for page in pages]
        missing = [page for page, raw in zip(pages, ahead, strict=True) if raw is None]
        if not missing:
            return [raw for raw in ahead if raw is not None]
        raws = iter(await self._store.shared_values(self._keys(missing)))
        found = [next(raws) if raw is None else raw for raw in ahead]
        return [EMPTY_PAGE if raw is None else raw for raw in found]

    def _grow(self, pages: int) -> None:
        if pages > len(self._page_read_at):
            pages = max(pages, 2 * len(self._page_read_at))
            added = pages - len(self._page_read_at)
            self._page_read_at = np.append(self._page_read_at, np.full(added, NEVER))
            self._is_page_wanted = np.append(self._is_page_wanted, np.zeros(added, np.bool_))
            self._is_outdated = np.append(self._is_outdated, np.ones(added, np.bool_))
            self._stats = np.append(
                self._stats, np.zeros(added * layout.STATS_PER_PAGE, layout.STAT)
            )


@compiled(Tuple((STATS, i8, f8, f8))(STATS, f8[::1], i8[::1], f8, b1[::1]))
def _stats_of(
    held: NDArray[np.void],
    page_read_at: Floats,
    items: Indexes,
    renewed_before_s: float,
    is_page_wanted: NDArray[np.bool_],
) -> tuple[NDArray[np.void], int, float, float]:
    """Held statistics of the items, their highest page, and the least and greatest read time.

    Pages that were read before `renewed_before_s` are marked as wanted.
    """
    highest, oldest, newest = 0, np.inf, -np.inf
    stats = np.empty(len(items), held.dtype)
    for at in range(len(items)):
        page = items[at] // layout.STATS_PER_PAGE
        highest = max(highest, page)
        if page < len(page_read_at):
            stats[at] = held[items[at]]
            read_at = page_read_at[page]
            oldest, newest = min(oldest, read_at), max(newest, read_at)
            if read_at < renewed_before_s:
                is_page_wanted[page] = True
    return stats, highest, oldest, newest


def in_background(read: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Task of a read that no request awaits; a failure is logged, since the next read is soon."""
    task = asyncio.create_task(read)
    task.add_done_callback(_log_failure)
    return task


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.warning("cached state is not renewed: %s", error)
