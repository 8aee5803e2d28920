"""What is known of items, read through a short in-process cache: neighbours, counts, tops, names.

A user's history is always read fresh; what many users share may be `cache_s` old. All reads of
requests that are under way at the same moment travel in one command.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import layout
from models.ranking import Ranker
from models.retrieval import NOTHING, Floats, Indexes, Neighbours, heads_of, unpack_neighbours
from models.store import Store

MAX_LISTS = 20_000
"""Neighbour lists kept in the process, about 8 KB each when full."""

MAX_NAMES = 1_000_000
FALLBACK = 50
"""Items of the top lists whose names are read ahead."""

STALE_PAGE_S = 5.0
"""Counts older than this are read again before they are used; younger ones while they are used."""


class Reads:
    """Gathers the keys that concurrent requests want into one MGET at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[list[str], asyncio.Future[list[bytes | None]]]] = []
        self._running: asyncio.Task[None] | None = None

    async def get(self, keys: list[str]) -> list[bytes | None]:
        """The values of `keys`, absent ones as None."""
        if not keys:
            return []
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                values = await self._store.redis.mget([key for keys, _ in waiting for key in keys])
            except BaseException as error:
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
                continue
            at = 0
            for keys, future in waiting:
                if not future.done():
                    future.set_result(values[at : at + len(keys)])
                at += len(keys)


@dataclass
class Overview:
    """What all requests share: the clock, the top lists and candidates from them, the ranker."""

    clock_s: float = 0.0
    accepted_at: float = 0.0
    tops: dict[str, Indexes] = field(default_factory=dict)
    heads: Indexes = field(default_factory=lambda: NOTHING)
    best: Floats = field(default_factory=lambda: np.zeros(5))
    types: dict[int, str] = field(default_factory=dict)
    ranker: Ranker = field(default_factory=Ranker)
    serving: str = "blend"
    read_at: float = -1e18


