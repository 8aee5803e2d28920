"""Load of each shard of a group: what it has applied, what waits for it, and its memory.

Keys and bytes are estimates at a bounded cost, as those of `models.state.operations.memory`: a
Redis Cluster counts the keys of a slot, any other server is sampled.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.crc import key_slot
from redis.exceptions import ResponseError

from models.state.operations.memory import SINGLE, sample_keys
from models.state.shards.at_once import at_once
from models.state.shards.shard_names import shard_names
from models.state.shards.sharded_store import ShardedStore
from models.state.store import Store

MEASURED = 60
"""Keys of each shard whose memory is measured, beside those of which it has one each."""

_TAG = re.compile(rb"\{([^{}]+)\}:")


class ShardFigures(msgspec.Struct, frozen=True):
    """Load of one shard.

    Attributes
    ----------
    name
        `u03` or `i03`: a session shard or an item shard.
    applied
        Events in effect of a session shard, changes of an item shard, since the group began.
    waiting
        Values in outboxes that it has yet to apply.
    keys, bytes
        Its keys and their memory, about; 0 where Redis does not permit to ask.
    """

    name: str
    applied: int
    waiting: int
    keys: int
    bytes: int


class _Kept(NamedTuple):
    """Number of keys of a shard, and some of them."""

    n_keys: int
    sample: list[bytes]


async def read_shard_figures(
    store: Store, wanted: Collection[str] | None = None
) -> list[ShardFigures]:
    """Figures of these shards or all, session shards first; none of a group of one shard.

    Some hundred commands a shard, all shards at once.
    """
    if not isinstance(store, ShardedStore):
        return []
    every = {
        name: one
        for name, one in zip(
            shard_names(store.shards), [*store.sessions, *store.items], strict=True
        )
        if wanted is None or name in wanted
    }
    names = list(every)
    counts = await at_once(one.counts() for one in every.values())
    waiting: Counter[str] = Counter()
    for sizes in await at_once(_outboxes(one, names) for one in store.sessions):
        waiting.update(sizes)
    memory = await _memory(store, list(every.values()))
    return [
        ShardFigures(
            name,
            int(of_shard.get("changes" if name[0] == "i" else "events", 0)),
            waiting[name],
            *kept,
        )
        for name, of_shard, kept in zip(names, counts, memory, strict=True)
    ]


def most_of_mean(figures: Iterable[ShardFigures]) -> dict[str, tuple[str, float]]:
    """By kind of shard the busiest one, and what it has applied in multiples of the mean.

    >>> most_of_mean([ShardFigures("i00", 30, 0, 0, 0), ShardFigures("i01", 10, 0, 0, 0)])
    {'i': ('i00', 1.5)}
    """
    by_kind: dict[str, list[ShardFigures]] = defaultdict(list)
    for one in figures:
        by_kind[one.name[0]].append(one)
    found = {}
    for kind, ones in by_kind.items():
        most = max(ones, key=lambda one: one.applied)
        mean = sum(one.applied for one in ones) / len(ones)
        if mean:
            found[kind] = (most.name, most.applied / mean)
    return found


async def _outboxes(session_shard: Store, names: Sequence[str]) -> dict[str, int]:
    """Values that a session shard has for each shard."""
    commands = [("LLEN", session_shard.key(f"outbox:{name}")) for name in names]
    sizes = await session_shard.redis.reads.run(*commands)
    return {name: int(size) for name, size in zip(names, sizes, strict=True)}


async def _memory(store: Store, every: Sequence[Store]) -> list[tuple[int, int]]:
    """Keys and bytes of each shard, about."""
    try:
        if store.settings.redis_cluster:
            kept = await at_once(map(_keys_of_slot, every))
        else:
            kept = await _sampled(store, every)
        return await at_once(_measured(one, own) for one, own in zip(every, kept, strict=True))
    except ResponseError:
        return [(0, 0)] * len(every)


async def _keys_of_slot(shard: Store) -> _Kept:
    """Of a cluster, where a shard is all of its slot."""
    slot = key_slot(shard.key("").encode())
    _, n, sample = await _at_node(
        shard, ("CLUSTER", "COUNTKEYSINSLOT", slot), ("CLUSTER", "GETKEYSINSLOT", slot, MEASURED)
    )
    return _Kept(int(n), list(sample))


async def _sampled(store: Store, every: Sequence[Store]) -> list[_Kept]:
    n_keys = int(await store.redis.dbsize())
    sampled = await sample_keys(store)
    by_tag: dict[bytes, list[bytes]] = defaultdict(list)
    for key in sorted(sampled):
        if match := _TAG.match(key):
            by_tag[match[0]].append(key)
    share = max(1.0, n_keys / max(1, len(sampled)))
    found = []
    for one in every:
        own = by_tag[one.key("").encode()]
        found.append(_Kept(round(len(own) * share), own[:: -(-len(own) // MEASURED) or 1]))
    return found


async def _measured(shard: Store, kept: _Kept) -> tuple[int, int]:
    """Number of keys, and their bytes: those of which there is one each, and a mean of the rest."""
    single = [shard.key(name).encode() for name in SINGLE]
    others = [key for key in kept.sample if key not in single]
    _, *sizes = await _at_node(shard, *(("MEMORY", "USAGE", key) for key in (*single, *others)))
    known = [int(size) for size in sizes[: len(single)] if size is not None]
    of_others = [int(size) for size in sizes[len(single) :] if size is not None]
    n_others = max(0, kept.n_keys - len(known))
    mean = sum(of_others) / len(of_others) if of_others else 0.0
    return kept.n_keys, sum(known) + round(n_others * mean)


async def _at_node(shard: Store, *commands: Any) -> list[Any]:  # noqa: ANN401  whatever they answer
    """Answers of commands at the primary of a shard, behind that of one that names a key."""
    return list(await shard.redis.reads.run(("EXISTS", shard.key("counts")), *commands))
