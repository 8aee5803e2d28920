"""Metadata of items and users in Redis: the atomic step that applies records, and the reads.

{group}:properties          hash    item index -> time, first time, creation; JSON text
{group}:users               hash    user id -> the same, of users
{group}:categories          hash    item index -> the categories it is listed under
{group}:category:<c>=<v>    zset    items of a category, by creation or last event (minutes)
{group}:top:fresh           zset    items with metadata, by creation
{group}:counts              hash    item_updates, user_updates: records applied
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.errors import LimitExceeded
from models.metadata_records import (
    MetadataRecord,
    Properties,
    RecordKind,
    categories_of,
    created_at,
    properties_text,
    validate_properties,
)
from models.state import layout
from models.state.groups import GROUPS
from models.state.lua_source import make_script
from models.state.messages import Part, PartResult
from models.state.store import Store

MAX_CACHED = 50_000
MAX_CACHED_BYTES = 32 * 1024 * 1024
"""Records that a process caches of one group, and the total length of their texts."""

CHUNK = 1000
"""Records in one read of a scan."""

_results = msgspec.msgpack.Decoder(list[PartResult])


class RecordEntry(NamedTuple):
    """A record as the atomic step takes it; see apply_metadata.lua. One of no kind is skipped."""

    offset: int
    group: str = ""
    kind: str = ""
    id: str = ""
    at: float = 0.0
    created: float = 0.0
    text: str = ""
    categories: Sequence[str] = ()
    timestamp_ms: int = 0
    checksum: int = 0


class RecordPart(NamedTuple):
    """Entries of one partition in offset order, and the watermark they follow.

    Attributes
    ----------
    checksum
        Of the message at the watermark; -1 if it is not known.
    """

    field: str
    expected: int
    entries: Sequence[RecordEntry]
    checksum: int = -1


APPLY_RECORDS = make_script(
    "apply_metadata", shared=("prelude",), records=(RecordEntry,), part=Part
)


def record_entry(
    offset: int, kind: RecordKind, record: MetadataRecord, *, own_group: str
) -> RecordEntry:
    """The record as the atomic step takes it; raises `InvalidRecord` if it is too long."""
    group = "" if record.group == own_group else record.group
    properties = record.properties
    if properties is None:
        return RecordEntry(offset, group, kind, record.id, record.at)
    text = properties_text(kind, properties).decode()
    if kind == "users":
        return RecordEntry(offset, group, kind, record.id, record.at, 0.0, text)
    # No item is created after its record: it would head the list of fresh items for ever.
    created = min(created_at(properties) or 0.0, record.at)
    categories = categories_of(properties)
    return RecordEntry(offset, group, kind, record.id, record.at, created, text, categories)


async def apply_records(store: Store, parts: Sequence[RecordPart]) -> list[PartResult]:
    """Apply records of the store's group and any other, in one atomic step.

    Raises
    ------
    redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
        The step may or may not have happened; repeating it is harmless.
    """
    settings = store.settings
    request = {
        "prefix": store.prefix,
        "limits": {
            "items": settings.max_items,
            "users": settings.max_users,
            "listed": layout.TOPS,
        },
        "parts": parts,
    }
    has_others = any(entry.group for part in parts for entry in part.entries)
    keys = [store.key("watermarks"), *([GROUPS] if has_others else [])]
    payload = msgspec.msgpack.encode(request)
    return _results.decode(await store.step(APPLY_RECORDS, keys, payload))


async def put_items(
    store: Store, records: Iterable[tuple[str, Mapping[str, Any]]], now_s: float
) -> None:
    """Store records of items as of now: each replaces an older one of its item.

    Raises
    ------
    InvalidRecord
        A record breaks a rule; then none is in effect.
    LimitExceeded
        There are `max_items` items; then the records before the first one too many are in effect.
    """
    await _put(store, "items", records, now_s)


async def put_users(
    store: Store, records: Iterable[tuple[str, Mapping[str, Any]]], now_s: float
) -> None:
    """Store records of users as of now, as `put_items` does; up to `max_users`."""
    await _put(store, "users", records, now_s)


async def _put(
    store: Store, kind: RecordKind, records: Iterable[tuple[str, Mapping[str, Any]]], now_s: float
) -> None:
    group = store.settings.group
    entries = [
        record_entry(
            n,
            kind,
            MetadataRecord(group, name, validate_properties(kind, name, properties), now_s),
            own_group=group,
        )
        for n, (name, properties) in enumerate(records)
    ]
    (result,) = await apply_records(store, [RecordPart("", -1, entries)])
    if result.status == "full":
        raise LimitExceeded(f"the group holds as many {kind} as it may")


async def item_properties(store: Store, item_ids: Sequence[str]) -> list[Properties | None]:
    """Properties of each item; None without a record."""
    indexes = await store.item_indexes(item_ids)
    if not indexes:
        return []
    raws = await store.redis.hmget(store.key("properties"), [str(index) for index in indexes])
    return [_properties(raw) for raw in raws]


async def scan_item_properties(store: Store) -> AsyncIterator[list[tuple[int, Properties]]]:
    """Index and properties of every item with metadata, `CHUNK` at a time; O(such items)."""
    found: list[tuple[int, Properties]] = []
    async for field, raw in store.redis.hscan_iter(store.key("properties"), count=CHUNK):
        found.append((int(field), _decode(raw)))
        if len(found) == CHUNK:
            yield found
            found = []
    if found:
        yield found


async def scan_user_properties(store: Store) -> AsyncIterator[tuple[str, Properties]]:
    """Id and properties of every user with metadata; O(such users)."""
    async for field, raw in store.redis.hscan_iter(store.key("users"), count=CHUNK):
        yield field.decode(), _decode(raw)


async def user_properties(store: Store, user_id: str) -> Properties | None:
    """Properties of a user; None without a record."""
    return _properties(await store.redis.hget(store.key("users"), user_id))


def _properties(raw: bytes | None) -> Properties | None:
    return None if raw is None else _decode(raw)


def _decode(raw: bytes) -> Properties:
    found: Properties = msgspec.json.decode(memoryview(raw)[layout.RECORD_HEAD.size :])
    return found


@dataclass(frozen=True)
class StoredItem:
    """Properties and counts of one item; times in Unix seconds, 0: never."""

    item_id: str
    properties: Properties | None
    updated_at: float
    created_at: float
    events: int
    purchases: int
    first_event_at: int
    last_event_at: int


async def item(store: Store, item_id: str) -> StoredItem | None:
    """An item's properties and counts; None without a record and events."""
    (index,) = await store.item_indexes([item_id])
    if not index:
        return None
    page, place = divmod(index, layout.STATS_PER_PAGE)
    at = place * layout.STAT.itemsize
    pipe = store.redis.pipeline(transaction=False)
    pipe.hget(store.key("properties"), str(index))
    pipe.getrange(store.key(f"stats:{page}"), at, at + layout.STAT.itemsize - 1)
    raw, counted = await pipe.execute()
    stat = np.frombuffer(counted.ljust(layout.STAT.itemsize, b"\0"), layout.STAT)[0]
    updated_at, first_at, created = layout.RECORD_HEAD.unpack_from(raw) if raw else (0.0, 0.0, 0.0)
    return StoredItem(
        item_id,
        _properties(raw),
        updated_at,
        created or first_at,
        int(stat["events"]),
        int(stat["purchases"]),
        int(stat["first"]),
        int(stat["last"]),
    )


