"""Keys of layouts that a group has no longer, or never had: of a move that was broken off."""

from __future__ import annotations

import re
from collections.abc import Sequence

from models.settings import Settings
from models.state.clients.client import RedisClient
from models.state.resharding.copied_keys import asked, pieces
from models.state.shards.merged_answers import OF_STEPS
from models.state.shards.stored_layout import ShardLayout

KEPT_FROZEN_S = 86_400
"""Time for which shards that are no more stay frozen: a worker that stood still writes nothing."""

MOVED = frozenset(
    (
        "history", "forgotten", "owners", "links", "recent", "erased", "types",
        "items", "ids", "pairs", "takers", "stats", "top", "copied",
        "properties", "users", "categories", "category", "terms", "term", "hidden", "expires",
        "variants", "updated",
    )
)  # fmt: skip
"""Families of keys of a group of one shard that go to its shards, whole."""

_SHARD = re.compile(rb"^\{.*/([ui])(\d+)(?:\.(\d+))?\}:")

REMOVED_AT_ONCE = 500


async def remove_leftovers(
    client: RedisClient, settings: Settings, current: ShardLayout, fields: Sequence[str]
) -> int:
    """Remove what steps have written in other layouts than the group's; returns how many keys.

    Breaking it off, and repeating it, does no harm. `fields` are those of the watermarks of events.

    Raises
    ------
    redis.exceptions.RedisError
        A server stays away.
    """
    group, n = settings.group, 0
    # In a pattern of Redis, these would be none of the group's name.
    name = re.sub(r"([\\*?\[\]])", r"\\\1", group)
    async for keys in client.found_keys(f"{{{name}/*}}:*"):
        gone = [key for key in keys if _is_of_another(key, group, current)]
        n += await _remove(client, gone)
    if current.shards == 1:
        return n
    async for keys in client.found_keys(f"{{{name}}}:*"):
        gone = [key for key in keys if _family(key) in MOVED]
        n += await _remove(client, gone)
    home = f"{{{group}}}:"
    await asked(
        client,
        ("HDEL", home + "counts", *sorted(OF_STEPS)),
        *(("HDEL", home + name, *fields) for name in ("watermarks", "witnesses") if fields),
    )
    return n


def _is_of_another(key: bytes, group: str, current: ShardLayout) -> bool:
    found = _SHARD.match(key)
    if found is None or not key.startswith(f"{{{group}/".encode()) or _family(key) == "frozen":
        return False
    return current.shards == 1 or int(found[3] or 0) != current.generation


def _family(key: bytes) -> str:
    return key.partition(b"}:")[2].partition(b":")[0].decode(errors="replace")


async def _remove(client: RedisClient, keys: Sequence[bytes]) -> int:
    by_slot: dict[bytes, list[str]] = {}
    for key in keys:
        by_slot.setdefault(key.partition(b"}")[0], []).append(key.decode())
    for own in by_slot.values():
        for some in pieces(own, REMOVED_AT_ONCE):
            await asked(client, ("UNLINK", *some))
    return len(keys)


async def stay_frozen(client: RedisClient, prefixes: Sequence[str]) -> None:
    """Have shards that are no more stay frozen for a while."""
    for prefix in prefixes:
        await asked(client, ("EXPIRE", prefix + "frozen", KEPT_FROZEN_S))
