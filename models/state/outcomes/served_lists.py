"""Served lists, kept for the attribution of clicks: compact, and within a budget.

Requests must never fill the store: whatever the load, a group's lists take no more than
`impression_budget_mb`, and when the server's memory is nearly full they go first. They hold no
user. Layout: served_lists.lua.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from models.state.scripts.lua_source import read_lua
from models.state.scripts.registered_scripts import Script, run_script
from models.state.store import Store

MAX_SHOWN = 100
"""Items kept of a list: the first ones, which were seen if any were."""

MAX_TRIED = 2000
"""Items whose exploration is counted, at most."""

BUCKETS = 16
"""Parts of the budget; the oldest is dropped as a whole."""

OVERHEAD_BYTES = 72
"""Memory of a list beside its id and its items."""

NEARLY_FULL = 0.9
"""Share of the server's memory limit from which no list is kept."""

CHUNK = 200
"""Lists in one script, at most: a few milliseconds of the server's time."""

KEEP = Script.of(read_lua("served_lists"))


async def log_served(
    store: Store,
    lists: Mapping[str, Sequence[str]],
    tried: Sequence[str] = (),
    *,
    now_s: float,
) -> int:
    """Store served lists by recommendationId for `impression_ttl_s`; returns the number stored.

    Of each list the first `MAX_SHOWN` items. `tried` items were shown for exploration, and are
    counted.
    """
    settings, kept = store.settings, 0
    budget_bytes = settings.impression_budget_mb * 1024 * 1024
    wanted = list(lists.items()) if budget_bytes else []
    for at in range(0, max(1, len(wanted)), CHUNK):
        chunk = wanted[at : at + CHUNK]
        payload: dict[str, Any] = {
            "now": int(now_s),
            "ttl": settings.impression_ttl_s,
            "budget": budget_bytes,
            "buckets": BUCKETS,
            "overhead": OVERHEAD_BYTES,
            "most_tried": MAX_TRIED,
            "share": NEARLY_FULL,
            "lists": [items[:MAX_SHOWN] for _, items in chunk],
            "tried": list(tried) if at == 0 else [],
        }
        if settings.shards > 1:
            # Item shards have the indexes.
            wanted_ids = [*itertools.chain.from_iterable(payload["lists"]), *payload["tried"]]
            named = list(dict.fromkeys(wanted_ids))
            payload["indexes"] = dict(zip(named, await store.item_indexes(named), strict=True))
        keys = [store.key(name) for name in ("served", "items", "tried")]
        arguments = (msgspec.msgpack.encode(payload), *(_field(name) for name, _ in chunk))
        kept += int(await run_script(store.redis, KEEP, keys, *arguments))
    return kept


async def served(store: Store, recommendation_id: str) -> list[str] | None:
    """Items of a served list, "" for an item without an index; None if the list is not kept."""
    numbers = await store.redis.hkeys(store.key("served"))
    pipe = store.redis.pipeline(transaction=False)
    for number in numbers:
        pipe.hget(store.key(f"served:{number.decode()}"), _field(recommendation_id))
    for raw in await pipe.execute() if numbers else []:
        if raw is not None:
            names = await store.item_ids(struct.unpack(f"<{len(raw) // 4}I", raw))
            return [name or "" for name in names]
    return None


async def sampled_lists(store: Store, most: int) -> list[list[int]]:
    """Indexes of the items of kept lists, drawn at random; two round trips, O(lists drawn)."""
    numbers = await store.redis.hkeys(store.key("served"))
    if not numbers:
        return []
    pipe = store.redis.pipeline(transaction=False)
    for number in numbers:
        key = store.key(f"served:{number.decode()}")
        pipe.hrandfield(key, max(1, most // len(numbers)), withvalues=True)
    found: list[list[int]] = []
    for answer in await pipe.execute():
        # Of the third version of the protocol, pairs; before it, a flat list.
        raws = (
            [pair[1] for pair in answer] if answer and isinstance(answer[0], list) else answer[1::2]
        )
        found += [list(struct.unpack(f"<{len(raw) // 4}I", raw)) for raw in raws]
    return found[:most]


def _field(recommendation_id: str) -> bytes:
    """The id as bytes; in half its length if it is one of this service."""
    try:
        packed = bytes.fromhex(recommendation_id)
    except ValueError:
        return recommendation_id.encode()
    is_own = packed.hex() == recommendation_id and len(packed) == 16
    return packed if is_own else recommendation_id.encode()
