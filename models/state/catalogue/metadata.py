"""Metadata of items and users in Redis: the atomic step that applies records, and the reads.

{group}:properties          hash    item index -> time, first time, creation; JSON text
{group}:users               hash    user id -> the same, of users
{group}:categories          hash    item index -> the categories it is listed under
{group}:terms               hash    item index -> terms of its text, 4 bytes each, see item_terms.py
{group}:term:<term>         string  number of items with the term, and the newest, see layout.py
{group}:category:<c>=<v>    zset    items of a category, by creation or last event (minutes)
{group}:top:fresh           zset    items with metadata, by creation
{group}:updated             zset    items whose records changed last, by item_updates after it
{group}:hidden              bits    by item index: 1 for an item that no answer may hold
{group}:expires             string  by item index: second from which no answer may hold it, 4 bytes;
                                    0: never
{group}:variants            string  by item index: number of the product that it is a variant of, a
                                    double; 0: of none
{group}:counts              hash    item_updates, user_updates: records applied; hidden_updates,
                                    expiry_updates, variant_updates: steps that changed `hidden`,
                                    `expires` and `variants`; variants: items that are some
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.errors import LimitExceeded
from models.item_terms import terms_of
from models.metadata_records import (
    MetadataRecord,
    Properties,
    RecordKind,
    categories_of,
    created_at,
    expires_at,
    is_hidden,
    product_of,
    properties_text,
    validate_properties,
)
from models.settings import Settings
from models.state import layout
from models.state.catalogue.item_rates import hourly_rates
from models.state.groups.group_registry import GROUPS
from models.state.messages import Part, PartResult
from models.state.scripts.lua_source import make_script
from models.state.shards.at_once import some_at_once
from models.state.store import Store

CHUNK = 1000
"""Records in one read of a scan."""

_results = msgspec.msgpack.Decoder(list[PartResult])


class RecordEntry(NamedTuple):
    """A record as the atomic step takes it; see apply_metadata.lua. One of no kind is skipped.

    `item_index` counts in a group of several shards only.
    """

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
    hidden: int = 0
    terms: Sequence[int] = ()
    expires: int = 0
    product: int = 0
    item_index: int = 0


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
    "apply_metadata",
    shared=("prelude", "frozen"),
    functions=("terms",),
    records=(RecordEntry,),
    part=Part,
)


def record_entry(
    offset: int, kind: RecordKind, record: MetadataRecord, *, own_group: str
) -> RecordEntry:
    """The record as the atomic step takes it; raises `InvalidRecord` if it is too long.

    Or if its embedding or its expiry is none; see `models.item_terms`.
    """
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
    return RecordEntry(
        offset, group, kind, record.id, record.at, created, text, categories,
        hidden=int(is_hidden(properties)), terms=terms_of(properties),
        expires=expires_at(properties) or 0, product=product_of(properties),
    )  # fmt: skip


def record_limits(settings: Settings) -> dict[str, int]:
    """The limits of the atomic step: of items and users, and of lists."""
    return {
        "items": settings.max_items,
        "users": settings.max_users,
        "listed": layout.TOPS,
        "updated": layout.UPDATED,
    }


async def apply_records(store: Store, parts: Sequence[RecordPart]) -> list[PartResult]:
    """Apply records of the store's group and any other, in one atomic step.

    Raises
    ------
    redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
        The step may or may not have happened; repeating it is harmless.
    """
    limits = record_limits(store.settings)
    request = {"prefix": store.prefix, "limits": limits, "parts": parts}
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
    return await properties_of(store, await store.item_indexes(item_ids))


async def scan_item_properties(store: Store) -> AsyncIterator[list[tuple[int, Properties]]]:
    """Index and properties of every item with metadata, `CHUNK` at a time; O(such items)."""
    found: list[tuple[int, Properties]] = []
    for one in store.item_stores:
        async for field, raw in one.redis.hscan_iter(one.key("properties"), count=CHUNK):
            found.append((int(field), _decode(raw)))
            if len(found) == CHUNK:
                yield found
                found = []
    if found:
        yield found


async def properties_of(store: Store, indexes: Sequence[int]) -> list[Properties | None]:
    """Properties of items by index; None without a record."""
    found: list[Properties | None] = []
    for at in range(0, len(indexes), CHUNK):
        raws = await store.item_fields("properties", indexes[at : at + CHUNK])
        found += [stored_properties(raw) for raw in raws]
    return found


async def scan_user_properties(store: Store) -> AsyncIterator[tuple[str, Properties]]:
    """Id and properties of every user with metadata; O(such users)."""
    for one in store.history_stores:
        async for field, raw in one.redis.hscan_iter(one.key("users"), count=CHUNK):
            yield field.decode(), _decode(raw)


async def users_from(store: Store, cursor: int, *, n: int) -> tuple[int, list[str]]:
    """About n users with metadata from a cursor on, 0 at first, and the next one; 0 at the end."""
    following, records = await scan_fields(store.history_stores, "users", cursor, n=n)
    return following, [name.decode() for name in records]


async def scan_fields(
    stores: Sequence[Store], name: str, cursor: int, *, n: int
) -> tuple[int, dict[bytes, bytes]]:
    """About n fields of the hashes of a name from a cursor on, 0 at first, and the next one.

    The cursor, 0 at the end, is that of a hash, and which of the stores has it.
    """
    at, number = divmod(cursor, len(stores))
    one = stores[number]
    following, records = await one.redis.hscan(one.key(name), at, count=n)
    if not int(following):
        number = (number + 1) % len(stores)
    return int(following) * len(stores) + number, records


async def user_properties(store: Store, user_id: str) -> Properties | None:
    """Properties of a user; None without a record."""
    one = store.user_store(user_id)
    return stored_properties(await one.redis.hget(one.key("users"), user_id))


def stored_properties(raw: bytes | None) -> Properties | None:
    """Properties of a record as it is stored; None for no record."""
    return None if raw is None else _decode(raw)


def _decode(raw: bytes) -> Properties:
    found: Properties = msgspec.json.decode(memoryview(raw)[layout.RECORD_HEAD.size :])
    return found


@dataclass(frozen=True)
class StoredItem:
    """Properties and counts of one item; times in Unix seconds, 0: never.

    Attributes
    ----------
    rates
        Events an hour by horizon; see `hourly_rates`. Empty without events.
    """

    item_id: str
    properties: Properties | None
    updated_at: float
    created_at: float
    events: int
    purchases: int
    first_event_at: int
    last_event_at: int
    rates: Mapping[str, float]


async def item(store: Store, item_id: str, *, now_s: float) -> StoredItem | None:
    """An item's properties and counts; None without a record and events."""
    (index,) = await store.item_indexes([item_id])
    if not index:
        return None
    page, place = divmod(index, layout.STATS_PER_PAGE)
    at = place * layout.STAT.itemsize
    (raw,), (counted,) = await asyncio.gather(
        store.item_fields("properties", [index]), store.values([store.key(f"stats:{page}")])
    )
    own = (counted or b"")[at : at + layout.STAT.itemsize]
    stat = np.frombuffer(own.ljust(layout.STAT.itemsize, b"\0"), layout.STAT)[0]
    updated_at, first_at, created = layout.RECORD_HEAD.unpack_from(raw) if raw else (0.0, 0.0, 0.0)
    return StoredItem(
        item_id,
        stored_properties(raw),
        updated_at,
        created or first_at,
        int(stat["events"]),
        int(stat["purchases"]),
        int(stat["first"]),
        int(stat["last"]),
        hourly_rates(stat["log2"], float(stat["first"]), now_s=now_s) if stat["events"] else {},
    )


