"""Contextual columns of a group and counts of their values, kept for many requests."""

from __future__ import annotations

from models.ranking.context_lift import (
    ContextValue,
    ContextValues,
    DecayedCounts,
    unpack_counts,
)
from models.state.context_columns import ContextColumns
from models.state.store import Store
from models.state.timed_cache import TimedCache

MAX_CONTEXT_COUNTS = 1000
"""Counts of context values and columns in a process, about 16 KB each when full."""


class CachedContext:
    """Contextual columns and counts of one group, at most `cache_s` old; `share` divides sizes."""

    def __init__(self, store: Store, *, share: int = 1) -> None:
        self._store = store
        cache_s = store.settings.cache_s
        self._columns = TimedCache[str, frozenset[str]](size=1, max_age_s=cache_s)
        self._counts = TimedCache[str, DecayedCounts](
            size=MAX_CONTEXT_COUNTS // share, max_age_s=cache_s
        )

    async def columns(self, now_s: float) -> frozenset[str]:
        """Folded names of the contextual columns."""

        async def read(keys: list[str]) -> list[frozenset[str]]:
            return [await self._store.context_columns() for _ in keys]

        (columns,) = await self._columns.read(["columns"], now_s, read)
        return columns or frozenset()

    async def values(self, named: ContextColumns, now_s: float, *, clock_s: float) -> ContextValues:
        """Counts of values by column; columns and values without events are left out.

        `clock_s` is the time of the group's newest event, to which counts decay.
        """
        columns = await self.columns(now_s)
        pairs = [
            (column, f"{column}={value}")
            for column in sorted(columns & named.keys())
            for value in named[column]
        ]

        async def read(names: list[str]) -> list[DecayedCounts]:
            keys = [self._store.key(f"circumstance:{name}") for name in names]
            raws = await self._store.shared_values(keys)
            return [unpack_counts(raw, clock_s) for raw in raws]

        names = [name for pair in pairs for name in pair]
        counts = dict(zip(names, await self._counts.read(names, now_s, read), strict=True))
        values = []
        for column, value in pairs:
            with_value, with_column = counts[value], counts[column]
            # A cached column may be older than the first event with the value.
            if with_value and with_column and len(with_value.items) and len(with_column.items):
                values.append(ContextValue(with_value, with_column))
        return ContextValues(tuple(values))
