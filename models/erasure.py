"""Erasing a dataset group: every key that its events, items, users and model have made."""

from __future__ import annotations

from models.resources import RESERVED_GROUP
from models.store import Store

BATCH = 1000


async def erase_group(store: Store) -> int:
    """Remove every key of the store's group; says how many there were.

    Goes through all keys of the Redis server in steps, other clients in between. Whoever writes to
    the group meanwhile may leave new keys behind: end its event tracker first.

    Raises
    ------
    ValueError
        For the name whose keys belong to all groups.
    """
    if store.settings.group == RESERVED_GROUP:
        raise ValueError(f"the keys of {RESERVED_GROUP!r} are everybody's")
    removed = 0
    keys: list[bytes] = []
    async for key in store.redis.scan_iter(match=f"{store.prefix}*", count=BATCH):
        keys.append(key)
        if len(keys) == BATCH:
            removed += int(await store.redis.unlink(*keys))
            keys.clear()
    if keys:
        removed += int(await store.redis.unlink(*keys))
    return removed
