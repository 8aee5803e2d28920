"""A process's cache of the properties of a group's items."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from models.metadata_records import Properties
from models.state.catalogue.metadata import stored_properties
from models.state.clients.batched_requests import Command
from models.state.shards.at_once import at_once
from models.state.sized_cache import SizedCache
from models.state.store import Store

MAX_CACHED = 50_000
MAX_CACHED_BYTES = 32 * 1024 * 1024
"""Records that a process caches of one group, and the total length of their texts."""


class PropertiesCache:
    """Cache of items' properties, at most `cache_s` old; bounded in number and size.

    Entries stay valid until a record of the group is applied.
    """

    def __init__(self, store: Store, *, share: int = 1) -> None:
        self._store = store
        self._held = SizedCache[int, tuple[int, Properties | None]](
            most=MAX_CACHED // share, most_size=MAX_CACHED_BYTES // share, size_of=itemgetter(0)
        )
        self._version: tuple[int, ...] | None = None
        self._checked_at = -1e18

    async def version(self, now_s: float) -> tuple[int, ...] | None:
        """Version of the group's records, at most `cache_s` old; equal while none has changed."""
        if abs(now_s - self._checked_at) > self._store.settings.cache_s:
            await self.get((), now_s)
        return self._version

    async def get(self, indexes: Sequence[int], now_s: float) -> list[Properties | None]:
        """Properties of each item index; one round trip, or two after a change."""
        found = {index: held[1] for index in indexes if (held := self._held.get(index)) is not None}
        missing = [index for index in dict.fromkeys(indexes) if index not in found]
        is_fresh = abs(now_s - self._checked_at) <= self._store.settings.cache_s
        while missing or not is_fresh:
            version, raws = await self._read(missing)
            is_fresh, self._checked_at = True, now_s
            if version != self._version:
                self._held.clear()
                self._version = version
                if found:
                    missing, found = list(dict.fromkeys(indexes)), {}
                    continue
            for index, raw in zip(missing, raws, strict=True):
                found[index] = self._keep(index, raw)
            break
        return [found[index] for index in indexes]

    async def _read(self, indexes: Sequence[int]) -> tuple[tuple[int, ...], Sequence[bytes | None]]:
        """The version of the group's records, and records that are at least as new."""
        stores = self._store.item_stores
        own: list[list[int]] = [[] for _ in stores]
        for index in indexes:
            own[self._store.item_place(index)].append(index)
        answers = await at_once(map(_updates_and_records, stores, own))
        found = {
            index: raw
            for some, (_, raws) in zip(own, answers, strict=True)
            for index, raw in zip(some, raws, strict=True)
        }
        return tuple(updates for updates, _ in answers), [found[index] for index in indexes]

    def _keep(self, index: int, raw: bytes | None) -> Properties | None:
        properties = stored_properties(raw)
        self._held.keep(index, (len(raw or b""), properties))
        return properties


async def _updates_and_records(
    store: Store, indexes: Sequence[int]
) -> tuple[int, Sequence[bytes | None]]:
    """Changes so far of the records in one slot, and some of these; one round trip."""
    counted: Command = ("HGET", store.key("counts"), "item_updates")
    if not indexes:
        (updates,) = await store.redis.reads.run(counted)
        return int(updates or 0), []
    asked: Command = ("HMGET", store.key("properties"), *map(str, indexes))
    updates, raws = await store.redis.reads.run(counted, asked)
    return int(updates or 0), raws
