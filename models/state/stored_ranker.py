"""The ranker's state in Redis, a hash of the group: weights, measures, and its watermark."""

from __future__ import annotations

from collections.abc import Mapping

from models.state.scripts.registered_scripts import Script, run_script
from models.state.store import Store

_SAVE_RANKER = Script.of("""
local watermark = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or nil) or -1
if watermark ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], unpack(ARGV, 4))
return 1
""")


async def save_ranker(
    store: Store, fields: Mapping[str, bytes | str], *, field: str, expected: int, offset: int
) -> bool:
    """Store the ranker's state with its watermark, if that is still the `expected` one.

    A learner that lost its partition to another thus cannot overwrite the other's state.
    Returns whether it was stored.

    Parameters
    ----------
    field
        Names the partition that the watermark belongs to, as in `watermarks`.
    """
    flat = [item for pair in fields.items() for item in pair]
    keys = [store.key("ranker")]
    saved = await run_script(
        store.redis, _SAVE_RANKER, keys, f"watermark:{field}", expected, offset, *flat
    )
    return bool(saved)


async def load_ranker(store: Store) -> dict[str, bytes]:
    """The ranker's state as `save_ranker` stored it; empty before the first time."""
    stored = await store.redis.hgetall(store.key("ranker"))
    return {name.decode(): bytes(value) for name, value in stored.items()}


async def write_ranker_fields(store: Store, fields: Mapping[str, bytes | None]) -> None:
    """Store fields beside the ranker's state, apart from its watermark; None removes one."""
    kept = {name: value for name, value in fields.items() if value is not None}
    async with store.redis.pipeline(transaction=False) as pipe:
        if kept:
            pipe.hset(store.key("ranker"), mapping=kept)
        if len(kept) < len(fields):
            pipe.hdel(store.key("ranker"), *(fields.keys() - kept.keys()))
        await pipe.execute()
