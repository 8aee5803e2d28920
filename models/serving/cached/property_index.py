"""Index of all items by their properties, which finds what a rare filter allows.

It is derived from the stored records and kept in the process. The atomic step of metadata lists
which records it has changed, and only these are read again; the count of all changes tells what was
read, so that no redelivery, replay or restore makes a difference.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.arrays import Indexes
from models.filters.filter import Filter
from models.metadata_records import Properties
from models.serving.cached.cached_items import in_background
from models.serving.cached.property_columns import PropertyColumns
from models.state.catalogue.metadata import properties_of, scan_item_properties
from models.state.catalogue.record_versions import (
    RecordsVersion,
    changed_items,
    records_version,
)
from models.state.sized_cache import SizedCache
from models.state.store import Store

WAIT_S = 1.0
"""Longest wait of a request for a scan of all records, which goes on behind it."""

PAUSE_S = 10.0
"""Shortest time between two scans of all records."""

MAX_KEPT, MAX_KEPT_ITEMS = 64, 4_000_000
"""Filters whose items are kept until a record changes, and the items of all of them: 32 MB."""


class IndexedFilter(NamedTuple):
    """A filter of items as it is asked of the index, with what it reads of the request."""

    filter: Filter
    values: Mapping[str, str]
    user: Properties | None = None
    current_item: Properties | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Text and values."""
        return (self.filter.text, *(part for pair in sorted(self.values.items()) for part in pair))

    @property
    def is_of_request(self) -> bool:
        """True if what it allows is not the same for all requests with these values."""
        return not self.filter.reads.isdisjoint(("user", "current_item"))


class PropertyIndex:
    """The items of a group by their properties; made when it is asked for, and kept up to date."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._columns: PropertyColumns | None = None
        self._version = RecordsVersion((), 0)
        self._scanned_at = self._checked_at = -1e18
        self.task: asyncio.Task[None] | None = None
        self._kept = SizedCache[tuple[object, ...], Indexes](
            most=MAX_KEPT, most_size=MAX_KEPT_ITEMS, size_of=len
        )

    @property
    def made_version(self) -> RecordsVersion | None:
        """The version of items and records that it holds; None while there is no index."""
        return None if self._columns is None else self._version

    async def version(self, now_s: float) -> RecordsVersion | None:
        """The same, at most `cache_s` old."""
        await self._bring_up_to_date(now_s)
        return self.made_version

    async def property_names(self, now_s: float) -> frozenset[str] | None:
        """Names that items have properties by, `normalized`; None where not all are known."""
        await self._bring_up_to_date(now_s)
        return None if self._columns is None else self._columns.names

    async def may_allow(self, asked: Sequence[IndexedFilter], now_s: float) -> Indexes | None:
        """Indexes of the items that all of some filters may allow, at most `cache_s` old.

        See `PropertyColumns.may_allow`. None where there are more than `filter_index_items`, and
        until all records have been read, for which a request waits `WAIT_S` at most.
        """
        await self._bring_up_to_date(now_s)
        if self._columns is None:
            return None
        if len(asked) == 1:
            return self._allowed_by(asked[0])
        key = tuple(one.key for one in asked)
        found = self._kept.get(key)
        if found is None:
            found = functools.reduce(_in_both, map(self._allowed_by, asked))
            if not any(one.is_of_request for one in asked):
                self._kept.keep(key, found)
        return found

    def _allowed_by(self, asked: IndexedFilter) -> Indexes:
        assert self._columns is not None  # noqa: S101  the caller has looked
        items = None if asked.is_of_request else self._kept.get(asked.key)
        if items is None:
            n = self._version.n_items + 1
            items = self._columns.may_allow(
                asked.filter, asked.values, n, user=asked.user, current_item=asked.current_item
            )
            if not asked.is_of_request:
                self._kept.keep(asked.key, items)
        return items

    async def _bring_up_to_date(self, now_s: float) -> None:
        settings = self._store.settings
        if self.task is None or self.task.done():
            if self._columns is not None and abs(now_s - self._checked_at) <= settings.cache_s:
                return
            version = await records_version(self._store)
            if version.n_items > settings.filter_index_items:
                self._columns = None
                return
            self.task = in_background(self._read(version, now_s))
        await asyncio.wait({self.task}, timeout=WAIT_S)

    async def _read(self, version: RecordsVersion, now_s: float) -> None:
        """Read what has changed or, where that is not known, all records."""
        columns = self._columns
        changed = None
        if columns is not None:
            changed = await changed_items(self._store, self._version, version)
        if columns is None or changed is None:
            self._columns = None
            self._kept.clear()
            if abs(now_s - self._scanned_at) < PAUSE_S:
                return
            self._scanned_at, columns = now_s, PropertyColumns()
            async for rows in scan_item_properties(self._store):
                for index, properties in rows:
                    columns.put(index, properties)
            # What changed meanwhile may have been read before.
            newest = await records_version(self._store)
            changed = await changed_items(self._store, version, newest)
            if changed is None:
                return
            version = newest
        records = await properties_of(self._store, changed)
        for index, record in zip(changed, records, strict=True):
            columns.put(index, record)
        if changed or version != self._version:
            self._kept.clear()
        self._columns, self._version, self._checked_at = columns, version, now_s


def _in_both(one: Indexes, other: Indexes) -> Indexes:
    return np.intersect1d(one, other, assume_unique=True)
