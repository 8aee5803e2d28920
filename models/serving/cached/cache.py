"""The state cache: state that requests of a group share, read through a short in-process cache.

A user's history is always read fresh; shared state may be `cache_s` old, but for neighbour lists
where a process hears of their changes. Reads of all requests that
run at the same time go into one command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Indexes
from models.background_tasks import end_tasks
from models.metadata_records import Properties
from models.ranking.challengers import ServingChallengers
from models.ranking.champions import (
    BUILT_IN_CHOICES,
    OBJECTIVES,
    Objective,
    RankerChoice,
    serving_challenger,
)
from models.ranking.context_lift import NO_CONTEXT_VALUES, ContextValues
from models.ranking.ranker import ListwiseRanker
from models.ranking.selection import CapGroup
from models.retrieval.candidates import top_list_candidates
from models.retrieval.item_factors import factors_of
from models.serving.cached.cached_context import CachedContext
from models.serving.cached.cached_items import ItemIds, ItemStatistics, in_background
from models.serving.cached.cached_texts import TextNeighbours
from models.serving.cached.derived_values import DerivedValues
from models.serving.cached.hidden_marks import HiddenMarks
from models.serving.cached.property_index import PropertyIndex
from models.serving.cached.shared_state import (
    NO_PRODUCTS,
    SharedState,
    first_of_each,
    shown_tops,
    type_codes,
)
from models.serving.cached.silence import (
    find_silence,
    greatest_popularity,
    heads_of,
    may_have_faded,
)
from models.serving.cached.wanted_challengers import WantedChallengers
from models.state import layout
from models.state.catalogue.properties_cache import PropertiesCache
from models.state.channels import ListInvalidation, Unsubscribe
from models.state.context_columns import NO_CONTEXT, context_values
from models.state.shared_reads import read_group_state, read_products
from models.state.store import Store
from models.state.stored_factors import read_factors
from models.state.timed_cache import TimedCache

RANKER_FIELDS = tuple(
    f"{name}:{part}" for part in ("state", "serving", "challengers") for name in OBJECTIVES
)
"""Fields of the stored learners that requests need."""

MAX_LISTS = 20_000
"""Neighbour lists in a process, about 1.4 KB each when full."""

MAX_ITEM_IDS = 1_000_000
"""Item ids in a process, and as many owner keys of histories."""

MAX_FALLBACK_ITEMS = 50
"""Items of the top lists whose ids are read in advance, for answers while the store is away."""

MAX_FILTERS, MAX_CAPPED = 64, 4
"""Filters, with their values, and sets of capped properties whose values by item are kept."""


class StateCache:
    """Cached reads of one group's state; `now_s` is the present in Unix seconds.

    `share` divides the sizes: 1 for a group that a process serves alone. `list_sizes` are the items
    to read of each top list, and others stay empty; None for all. `hears_changes`: subscribe to the
    group's changes, until `close`, so that neighbour lists are kept until they change.
    `is_told_changes`: this process alone writes, and tells of each event by `item_changed`; it
    answers nothing while the store is away.
    `challengers` gives those that serve; None: the built-in rankers serve whatever leads.
    """

    def __init__(
        self,
        store: Store,
        *,
        share: int = 1,
        list_sizes: Mapping[str, int] | None = None,
        hears_changes: bool = False,
        is_told_changes: bool = False,
        challengers: ServingChallengers | None = None,
    ) -> None:
        self.store = store
        self._challengers = WantedChallengers(challengers)
        self._list_sizes = list_sizes
        self._is_told_changes = is_told_changes
        cache_s = store.settings.cache_s
        self.shared = SharedState()
        self.item_ids = ItemIds(store, size=MAX_ITEM_IDS // share)
        self._indexes = TimedCache[str, int](size=MAX_ITEM_IDS // share)
        self._lists = TimedCache[int, bytes](size=MAX_LISTS // share, max_age_s=cache_s)
        self._owner_keys = TimedCache[int, str](size=MAX_ITEM_IDS // share)
        self.context = CachedContext(store, share=share)
        self._properties = PropertiesCache(store, share=share)
        self.filter_decisions = DerivedValues[bool](size=MAX_FILTERS)
        self.categories = DerivedValues[Sequence[str]](size=1)
        self.value_groups = DerivedValues[tuple[CapGroup, ...]](size=MAX_CAPPED)
        self.property_index = PropertyIndex(store)
        # What searches found, by what they sought: a length that was too short, and all there is.
        self.too_short = DerivedValues[int](size=1)
        self.most_items = DerivedValues[int](size=1)
        self._statistics = ItemStatistics(store, max_age_s=cache_s, is_told_changes=is_told_changes)
        self.similar_texts = TextNeighbours(store, self._statistics, size=MAX_LISTS // share)
        self._shared_task: asyncio.Task[None] | None = None
        self._variants_version = self._factors_version = 0
        self._hidden_marks = HiddenMarks(store)
        # Changes of the hidden items that were heard of, and those that `shared` knows.
        self._n_hidden_changes = self._n_known_changes = 0
        self._unsubscribe: Unsubscribe | None = None
        if hears_changes:
            listener = ListInvalidation(self._lists, self._hidden_changed)
            self._unsubscribe = store.listen(listener)
        self._ranker_states: dict[Objective, bytes | None] = dict.fromkeys(OBJECTIVES)

    async def refresh(self, now_s: float) -> SharedState:
        """The shared state, at most about twice `cache_s` old while requests keep coming.

        What was hidden is, where changes are heard, at once; and so is what expires.
        """
        if not self.begin_refresh(now_s) and self._shared_task is not None:
            await asyncio.shield(self._shared_task)
        if self._n_hidden_changes != self._n_known_changes:
            await self._reread_shared(now_s)
        return self.as_of(now_s)

    def as_of(self, now_s: float) -> SharedState:
        """The shared state as it was read, without what has expired since; reads nothing.

        A comparison, or where an item expires some ms for a million of items with an expiry.
        """
        if now_s >= self._hidden_marks.expires_at:
            hidden = self._hidden_marks.marks(now_s)
            tops = shown_tops(self.shared.top_lists, hidden)
            self.shared = replace(
                self.shared,
                hidden=hidden,
                top_lists=tops,
                top_candidates=top_list_candidates(tops),
            )
        return self.shared

    async def shown_once(
        self, items: Sequence[str], now_s: float, *, beside: Sequence[str] = ()
    ) -> list[str]:
        """The items but variants of a product of which an earlier item is one, or one beside them.

        By the shared state as it was last read; the same items while none is a variant. Some µs.
        """
        shared = self.as_of(now_s)
        if not shared.has_variants or not items:
            return list(items)
        names = [*beside, *items]
        indexes = np.array(await self.item_indexes(names), np.int64)
        kept = first_of_each(shared.products_of(indexes)).tolist()
        return [names[place] for place in kept if place >= len(beside)]

    def begin_refresh(self, now_s: float) -> bool:
        """Read the shared state in the background if it is due; True if `refresh` need not wait."""
        cache_s = self.store.settings.cache_s
        age_s = abs(now_s - self.shared.read_at)
        if age_s > cache_s and (self._shared_task is None or self._shared_task.done()):
            self._shared_task = in_background(self._read_shared(now_s))
        return age_s <= 2 * cache_s

    async def _reread_shared(self, now_s: float) -> None:
        """Read the shared state as it is after the last change of hidden items that was heard."""
        if self._shared_task is not None and not self._shared_task.done():
            # It may have begun before the change.
            await asyncio.shield(self._shared_task)
        if self._n_hidden_changes != self._n_known_changes:
            if self._shared_task is None or self._shared_task.done():
                self._shared_task = in_background(self._read_shared(now_s))
            await asyncio.shield(self._shared_task)

    def _hidden_changed(self) -> None:
        self._n_hidden_changes += 1

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
        return type_codes(names, settings.purchase_types), type_codes(names, settings.strong_types)

    async def _read_shared(self, now_s: float) -> None:
        n_changes = self._n_hidden_changes
        stored = await read_group_state(self.store, RANKER_FIELDS, self._list_sizes)
        self.similar_texts.changed(stored.terms_version)
        await self._hidden_marks.read(stored.hidden_version, stored.expiry_version)
        products = self.shared.products
        if stored.variants_version != self._variants_version:
            products = await read_products(self.store) if stored.n_variants else NO_PRODUCTS
        factors = self.shared.factors
        if stored.factors_version != self._factors_version and self.store.settings.factor_events:
            factors = factors_of(await read_factors(self.store))
        hidden = self._hidden_marks.marks(now_s)
        tops = shown_tops(stored.tops, hidden)
        n = len(OBJECTIVES)
        states, champions, challengers = (stored.ranker[at : at + n] for at in (0, n, 2 * n))
        leading = dict(zip(OBJECTIVES, map(serving_challenger, challengers), strict=True))
        ready = self._challengers.ready(leading, now_s)
        log_popularity = [stored.greatest[name] for name in layout.POPULARITY_HALF_LIVES_S]
        log_popularity.append(np.log2(max(stored.greatest["all"], 1.0)))
        silence = None
        if may_have_faded(stored.greatest, stored.clock_s):
            stats = await self._statistics.of(heads_of(stored.tops), now_s)
            silence = find_silence(stats)
            if silence is not None:
                log_popularity[:-1] = greatest_popularity(silence.collapsed(stats)).tolist()
        purchase_types, strong_types = self._type_flags(stored.types)
        self.shared = SharedState(
            clock_s=stored.clock_s,
            accepted_at=stored.accepted_at,
            top_lists=tops,
            top_candidates=top_list_candidates(tops),
            max_log_popularity=np.array(log_popularity),
            event_types=stored.types,
            purchase_types=purchase_types,
            strong_types=strong_types,
            rankers=self._rankers(dict(zip(OBJECTIVES, states, strict=True))),
            champions={
                name: (champion or b"blend").decode()
                for name, champion in zip(OBJECTIVES, champions, strict=True)
            },
            challengers={
                name: ready[name][one]
                for name, one in leading.items()
                if one in ready.get(name, {})
            },
            ready_challengers=ready,
            trial_counts=stored.tried,
            hidden=hidden,
            products=products,
            factors=factors,
            silence=silence,
            read_at=now_s,
        )
        self._n_known_changes = n_changes
        self._variants_version = stored.variants_version
        self._factors_version = stored.factors_version
        for name in () if self._is_told_changes else ("day", "all"):
            await self.item_ids.of(tops.get(name, NO_ITEMS)[:MAX_FALLBACK_ITEMS].tolist())

    def _rankers(self, states: dict[Objective, bytes | None]) -> dict[Objective, ListwiseRanker]:
        """Learned rankers of the stored states; the same objects where a state is unchanged."""
        before, self._ranker_states = self._ranker_states, states
        return {
            name: self.shared.rankers[name]
            if state == before[name]
            else ListwiseRanker.from_state(state)
            for name, state in states.items()
        }

    def ranked_by(
        self, shared: SharedState, choice: RankerChoice | None, objective: Objective, now_s: float
    ) -> SharedState:
        """See `SharedState.ranked_by`; a challenger that is not ready begins to learn."""
        if choice is not None and choice not in BUILT_IN_CHOICES:
            self._challengers.choose(objective, choice, now_s)
        return shared.ranked_by(choice)

    async def neighbours(self, items: Sequence[int], now_s: float) -> list[bytes]:
        """Stored neighbour list of each item: as it is now, or at most `cache_s` old.

        The former while changes are heard: a list is not older than the last read of a history that
        ended before.
        """
        lists = await self._lists.read(items, now_s, self._read_lists)
        return [raw or b"" for raw in lists]

    async def _read_lists(self, items: list[int]) -> list[bytes | None]:
        raws = await self.store.shared_values([self.store.key(f"pairs:{one}") for one in items])
        held = map(self._lists.held, items)  # of a shard that is away, as it was
        return [was if raw == b"" else raw or b"" for was, raw in zip(held, raws, strict=True)]

    async def context_values(
        self, context: Mapping[str, str] | None, now_s: float
    ) -> ContextValues:
        """Counts of the context values that a request names; nothing is read without context."""
        named = context_values(context) if context else NO_CONTEXT
        if not named:
            return NO_CONTEXT_VALUES
        await self.refresh(now_s)
        return await self.context.values(named, now_s, clock_s=self.shared.clock_s)

    async def stats(self, items: Indexes, now_s: float) -> NDArray[np.void]:
        """Counts and popularities of items, ``(n,)`` of `layout.STAT`."""
        found = await self._statistics.of(items, now_s)
        return found if self.shared.silence is None else self.shared.silence.collapsed(found)

    def item_changed(self, item_id: str, *, was_asked: bool) -> None:
        """Note that an event on an item was sent to the store; see `ItemStatistics.item_changed`.

        `was_asked`: the item's index was asked for just before, so that an unknown item is new.
        """
        index = self._indexes.held(item_id)
        self._statistics.item_changed(index or 0 if index or was_asked else None)

    def read_ahead(self) -> None:
        """Read what has changed along with what is read next; see `ItemStatistics.read_ahead`."""
        self._statistics.read_ahead()

    async def item_index(self, item_id: str) -> int:
        """Index of an item, which never changes; 0 for an unknown one."""
        (index,) = await self.item_indexes([item_id])
        return index

    def holds_item(self, item_id: str) -> bool:
        """True if `item_index` answers without reading."""
        return item_id in self._indexes

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
        await end_tasks(*self._background_tasks())

    def _background_tasks(self) -> list[asyncio.Task[None]]:
        tasks = (self._shared_task, self._statistics.task, self.property_index.task)
        return [task for task in tasks if task is not None and not task.done()]