class Catalogue:
    """Cached reads of one group's items; `now_s` is the present in Unix seconds.

    A clock that is set back makes everything cached stale, never fresh for longer.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reads = Reads(store)
        self.overview = Overview()
        self._lists: OrderedDict[int, tuple[float, Neighbours]] = OrderedDict()
        self.known_names: dict[int, str] = {}
        self._stats = np.zeros(layout.PAGE, layout.STAT)
        self._page_read_at = np.full(1, -1e18)
        self._overview_task: asyncio.Task[None] | None = None
        self._page_task: asyncio.Task[None] | None = None
        self._ranker_state: bytes | None = None

    async def refresh(self, now_s: float) -> Overview:
        """The overview, at most about two `cache_s` old while requests keep coming."""
        cache_s = self.store.settings.cache_s
        age_s = _age(now_s, self.overview.read_at)
        if age_s > cache_s and (self._overview_task is None or self._overview_task.done()):
            self._overview_task = asyncio.create_task(self._read_overview(now_s))
        if age_s > 2 * cache_s and self._overview_task is not None:
            await asyncio.shield(self._overview_task)
        return self.overview

    async def _read_overview(self, now_s: float) -> None:
        store = self.store
        names = ["all", "recent", *layout.POPULARITY_HALF_LIVES_S, "new"]
        pipe = store.redis.pipeline(transaction=False)
        for name in names:
            pipe.zrange(store.key(f"top:{name}"), 0, layout.TOPS - 1, desc=True, withscores=True)
        pipe.hmget(store.key("counts"), ["clock", "accepted_at"])
        pipe.hgetall(store.key("types"))
        pipe.hmget(store.key("ranker"), ["state", "serving"])
        *ranked, (clock, accepted_at), types, (state, serving) = await pipe.execute()
        scored = dict(zip(names, ranked, strict=True))
        greatest = {name: members[0][1] if members else 0.0 for name, members in scored.items()}
        ranker = self.overview.ranker
        if state != self._ranker_state:
            ranker, self._ranker_state = Ranker.from_state(state), state
        tops = {
            name: np.array([int(member) for member, _ in members], np.int64)
            for name, members in scored.items()
        }
        self.overview = Overview(
            clock_s=float(clock or 0),
            accepted_at=float(accepted_at or 0),
            tops=tops,
            heads=heads_of(tops),
            best=np.array(
                [
                    *(greatest[name] for name in layout.POPULARITY_HALF_LIVES_S),
                    np.log2(max(greatest["all"], 1.0)),
                ]
            ),
            types={int(code): name.decode() for name, code in types.items()},
            ranker=ranker,
            serving=(serving or b"blend").decode(),
            read_at=now_s,
        )
        # Names of what is popular, so that something can be said while the store is away.
        await self.names(self.overview.tops["day"][:FALLBACK].tolist())
        await self.names(self.overview.tops["all"][:FALLBACK].tolist())

    async def neighbours(self, items: Sequence[int], now_s: float) -> list[Neighbours]:
        """The neighbours of each item, at most `cache_s` old."""
        cache_s, lists = self.store.settings.cache_s, self._lists
        # Kept apart, for what is held now may make room for others' during the read.
        found = {
            item: held[1]
            for item in items
            if (held := lists.get(item)) is not None and _age(now_s, held[0]) <= cache_s
        }
        missing = [item for item in items if item not in found]
        if missing:
            raws = await self.reads.get([self.store.key(f"pairs:{item}") for item in missing])
            clock_s = self.overview.clock_s
            unpacked = unpack_neighbours(raws, clock_s)
            for item, neighbours in zip(missing, unpacked, strict=True):
                found[item] = neighbours
                lists[item] = (now_s, neighbours)
                lists.move_to_end(item)
        while len(lists) > MAX_LISTS:
            lists.popitem(last=False)
        return [found[item] for item in items]

    async def stats(self, items: Indexes, now_s: float) -> NDArray[np.void]:
        """``(n,)`` counts and popularities of the items."""
        if not len(items):
            return np.zeros(0, layout.STAT)
        pages = items // layout.PAGE
        self._grow(int(pages.max()) + 1)
        read_at = self._page_read_at[pages]
        oldest, newest = float(read_at.min()), float(read_at.max())
        if now_s - oldest > self.store.settings.cache_s or newest > now_s:
            ages_s = np.where(read_at > now_s, np.inf, now_s - read_at)
            too_old = pages[ages_s > STALE_PAGE_S]
            if len(too_old):
                await self._read_pages(np.unique(too_old), now_s)
            elif self._page_task is None or self._page_task.done():
                stale = np.unique(pages[ages_s > self.store.settings.cache_s])
                self._page_task = asyncio.create_task(self._read_pages(stale, now_s))
        return self._stats[items]

    async def _read_pages(self, pages: Indexes, now_s: float) -> None:
        raws = await self.reads.get([self.store.key(f"stats:{page}") for page in pages.tolist()])
        for page, raw in zip(pages.tolist(), raws, strict=True):
            if raw:
                at = page * layout.PAGE
                self._stats[at : at + layout.PAGE] = np.frombuffer(raw, layout.STAT)
        self._page_read_at[pages] = now_s

    def _grow(self, pages: int) -> None:
        if pages > len(self._page_read_at):
            pages = max(pages, 2 * len(self._page_read_at))
            added = pages - len(self._page_read_at)
            self._page_read_at = np.append(self._page_read_at, np.full(added, -1e18))
            self._stats = np.append(self._stats, np.zeros(added * layout.PAGE, layout.STAT))

    async def names(self, items: Sequence[int], others: Sequence[int] = ()) -> list[str | None]:
        """Item ids; an index means the same item forever, so these never age.

        Where some must be read, those of `others` are read along: they will be wanted next.
        """
        if len(self.known_names) > MAX_NAMES:
            # A new one, for requests under way still count on the old.
            self.known_names = {}
        known = self.known_names
        missing = [item for item in items if item not in known]
        if missing:
            missing += [item for item in others if item not in known]
            for item, name in zip(missing, await self.store.item_ids(missing), strict=True):
                if name is not None:
                    known[item] = name
        return [known.get(item) for item in items]

    async def close(self) -> None:
        """Let reads that are under way end."""
        tasks: list[asyncio.Task[Any]] = [
            task for task in (self._overview_task, self._page_task) if task and not task.done()
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _age(now_s: float, read_at: float) -> float:
    return now_s - read_at if now_s >= read_at else float("inf")