async def same_category(
    store: Store, indexes: Sequence[int], uses: Callable[[str], bool] = lambda _: True
) -> list[int]:
    """Other items that share a category with one of these, most recently active first.

    `uses` says of which columns the categories count. Two round trips.
    """
    if not len(indexes):
        return []
    raws = await store.item_fields("categories", indexes)
    names = {
        name
        for raw in raws
        if raw
        for name in msgspec.msgpack.decode(raw, type=list[str])
        if uses(name.partition("=")[0])
    }
    return [index for index in await of_categories(store, names) if index not in set(indexes)]


async def creation_times(store: Store, indexes: Sequence[int]) -> dict[int, float]:
    """Unix times of creation of items among the newest with metadata; others are left out."""
    if not indexes:
        return {}
    known = zip(indexes, await store.creation_times(indexes), strict=True)
    return {index: float(at_s) for index, at_s in known if at_s is not None}


async def of_categories(store: Store, names: Collection[str]) -> list[int]:
    """Items of the categories, `<column>=<value>`, most recently active first.

    At most `layout.TOPS` of each category and shard; one round trip. Shards that are away are left
    out, unless all are.
    """
    if not names:
        return []
    touched: dict[int, float] = {}
    for of_shard in await some_at_once(_listed(one, names) for one in store.item_stores):
        touched |= of_shard or {}
    return sorted(touched, key=lambda index: (-touched[index], index))


async def _listed(store: Store, names: Collection[str]) -> dict[int, float]:
    """Items of the categories in one slot, with the time that they are ordered by."""
    pipe = store.redis.pipeline(transaction=False)
    for name in names:
        pipe.zrange(store.key(f"category:{name}"), 0, layout.TOPS - 1, desc=True, withscores=True)
    return {int(member): at for listed in await pipe.execute() for member, at in listed}
