"""The item factors of a group in Redis: one string, and a number that grows with each change.

    {group}:factors             string  head, then a record of each item, the most taken first
    {group}:counts              hash    factor_updates: how often they were learned

They hold no user. The head alone is read where it is only asked how old they are.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.state.scripts.registered_scripts import Script, run_script
from models.state.store import Store

N_FACTORS = 32
"""Numbers of an item's vector."""

FACTOR = np.dtype(
    [("item", "<u4"), ("owners", "<u4"), ("scale", "<f4"), ("codes", "i1", (N_FACTORS,))]
)
"""An item: its index, how many of the histories that were read have it, and its vector, which is
`scale` times `codes`."""

_HEAD = struct.Struct("<dQQ")


class FactorsHead(NamedTuple):
    """Unix time at which factors were learned, events that the group had then, and items."""

    learned_at_s: float
    n_events: int
    n_items: int


NEVER_LEARNED = FactorsHead(0.0, 0, 0)


def pack_factors(head: FactorsHead, factors: NDArray[np.void]) -> bytes:
    """The stored form of ``(n,)`` of `FACTOR`."""
    return _HEAD.pack(*head) + factors.tobytes()


def unpack_factors(raw: bytes | None) -> tuple[FactorsHead, NDArray[np.void]]:
    """Head and records of stored factors; without them, none that were never learned."""
    if not raw:
        return NEVER_LEARNED, np.empty(0, FACTOR)
    return FactorsHead(*_HEAD.unpack_from(raw)), np.frombuffer(raw, FACTOR, offset=_HEAD.size)


async def read_factors(store: Store) -> bytes | None:
    """The stored factors, in one round trip; 44 bytes an item."""
    (raw,) = await store.redis.shared_reads.run(("GET", store.key("factors")))
    return bytes(raw) if raw else None


async def read_factors_head(store: Store) -> FactorsHead:
    """Head of the group's factors; `NEVER_LEARNED` before the first time."""
    raw = await store.redis.getrange(store.key("factors"), 0, _HEAD.size - 1)
    return FactorsHead(*_HEAD.unpack(raw)) if raw else NEVER_LEARNED


_SAVE_FACTORS = Script.of("""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('HINCRBY', KEYS[1], 'factor_updates', 1)
return 1
""")


async def save_factors(store: Store, raw: bytes) -> bool:
    """Replace the group's factors; processes read them with the next shared state.

    False, and nothing is stored, if the group has no state any more: it was erased meanwhile.
    """
    keys = [store.key("counts"), store.key("factors")]
    return bool(await run_script(store.redis, _SAVE_FACTORS, keys, raw))