async def same_category(store: Store, indexes: Sequence[int]) -> list[int]:
    """Other items that share a category with one of these, most recently active first.

    Two round trips.
    """
    if not len(indexes):
        return []
    raws = await store.redis.hmget(store.key("categories"), [str(index) for index in indexes])
    names = {name for raw in raws if raw for name in msgspec.msgpack.decode(raw, type=list[str])}
    return [index for index in await of_categories(store, names) if index not in set(indexes)]


async def of_categories(store: Store, names: Collection[str]) -> list[int]:
    """Items of the categories, `<column>=<value>`, most recently active first.

    At most `layout.TOPS` of each category; one round trip.
    """
    if not names:
        return []
    pipe = store.redis.pipeline(transaction=False)
    for name in names:
        pipe.zrange(store.key(f"category:{name}"), 0, layout.TOPS - 1, desc=True, withscores=True)
    touched = {int(member): at for listed in await pipe.execute() for member, at in listed}
    return sorted(touched, key=lambda index: (-touched[index], index))


class PropertiesCache:
    """Cache of items' properties, at most `cache_s` old; bounded in number and size.

    Entries stay valid until a record of the group is applied.
    """

    def __init__(self, store: Store, *, share: int = 1) -> None:
        self._store = store
        self._max_held, self._max_size = MAX_CACHED // share, MAX_CACHED_BYTES // share
        self._held: OrderedDict[int, tuple[int, Properties | None]] = OrderedDict()
        self._size = 0
        self._version: bytes | None = None
        self._checked_at = -1e18

    async def version(self, now_s: float) -> bytes | None:
        """Version of the group's records, at most `cache_s` old; equal while none has changed."""
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
                self._size, self._version = 0, version
                if found:
                    missing, found = list(dict.fromkeys(indexes)), {}
                    continue
            for index, raw in zip(missing, raws, strict=True):
                found[index] = self._keep(index, raw)
            break
        return [found[index] for index in indexes]

    async def _read(self, indexes: Sequence[int]) -> tuple[bytes | None, list[bytes | None]]:
        """The version of the group's records, and records that are at least as new."""
        pipe = self._store.redis.pipeline(transaction=False)
        pipe.hget(self._store.key("counts"), "item_updates")
        if indexes:
            pipe.hmget(self._store.key("properties"), [str(index) for index in indexes])
        version, *raws = await pipe.execute()
        return version, raws[0] if raws else []

    def _keep(self, index: int, raw: bytes | None) -> Properties | None:
        properties = _properties(raw)
        size = len(raw or b"")
        before = self._held.pop(index, None)
        self._size += size - (before[0] if before else 0)
        self._held[index] = (size, properties)
        while len(self._held) > self._max_held or self._size > self._max_size:
            _, (oldest, _) = self._held.popitem(last=False)
            self._size -= oldest
        return properties
