"""The state cache: state that requests of a group share, read through a short in-process cache.

A user's history is always read fresh; shared state may be `cache_s` old, but for neighbour lists
where a process hears of their changes. Reads of all requests that
run at the same time go into one command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes
from models.metadata_records import Properties
from models.ranking.champions import OBJECTIVES, Objective
from models.ranking.context_lift import (
    NO_CONTEXT_VALUES,
    ContextValue,
    ContextValues,
    DecayedCounts,
    unpack_counts,
)
from models.ranking.ranker import RANKERS, ListwiseRanker, Ranker
from models.retrieval.candidates import top_list_candidates
from models.serving.cached_items import ItemIds, ItemStatistics, in_background
from models.serving.filter_decisions import FilterDecisions
from models.state import layout
from models.state.channels import ListInvalidation, Unsubscribe
from models.state.context_columns import NO_CONTEXT, context_values
from models.state.metadata import PropertiesCache
from models.state.shared_reads import read_group_state
from models.state.store import Store
from models.state.timed_cache import NEVER, TimedCache

RANKER_FIELDS = tuple(f"{name}:{part}" for part in ("state", "serving") for name in OBJECTIVES)
"""Fields of the stored learners that requests need."""

MAX_LISTS = 20_000
"""Neighbour lists in a process, about 1.4 KB each when full."""

MAX_ITEM_IDS = 1_000_000
"""Item ids in a process, and as many owner keys of histories."""

MAX_CONTEXT_COUNTS = 1000
"""Counts of context values and columns in a process, about 16 KB each when full."""

MAX_FALLBACK_ITEMS = 50
"""Items of the top lists whose ids are read in advance, for answers while the store is away."""


def _by_type_code() -> NDArray[np.bool_]:
    return np.zeros(256, np.bool_)


@dataclass(frozen=True)
class SharedState:
    """State that all requests of a group share.

    Attributes
    ----------
    clock_s, accepted_at
        Time of the newest event, and when it was accepted, Unix seconds.
    top_lists, top_candidates
        Item indexes of each top list, best first; and candidates from them.
    max_log_popularity
        ``(5,)`` as in `features_of`.
    event_types, purchase_types, strong_types
        Name of each type code; ``(256,)`` whether events of a type code are purchases, and whether
        they weigh more than a click.
    rankers, champions
        By objective, the learned ranker and the name of the ranker to serve.
    trial_counts
        By item, how often it was shown in an exploration slot.
    read_at
        When all this was read, Unix seconds.
    """

    clock_s: float = 0.0
    accepted_at: float = 0.0
    top_lists: dict[str, Indexes] = field(default_factory=dict)
    top_candidates: Indexes = field(default_factory=lambda: NO_ITEMS)
    max_log_popularity: Floats = field(default_factory=lambda: np.zeros(5))
    event_types: dict[int, str] = field(default_factory=dict)
    purchase_types: NDArray[np.bool_] = field(default_factory=_by_type_code)
    strong_types: NDArray[np.bool_] = field(default_factory=_by_type_code)
    rankers: dict[Objective, ListwiseRanker] = field(
        default_factory=lambda: {name: ListwiseRanker() for name in OBJECTIVES}
    )
    champions: dict[Objective, str] = field(
        default_factory=lambda: dict.fromkeys(OBJECTIVES, "blend")
    )
    trial_counts: dict[int, int] = field(default_factory=dict)
    read_at: float = NEVER

    def champion(self, objective: Objective) -> Ranker:
        """The ranker to serve; the learned one for a name that is not registered here."""
        learned = self.rankers[objective]
        ranker_of = RANKERS.get(self.champions[objective])
        return learned if ranker_of is None else ranker_of(learned)


class StateCache:
    """Cached reads of one group's state; `now_s` is the present in Unix seconds.

    `share` divides the sizes: 1 for a group that a process serves alone. `list_sizes` are the items
    to read of each top list, and others stay empty; None for all. `hears_changes`: subscribe to the
    group's changes, until `close`, so that neighbour lists are kept until they change.
    """

    def __init__(
        self,
        store: Store,
        *,
        share: int = 1,
        list_sizes: Mapping[str, int] | None = None,
        hears_changes: bool = False,
    ) -> None:
        self.store = store
        self._list_sizes = list_sizes
        cache_s = store.settings.cache_s
        self.shared = SharedState()
        self.item_ids = ItemIds(store, size=MAX_ITEM_IDS // share)
        self._indexes = TimedCache[str, int](size=MAX_ITEM_IDS // share)
        self._lists = TimedCache[int, bytes](size=MAX_LISTS // share, max_age_s=cache_s)
        self._owner_keys = TimedCache[int, str](size=MAX_ITEM_IDS // share)
        self._columns = TimedCache[str, frozenset[str]](size=1, max_age_s=cache_s)
        self._context_counts = TimedCache[str, DecayedCounts](
            size=MAX_CONTEXT_COUNTS // share, max_age_s=cache_s
        )
        self._properties = PropertiesCache(store, share=share)
        self.filter_decisions = FilterDecisions()
        self._statistics = ItemStatistics(store, max_age_s=cache_s)
        self._shared_task: asyncio.Task[None] | None = None
        self._unsubscribe: Unsubscribe | None = None
        if hears_changes:
            listener = ListInvalidation(self._lists)
            self._unsubscribe = store.listen(listener)
        self._ranker_states: dict[Objective, bytes | None] = dict.fromkeys(OBJECTIVES)

    async def refresh(self, now_s: float) -> SharedState:
        """The shared state, at most about twice `cache_s` old while requests keep coming."""
        cache_s = self.store.settings.cache_s
        age_s = abs(now_s - self.shared.read_at)
        if age_s > cache_s and (self._shared_task is None or self._shared_task.done()):
            self._shared_task = in_background(self._read_shared(now_s))
        if age_s > 2 * cache_s and self._shared_task is not None:
            await asyncio.shield(self._shared_task)
        return self.shared

    async def with_types(self, types: NDArray[np.uint8], now_s: float) -> SharedState:
        """The shared state with the names of these type codes, which may be newer than it."""
        shared = await self.refresh(now_s)
        if not shared.event_types.keys() >= set(types.tolist()) - {0}:
            names = await self.store.event_types()
            purchases, strong = self._type_flags(names)
            self.shared = shared = replace(
                self.shared, event_types=names, purchase_types=purchases, strong_types=strong
            )
        return shared

    def _type_flags(self, names: Mapping[int, str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """`SharedState.purchase_types` and `SharedState.strong_types` for these type names."""
        if names == self.shared.event_types:
            return self.shared.purchase_types, self.shared.strong_types
        settings = self.store.settings
        return _codes(names, settings.purchase_types), _codes(names, settings.strong_types)

    async def _read_shared(self, now_s: float) -> None:
        stored = await read_group_state(self.store, RANKER_FIELDS, self._list_sizes)
        states, champions = stored.ranker[: len(OBJECTIVES)], stored.ranker[len(OBJECTIVES) :]
        log_popularity = [stored.greatest[name] for name in layout.POPULARITY_HALF_LIVES_S]
        log_popularity.append(np.log2(max(stored.greatest["all"], 1.0)))
        purchase_types, strong_types = self._type_flags(stored.types)
        self.shared = SharedState(
            clock_s=stored.clock_s,
            accepted_at=stored.accepted_at,
            top_lists=stored.tops,
            top_candidates=top_list_candidates(stored.tops),
            max_log_popularity=np.array(log_popularity),
            event_types=stored.types,
            purchase_types=purchase_types,
            strong_types=strong_types,
            rankers=self._rankers(dict(zip(OBJECTIVES, states, strict=True))),
            champions={
                name: (champion or b"blend").decode()
                for name, champion in zip(OBJECTIVES, champions, strict=True)
            },
            trial_counts=stored.tried,
            read_at=now_s,
        )
        for name in ("day", "all"):
            await self.item_ids.of(stored.tops.get(name, NO_ITEMS)[:MAX_FALLBACK_ITEMS].tolist())

    def _rankers(self, states: dict[Objective, bytes | None]) -> dict[Objective, ListwiseRanker]:
        """Learned rankers of the stored states; the same objects where a state is unchanged."""
        before, self._ranker_states = self._ranker_states, states
        return {
            name: self.shared.rankers[name]
            if state == before[name]
            else ListwiseRanker.from_state(state)
            for name, state in states.items()
        }

    async def neighbours(self, items: Sequence[int], now_s: float) -> list[bytes]:
        """Stored neighbour list of each item: as it is now, or at most `cache_s` old.

        The former while changes are heard: a list is not older than the last read of a history that
        ended before.
        """
        lists = await self._lists.read(items, now_s, self._read_lists)
        return [raw or b"" for raw in lists]

    async def _read_lists(self, items: list[int]) -> list[bytes]:
        key = self.store.key("pairs:")
        raws = await self.store.shared_values([f"{key}{item}" for item in items])
        return [raw or b"" for raw in raws]

    async def context_values(
        self, context: Mapping[str, str] | None, now_s: float
    ) -> ContextValues:
        """Counts of the context values that a request names, at most `cache_s` old.

        Columns and values without events in the group are left out. Nothing is read without
        context.
        """
        named = context_values(context) if context else NO_CONTEXT
        if not named:
            return NO_CONTEXT_VALUES
        await self.refresh(now_s)
        (columns,) = await self._columns.read(["columns"], now_s, self._read_columns)
        pairs = [
            (column, f"{column}={value}")
            for column in sorted((columns or frozenset()) & named.keys())
            for value in named[column]
        ]
        names = [name for pair in pairs for name in pair]
        found = await self._context_counts.read(names, now_s, self._read_counts)
        counts = dict(zip(names, found, strict=True))
        values = []
        for column, value in pairs:
            with_value, with_column = counts[value], counts[column]
            # A cached column may be older than the first event with the value.
            if with_value and with_column and len(with_value.items) and len(with_column.items):
                values.append(ContextValue(with_value, with_column))
        return ContextValues(tuple(values))

    async def _read_columns(self, keys: list[str]) -> list[frozenset[str]]:
        return [await self.store.context_columns() for _ in keys]

    async def _read_counts(self, names: list[str]) -> list[DecayedCounts]:
        keys = [self.store.key(f"circumstance:{name}") for name in names]
        raws = await self.store.shared_values(keys)
        return [unpack_counts(raw, self.shared.clock_s) for raw in raws]

    async def stats(self, items: Indexes, now_s: float) -> NDArray[np.void]:
        """Counts and popularities of items, ``(n,)`` of `layout.STAT`."""
        return await self._statistics.of(items, now_s)

    async def item_index(self, item_id: str) -> int:
        """Index of an item, which never changes; 0 for an unknown one."""
        (index,) = await self.item_indexes([item_id])
        return index

    async def item_indexes(self, item_ids: Sequence[str]) -> list[int]:
        """Index of each item; 0 for an unknown one, which is asked for again the next time."""
        found = await self._indexes.read(item_ids, 0.0, self._read_indexes)
        return [index or 0 for index in found]

    async def _read_indexes(self, item_ids: list[str]) -> list[int | None]:
        return [index or None for index in await self.store.item_indexes(item_ids)]

    async def owner_keys(self, numbers: Sequence[int]) -> list[str]:
        """Owner key of each history number; "" if the history no longer exists.

        A number has the same owner for ever, and is removed only with the history.
        """
        keys = await self._owner_keys.read(numbers, 0.0, self.store.owner_keys)
        return [key or "" for key in keys]

    async def properties(self, items: Sequence[int], now_s: float) -> list[Properties | None]:
        """Metadata of each item, at most `cache_s` old; None for an item without.

        One round trip if something must be read, two if it has changed.
        """
        return await self._properties.get(items, now_s)

    async def properties_version(self, now_s: float) -> object:
        """Version of the items' metadata, at most `cache_s` old: equal while none has changed."""
        return await self._properties.version(now_s)

    async def settle(self) -> None:
        """Wait for background reads under way: what is read next depends on no timing."""
        if tasks := self._background_tasks():
            await asyncio.gather(*tasks, return_exceptions=True)

    def unsubscribe(self) -> None:
        """Hear of no changes any more: lists age."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._lists.hears_changes = False

    async def close(self) -> None:
        """End background reads and the subscription."""
        self.unsubscribe()
        for task in self._background_tasks():
            task.cancel()
        await self.settle()

    def _background_tasks(self) -> list[asyncio.Task[None]]:
        tasks = (self._shared_task, self._statistics.task)
        return [task for task in tasks if task is not None and not task.done()]


def _codes(names: Mapping[int, str], wanted: Collection[str]) -> NDArray[np.bool_]:
    """``(256,)`` whether a type code is that of one of the event types."""
    table = _by_type_code()
    table[[code for code, name in names.items() if name.lower() in wanted]] = True
    return table
