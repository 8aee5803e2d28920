"""Metadata on several shards, under answers that get lost and a shard that falls back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import redis.exceptions

from models.metadata_records import MetadataRecord, validate_properties
from models.settings import Settings
from models.state.catalogue.item_listing import matching_items, newest_items
from models.state.catalogue.metadata import (
    RecordEntry,
    item_properties,
    of_categories,
    record_entry,
    scan_item_properties,
    scan_user_properties,
    user_properties,
    users_from,
)
from models.state.catalogue.term_lists import term_lists
from models.state.clients.client import connect
from models.state.messages import PartResult
from models.state.shards.shard_names import DeltaMessage, DeltaPart, record_field, split
from models.state.shards.sharded_steps import ShardedSteps
from models.state.shards.sharded_store import ShardedStore
from models.state.shared_reads import read_expiries, read_group_state, read_hidden, read_products
from models.state.store import Store
from streams.agents.contracts import BatchPart
from streams.agents.metadata import RecordWriter
from streams.agents.shards.sharded_records import ShardedRecordWriter

SHARDS = 3
NOW = 1_800_000_000.0
NAMES = [f"x{n}" for n in range(90)]
"""Fewer than a term lists: which of more are the newest, indexes say, and these differ."""
FIELDS = {"items": record_field("i", "k/t", 0), "users": record_field("u", "k/u", 0)}


class LossyWriter(ShardedRecordWriter):
    """Of some steps that have been done, the answer is lost."""

    chance = random.Random(4)
    lost_share = 0.0

    async def _apply(self, *words: Any) -> list[PartResult]:
        done = await super()._apply(*words)
        if self.chance.random() < self.lost_share:
            raise redis.exceptions.ConnectionError("its answer is lost")
        return done


class Records:
    """A log of records of each kind, and what reads it for a group of several shards."""

    def __init__(self, client: Any, one: Settings) -> None:
        self.steps = ShardedSteps(client, one, shards=one.shards)
        self.store = ShardedStore(client, one)
        self.writer = LossyWriter(self.steps, self.publish)
        self.log: dict[str, list[RecordEntry]] = {"items": [], "users": []}
        self.n_refused = 0

    async def publish(self, values: Sequence[tuple[str, bytes]]) -> None:
        """Item shards give the indexes that are asked for."""
        for name, value in values:
            part = DeltaPart("", -1, [DeltaMessage(0, split(value)[1])])
            await self.steps.apply_deltas(int(name[1:]), [part], now_s=NOW)

    async def apply(self) -> None:
        """Read both logs on from where all shards are, a few at a time, until all is in effect."""
        while True:
            marks = dict(zip(FIELDS, await self.store.watermarks([*FIELDS.values()]), strict=True))
            most = self.writer.chance.randrange(1, 40)
            parts = [
                BatchPart(FIELDS[kind], mark, log[mark + 1 : mark + 1 + most], -1, 0)
                for kind, log in self.log.items()
                if (mark := marks[kind]) + 1 < len(log)
            ]
            if not parts:
                return
            try:
                results = await self.writer.write(parts)
            except redis.exceptions.ConnectionError:
                continue
            for part, result in zip(parts, results, strict=True):
                assert result.status != "lost" or result.watermark < part.expected
                if result.status == "full":
                    self.n_refused += 1
                    kind = "items" if part.field == FIELDS["items"] else "users"
                    self.log[kind][result.offset] = RecordEntry(result.offset)


def random_record(chance: random.Random, kind: Any, offset: int, at_s: float) -> RecordEntry:
    """A record, or a removal, of one of some names."""
    name = chance.choice(NAMES)
    properties: Any = None
    if chance.random() < 0.85:
        properties = {"genre": chance.choice("abc"), "price": chance.randrange(9)}
        if kind == "items":
            properties |= {"hidden": chance.random() < 0.3, "title": f"blue tent {name}"}
            properties |= {"item_group_id": f"g{chance.randrange(9)}"} if offset % 3 else {}
            properties |= {"expires_at": NOW + chance.randrange(9)} if offset % 4 == 0 else {}
        properties = validate_properties(kind, name, properties)
    record = MetadataRecord("h", name, properties, at_s)
    return record_entry(offset, kind, record, own_group="h")


async def seen(store: Store) -> dict[str, Any]:
    """What is read of the metadata of a group, by names of items."""
    indexes = await store.item_indexes(NAMES)
    named = dict(zip(indexes, NAMES, strict=True))
    tops = await read_group_state(store, ["nothing"])
    in_order = [named[i] for i in await of_categories(store, ["genre=a"])]

    def values(found: Any) -> dict[str, float]:
        places = [i for i in indexes if 0 < i < len(found)]
        return {named[i]: float(found[i]) for i in places if found[i]}

    terms = await term_lists(store, indexes)
    return {
        "items": await item_properties(store, NAMES),
        "scanned": {named[i]: p async for some in scan_item_properties(store) for i, p in some},
        "users": {name: p async for name, p in scan_user_properties(store)},
        "user": [await user_properties(store, name) for name in NAMES[:20]],
        "hidden": values(await read_hidden(store)),
        "expires": values(await read_expiries(store)),
        "products": values(await read_products(store)),
        "n_variants": tops.n_variants,
        "category": sorted(in_order),
        "fresh": sorted(named[i] for i in tops.tops["fresh"].tolist()),
        "newest": sorted(one.item_id for one in await newest_items(store, 500)),
        "tents": sorted(
            one.item_id for one in (await matching_items(store, "tent", cursor=None, n=999)).items
        ),
        "terms": [
            [(int(words[0]), sorted(named[int(w) % 2**24] for w in words[1:])) for words in of_item]
            for of_item in (
                [np.frombuffer(raw, "<u4") for raw in one if raw is not None] for one in terms
            )
        ],
    }


async def all_users(store: Store) -> list[str]:
    """Users by pages."""
    found, cursor = list[str](), 0
    while True:
        cursor, some = await users_from(store, cursor, n=10)
        found += some
        if not cursor:
            return sorted(found)


@pytest.mark.parametrize("seed", range(3))
async def test_shards_have_what_one_has(redis_url: str, seed: int) -> None:
    """Whatever answers are lost, and if a shard falls back to an earlier state."""
    chance = random.Random(seed)
    options: dict[str, Any] = {"redis": redis_url, "outcomes": False}
    async with connect(redis_url) as client:
        try:
            records = Records(client, Settings(group="h", shards=SHARDS, **options))
            records.writer.lost_share = 0.2
            kept: dict[bytes, Any] = {}
            prefix = f"{{h/{chance.choice('iu')}01}}:"
            for turn in range(4):
                for kind, log in records.log.items():
                    log += [
                        random_record(chance, kind, len(log) + n, NOW - 900 + turn)
                        for n in range(60)
                    ]
                await records.apply()
                keys = [key async for key in client.scan_iter(match=prefix + "*", count=1000)]
                if turn == 1:
                    kept = {key: await client.dump(key) for key in keys}
                elif turn == 2:
                    await client.delete(*keys)
                    for key, raw in kept.items():
                        await client.restore(key, 0, raw)
            await records.apply()
            found, users = await seen(records.store), await all_users(records.store)
            await client.flushdb()
            single = Store(client, Settings(group="h", **options))
            for kind, log in records.log.items():
                await RecordWriter(single).write([BatchPart(FIELDS[kind], -1, log, -1, 0)])
            wanted, all_wanted = await seen(single), await all_users(single)
        finally:
            await client.flushdb()

    assert {**found, "newest": 0} == {**wanted, "newest": 0}
    assert found["newest"] == wanted["newest"]
    assert users == all_wanted == sorted(wanted["users"])
    assert all(found[name] for name in ("hidden", "products", "expires", "terms"))
    assert records.n_refused == 0


async def test_what_is_too_much_is_refused_alone(redis_url: str) -> None:
    """Of items without room and of too many users; all others take effect."""
    one = Settings(
        group="h", redis=redis_url, shards=SHARDS, outcomes=False, max_items=9, max_users=6
    )
    async with connect(redis_url) as client:
        try:
            records = Records(client, one)
            for kind, log in records.log.items():
                for n in range(40):
                    record = MetadataRecord("h", f"x{n}", {"genre": "a"}, NOW)
                    log.append(record_entry(n, kind, record, own_group="h"))  # type: ignore[arg-type]
            await records.apply()
            n_items = sum(one is not None for one in await item_properties(records.store, NAMES))
            n_users = len(await all_users(records.store))
        finally:
            await client.flushdb()

    assert (n_items, n_users, records.n_refused) == (9, 6, 80 - 15)
