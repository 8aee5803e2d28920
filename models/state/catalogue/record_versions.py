"""Versions of a group's metadata of items, and which records have changed from one to another."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from models.state import layout
from models.state.scripts.registered_scripts import Script, run_script
from models.state.shards.shard_names import last_index
from models.state.store import Store

# The count of changes, that of the last listed one, and the items that changed after a count.
_CHANGED = Script.of(
    """
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
return {
  redis.call('HGET', KEYS[2], 'item_updates') or '0', last[2] or '0',
  redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf'),
}
"""
)


class RecordsVersion(NamedTuple):
    """Version of a group's records.

    Attributes
    ----------
    updates
        Changes so far, of each of `Store.item_stores`.
    n_items
        The greatest index of an item so far.
    """

    updates: tuple[int, ...]
    n_items: int


async def records_version(store: Store) -> RecordsVersion:
    """The version of the group's records as they are now."""
    stores = store.item_stores
    found = await asyncio.gather(*map(_updates_and_items, stores))
    greatest = max(
        last_index(n_items, shard, len(stores)) for shard, (_, n_items) in enumerate(found)
    )
    return RecordsVersion(tuple(updates for updates, _ in found), greatest)


async def _updates_and_items(store: Store) -> tuple[int, int]:
    (stored,) = await store.redis.reads.run(
        ("HMGET", store.key("counts"), "item_updates", "item_index")
    )
    updates, n_items = (int(count or 0) for count in stored)
    return updates, n_items


async def changed_items(
    store: Store, since: RecordsVersion, until: RecordsVersion
) -> list[int] | None:
    """Indexes of the items whose records have changed from one version to another, or later.

    None where that is not known: there were too many changes, or the records were replaced.
    """
    found: list[int] = []
    for one, before, now in zip(store.item_stores, since.updates, until.updates, strict=True):
        changed = await _changed_items(one, before, now)
        if changed is None:
            return None
        found += changed
    return found


async def _changed_items(store: Store, since: int, until: int) -> list[int] | None:
    if until == since:
        return []
    if not 0 < until - since <= layout.UPDATED:
        return None
    keys = [store.key("updated"), store.key("counts")]
    updates, last, found = await run_script(store.redis, _CHANGED, keys, since)
    # A step of an earlier release has counted its changes, and listed none.
    if int(updates) != int(last) or int(updates) - since > layout.UPDATED:
        return None
    return [int(index) for index in found]
