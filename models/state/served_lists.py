"""Lists that were served, kept for the attribution of clicks: compact, and in a budget.

Reading must never fill the store: whatever the load, a group's lists take no more than
`impression_budget_mb`, and where the server's memory is nearly full they go first. Nothing in them
says who was served. Layout: served_lists.lua.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from importlib import resources

import msgspec

from models.state.scripts import Script, run_script
from models.state.store import Store

MAX_SHOWN = 100
"""Items of a list that are kept: the first ones, which were seen if any were."""

MAX_TRIED = 2000
"""Items whose trials are counted, at most."""

BUCKETS = 16
"""Parts of the budget; the oldest one is dropped as a whole."""

OVERHEAD_BYTES = 72
"""Memory that a list takes beside its id and its items."""

NEARLY_FULL = 0.9
"""Share of the server's memory limit from which on no list is kept."""

CHUNK = 200
"""Lists in one step, at most: a few milliseconds of the server's time."""

KEEP = Script.of(resources.files(__package__).joinpath("served_lists.lua").read_text())


async def log_served(
    store: Store,
    lists: Mapping[str, Sequence[str]],
    tried: Sequence[str] = (),
    *,
    now_s: float,
) -> int:
    """Keep served lists by their recommendationId, for `impression_ttl_s`; gives how many were.

    Of each list the first `MAX_SHOWN` items. `tried` items stand in them for exploration, and are
    counted.
    """
    settings, kept = store.settings, 0
    budget_bytes = settings.impression_budget_mb * 1024 * 1024
    wanted = list(lists.items()) if budget_bytes else []
    for at in range(0, max(1, len(wanted)), CHUNK):
        chunk = wanted[at : at + CHUNK]
        payload = {
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
        keys = [store.key(name) for name in ("served", "items", "tried")]
        arguments = (msgspec.msgpack.encode(payload), *(_field(name) for name, _ in chunk))
        kept += int(await run_script(store.redis, KEEP, keys, *arguments))
    return kept


async def served(store: Store, recommendation_id: str) -> list[str] | None:
    """The items of a list that was served, empty for one not known; None if it is not kept."""
    numbers = await store.redis.hkeys(store.key("served"))
    pipe = store.redis.pipeline(transaction=False)
    for number in numbers:
        pipe.hget(store.key(f"served:{number.decode()}"), _field(recommendation_id))
    for raw in await pipe.execute() if numbers else []:
        if raw is not None:
            names = await store.item_ids(struct.unpack(f"<{len(raw) // 4}I", raw))
            return [name or "" for name in names]
    return None


def _field(recommendation_id: str) -> bytes:
    """The id in half its length, if it is one that this service gives."""
    try:
        packed = bytes.fromhex(recommendation_id)
    except ValueError:
        return recommendation_id.encode()
    is_own = packed.hex() == recommendation_id and len(packed) == 16
    return packed if is_own else recommendation_id.encode()
