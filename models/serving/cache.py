"""What is known of items, read through a short in-process cache: neighbours, counts, tops, names.

A user's history is always read fresh; what many users share may be `cache_s` old. All reads of
requests that are under way at the same moment travel in one command.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numba import b1, f8, i8
from numba.types import Tuple
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes
from models.machine_code import compiled
from models.metadata_records import Properties
from models.ranking.context_lift import (
    NO_CONTEXT_VALUES,
    ContextValue,
    ContextValues,
    Counts,
    unpack_counts,
)
from models.ranking.features import STATS
from models.ranking.objectives import STORED
from models.ranking.ranker import BASELINE, OBJECTIVES, Objective, Ranker
from models.retrieval.candidates import top_list_candidates
from models.serving.item_ids import ItemIds
from models.state import layout
from models.state.context_columns import context_values
from models.state.metadata import PropertiesCache
from models.state.shared_reads import read_group_state
from models.state.store import Store

LOG = logging.getLogger(__name__)

MAX_LISTS = 20_000
"""Neighbour lists kept in the process, about 4 KB each when full."""

MAX_NAMES = 1_000_000
"""Names of items kept in the process, and as many of owners of histories."""

FALLBACK = 50
"""Items of the top lists whose names are read ahead."""

MAX_COUNTS = 1000
"""Circumstances kept in the process, about 16 KB each when full."""

MAX_PAGES = 256
"""Pages of counts that are read behind the answers at once."""

EMPTY_PAGE = bytes(layout.STATS_PER_PAGE * layout.STAT.itemsize)

STALE_PAGE_S = 5.0
"""Counts older than this are read again before they are used; younger ones while they are used."""


@dataclass
class SharedState:
    """What all requests share.

    Attributes
    ----------
    clock_s, accepted_at
        Time of the newest event, and when it was accepted, Unix seconds.
    tops, heads
        Item indexes of each top list, best first; and candidates from them.
    best
        ``(5,)`` as `features_of` takes it.
    types, purchases, strong
        Name of each type code; ``(256,)`` whether its events are purchases, and whether they weigh
        more than a click.
    rankers, serving
        Of each objective the learned ranker, and which order is to be served; see
        `models.ranking.prequential`.
    tried
        How often each new item was shown to be tried.
    read_at
        When all this was read, Unix seconds.
    """

    clock_s: float = 0.0
    accepted_at: float = 0.0
    tops: dict[str, Indexes] = field(default_factory=dict)
    heads: Indexes = field(default_factory=lambda: NO_ITEMS)
    best: Floats = field(default_factory=lambda: np.zeros(5))
    types: dict[int, str] = field(default_factory=dict)
    purchases: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(256, np.bool_))
    strong: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(256, np.bool_))
    rankers: dict[Objective, Ranker] = field(
        default_factory=lambda: {name: Ranker() for name in OBJECTIVES}
    )
    serving: dict[Objective, str] = field(
        default_factory=lambda: dict.fromkeys(OBJECTIVES, "blend")
    )
    tried: dict[int, int] = field(default_factory=dict)
    read_at: float = -1e18

    def order(self, objective: Objective) -> Ranker:
        """The ranker whose order is to be served."""
        return BASELINE if self.serving[objective] == "blend" else self.rankers[objective]


class StateCache:
    """Cached reads of one group's items; `now_s` is the present in Unix seconds.

    It holds the `share`-th part of what a process keeps of a group that it serves alone.
    Requests overlap, so one may find what another that began after it has read. That is fresh; but
    what seems to be read further in the future than it may be old is of a clock that was set back.
    """

    def __init__(self, store: Store, *, share: int = 1) -> None:
        self.store = store
        self._max_lists, self._max_owners = MAX_LISTS // share, MAX_NAMES // share
        self.overview = SharedState()
        self._lists: OrderedDict[int, tuple[float, bytes]] = OrderedDict()
        self.names = ItemIds(store, most=MAX_NAMES // share)
        self._owners: dict[int, str] = {}
        self._columns: tuple[float, frozenset[str]] = (-1e18, frozenset())
        self._counts: dict[str, tuple[float, Counts]] = {}
        self._max_counts = MAX_COUNTS // share
        self._properties = PropertiesCache(store, share=share)
        self._stats = np.zeros(layout.STATS_PER_PAGE, layout.STAT)
        self._page_read_at = np.full(1, -1e18)
        self._pages_wanted = np.zeros(1, np.bool_)
        self._overview_task: asyncio.Task[None] | None = None
        self._page_task: asyncio.Task[None] | None = None
        self._ranker_states: dict[Objective, bytes | None] = dict.fromkeys(OBJECTIVES)

    async def refresh(self, now_s: float) -> SharedState:
        """The overview, at most about two `cache_s` old while requests keep coming."""
        cache_s = self.store.settings.cache_s
        age_s = abs(now_s - self.overview.read_at)
        if age_s > cache_s and (self._overview_task is None or self._overview_task.done()):
            self._overview_task = _behind(self._read_overview(now_s))
        if age_s > 2 * cache_s and self._overview_task is not None:
            await asyncio.shield(self._overview_task)
        return self.overview

    async def knowing(self, types: NDArray[np.uint8], now_s: float) -> SharedState:
        """The overview, with the names of all these type codes: one may have come up after it."""
        overview = await self.refresh(now_s)
        if not overview.types.keys() >= set(types.tolist()) - {0}:
            names = await self.store.event_types()
            purchases, strong = self._kinds(names)
            overview = replace(self.overview, types=names, purchases=purchases, strong=strong)
            self.overview = overview
        return overview

    def _kinds(self, names: Mapping[int, str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """`SharedState.purchases` and `SharedState.strong` of the type codes with these names."""
        settings = self.store.settings
        return _codes(names, settings.purchase_types), _codes(names, settings.strong_types)

    async def _read_overview(self, now_s: float) -> None:
        stored = await read_group_state(self.store, STORED)
        learned, greatest = stored.ranker, stored.greatest
        states = dict(zip(OBJECTIVES, learned[::2], strict=True))
        rankers = {
            name: self.overview.rankers[name]
            if state == self._ranker_states[name]
            else Ranker.from_state(state)
            for name, state in states.items()
        }
        self._ranker_states = states
        purchases, strong = self._kinds(stored.types)
        self.overview = SharedState(
            clock_s=stored.clock_s,
            accepted_at=stored.accepted_at,
            tops=stored.tops,
            heads=top_list_candidates(stored.tops),
            best=np.array(
                [
                    *(greatest[name] for name in layout.POPULARITY_HALF_LIVES_S),
                    np.log2(max(greatest["all"], 1.0)),
                ]
            ),
            types=stored.types,
            purchases=purchases,
            strong=strong,
            rankers=rankers,
            serving={
                name: (serving or b"blend").decode()
                for name, serving in zip(OBJECTIVES, learned[1::2], strict=True)
            },
            tried=stored.tried,
            read_at=now_s,
        )
        # Names of what is popular, so that something can be said while the store is away.
        await self.names.of(self.overview.tops["day"][:FALLBACK].tolist())
        await self.names.of(self.overview.tops["all"][:FALLBACK].tolist())

    async def neighbours(self, items: Sequence[int], now_s: float) -> list[bytes]:
        """The neighbours of each item as they are stored, at most `cache_s` old."""
        lists, cache_s = self._lists, self.store.settings.cache_s
        oldest, newest = now_s - cache_s, now_s + cache_s
        # Kept apart, for what is held now may make room for others' during the read.
        found, missing = [], []
        for place, item in enumerate(items):
            held = lists.get(item)
            if held is not None and oldest <= held[0] <= newest:
                found.append(held[1])
            else:
                found.append(b"")
                missing.append(place)
        if missing:
            key = self.store.key("pairs:")
            raws = await self.store.values([f"{key}{items[place]}" for place in missing])
            for place, raw in zip(missing, raws, strict=True):
                found[place] = raw or b""
                lists[items[place]] = (now_s, found[place])
            while len(lists) > self._max_lists:
                lists.popitem(last=False)
        return found

    async def circumstances(self, said: Mapping[str, str] | None, now_s: float) -> ContextValues:
        """What is known of the circumstances that a request names, at most `cache_s` old.

        Columns and values that the group has not met are passed over; where nothing is said,
        nothing is read.
        """
        found = context_values(said)
        if not found:
            return NO_CONTEXT_VALUES
        await self.refresh(now_s)
        if abs(now_s - self._columns[0]) > self.store.settings.cache_s:
            self._columns = now_s, await self.store.context_columns()
        pairs = [
            (column, f"{column}={value}")
            for column in sorted(self._columns[1] & found.keys())
            for value in found[column]
        ]
        counts = await self._counts_of([name for pair in pairs for name in pair], now_s)
        both = [ContextValue(counts[value], counts[column]) for column, value in pairs]
        # What was read of the column may be older than the first event that has it.
        met = [one for one in both if len(one.here.items) and len(one.anywhere.items)]
        return ContextValues(tuple(met))

    async def _counts_of(self, names: Sequence[str], now_s: float) -> dict[str, Counts]:
        held = self._counts
        found = {name: held[name][1] for name in names if self._is_held(name, now_s)}
        missing = [name for name in dict.fromkeys(names) if name not in found]
        if missing:
            keys = [self.store.key(f"circumstance:{name}") for name in missing]
            raws = await self.store.values(keys)
            if len(held) + len(missing) > self._max_counts:
                held.clear()
            for name, raw in zip(missing, raws, strict=True):
                found[name] = unpack_counts(raw, self.overview.clock_s)
                held[name] = now_s, found[name]
        return found

    def _is_held(self, name: str, now_s: float) -> bool:
        held = self._counts.get(name)
        return held is not None and abs(now_s - held[0]) <= self.store.settings.cache_s

    async def stats(self, items: Indexes, now_s: float) -> NDArray[np.void]:
        """``(n,)`` counts and popularities of the items."""
        if not len(items):
            return np.zeros(0, layout.STAT)
        cache_s = self.store.settings.cache_s
        stats, highest, oldest, newest = self._taken(items, now_s - cache_s)
        if highest >= len(self._page_read_at):
            self._grow(highest + 1)
            oldest = -1e18
        if now_s - oldest > STALE_PAGE_S or newest - now_s > STALE_PAGE_S:
            pages = np.unique(items // layout.STATS_PER_PAGE)
            stale = np.abs(now_s - self._page_read_at[pages]) > STALE_PAGE_S
            await self._read_pages(pages[stale], now_s)
            stats, *_ = self._taken(items, now_s - cache_s)
        elif now_s - oldest > cache_s and (self._page_task is None or self._page_task.done()):
            self._page_task = _behind(self._read_wanted(now_s))
        return stats

    def _taken(self, items: Indexes, older_s: float) -> tuple[NDArray[np.void], int, float, float]:
        return _stats_of(self._stats, self._page_read_at, items, older_s, self._pages_wanted)

    async def _read_wanted(self, now_s: float) -> None:
        pages = np.flatnonzero(self._pages_wanted)[:MAX_PAGES]
        self._pages_wanted[pages] = False
        await self._read_pages(pages, now_s)

    async def _read_pages(self, pages: Indexes, now_s: float) -> None:
        key = self.store.key("stats:")
        raws = await self.store.values([f"{key}{page}" for page in pages.tolist()])
        # As bytes: numpy copies records field by field.
        stored = np.frombuffer(b"".join([raw or EMPTY_PAGE for raw in raws]), np.uint8)
        held = self._stats.view(np.uint8).reshape(-1, len(EMPTY_PAGE))
        held[pages] = stored.reshape(-1, len(EMPTY_PAGE))
        self._page_read_at[pages] = now_s

    def _grow(self, pages: int) -> None:
        if pages > len(self._page_read_at):
            pages = max(pages, 2 * len(self._page_read_at))
            added = pages - len(self._page_read_at)
            self._page_read_at = np.append(self._page_read_at, np.full(added, -1e18))
            self._pages_wanted = np.append(self._pages_wanted, np.zeros(added, np.bool_))
            self._stats = np.append(
                self._stats, np.zeros(added * layout.STATS_PER_PAGE, layout.STAT)
            )

    async def owner_keys(self, numbers: Sequence[int]) -> list[str]:
        """Whose histories these are; those that are gone become one that nobody has.

        A number means the same owner forever, and is forgotten only with the history.
        """
        if len(self._owners) > self._max_owners:
            self._owners = {}
        known = self._owners
        missing = [number for number in numbers if number not in known]
        for number, name in zip(missing, await self.store.owner_keys(missing), strict=True):
            if name is not None:
                known[number] = name
        return [known.get(number, "") for number in numbers]

    async def properties(self, items: Sequence[int], now_s: float) -> list[Properties | None]:
        """What is known of each item, at most `cache_s` old; None where nothing is.

        One round trip where something must be read, two where it has changed.
        """
        return await self._properties.get(items, now_s)

    async def close(self) -> None:
        """Let reads that are under way end."""
        tasks: list[asyncio.Task[Any]] = [
            task for task in (self._overview_task, self._page_task) if task and not task.done()
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _behind(read: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A read that nobody may wait for: its failure is noted, for the next one is tried soon."""
    task = asyncio.create_task(read)
    task.add_done_callback(_note_failure)
    return task


def _note_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.warning("cached reads are not renewed: %s", error)


def _codes(names: Mapping[int, str], wanted: Collection[str]) -> NDArray[np.bool_]:
    """``(256,)``, whether a code is that of one of the event types."""
    table = np.zeros(256, np.bool_)
    table[[code for code, name in names.items() if name.lower() in wanted]] = True
    return table


@compiled(Tuple((STATS, i8, f8, f8))(STATS, f8[::1], i8[::1], f8, b1[::1]))
def _stats_of(
    held: NDArray[np.void],
    page_read_at: Floats,
    items: Indexes,
    older_s: float,
    wanted: NDArray[np.bool_],
) -> tuple[NDArray[np.void], int, float, float]:
    """What is held of the items, their highest page, and when the first and the last was read.

    Pages that were read before `older_s` are marked as wanted.
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
            if read_at < older_s:
                wanted[page] = True
    return stats, highest, oldest, newest
