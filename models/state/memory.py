"""What the store takes of the server's memory, by family of keys: an estimate at a bounded cost.

Redis walks its keys in an order that says nothing of them, so the first ones are a fair sample of
all. Of a store with more keys than are looked at, numbers are what the sample says of the whole;
large single keys, such as that of all items' names, are asked for by name.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable

import msgspec
from redis.exceptions import ResponseError

from models.state.store import GROUPS, Memory, Store

SCANNED = 5000
"""Keys that are looked at, at least, where there are as many."""

MEASURED = 40
"""Keys of each family whose memory is asked for, at most."""

SINGLE = (
    "watermarks",
    "witnesses",
    "counts",
    "items",
    "ids",
    "types",
    "users",
    "properties",
    "categories",
    "ranker",
    "tried",
    "served",
)
"""Keys of which a group has one each; what they take grows with what is in them."""

LOG = logging.getLogger(__name__)

EVICTING = re.compile(r"^(allkeys|volatile)-")

_NAME = re.compile(r"^\{[^}]*\}:(?P<family>[A-Za-z_-]+)")


class Family(msgspec.Struct):
    """Keys of one kind, of all groups: how many, and the bytes they take, both about."""

    keys: int
    bytes: int


def shortages(memory: Memory) -> list[str]:
    """A sentence while the server refuses what is to be learned."""
    is_full = memory.limit_bytes and memory.used_bytes >= memory.limit_bytes
    if not is_full or EVICTING.match(memory.policy):
        return []
    used = f"{memory.used_bytes} of {memory.limit_bytes} bytes"
    return [f"Redis is full ({used}): events wait in Kafka until there is room; raise maxmemory"]


def risks(memory: Memory) -> list[str]:
    """What an operator should see to, each a sentence."""
    if not EVICTING.match(memory.policy):
        return []
    lost = "at its limit it drops what was learned without a word"
    return [f"Redis has maxmemory-policy {memory.policy}: {lost}; set it to noeviction"]


async def read_families(store: Store) -> dict[str, Family]:
    """The families of keys of all groups, the largest first; `other` is what is nobody's here.

    At most some hundred commands, whatever the store holds. Empty where the server does not let
    its clients look.
    """
    try:
        n_keys = int(await store.redis.dbsize())
        groups = {store.settings.group, *map(bytes.decode, await store.redis.smembers(GROUPS))}
        single = [f"{{{group}}}:{name}".encode() for group in sorted(groups) for name in SINGLE]
        sampled = await _sample(store)
        families = await _families(store, sampled - set(single), n_keys, len(sampled))
        for key, size in (await _sizes(store, single)).items():
            _add(families, _family(key), 1, size)
    except ResponseError as error:
        LOG.warning("Redis does not tell what its keys take: %s", error)
        return {}
    return dict(sorted(families.items(), key=lambda one: (-one[1].bytes, one[0])))


async def _sample(store: Store) -> set[bytes]:
    sampled: set[bytes] = set()
    cursor = 0
    for _ in range(SCANNED // 100):
        cursor, keys = await store.redis.scan(cursor, count=1000)
        sampled.update(keys)
        if cursor == 0 or len(sampled) >= SCANNED:
            break
    return sampled


async def _families(
    store: Store, sampled: Iterable[bytes], n_keys: int, n_sampled: int
) -> dict[str, Family]:
    """What a sample says of all keys."""
    by_name: dict[str, list[bytes]] = defaultdict(list)
    for key in sorted(sampled):
        by_name[_family(key)].append(key)
    # In order of names neighbours are alike: those measured are spread over all.
    measured = {name: keys[:: -(-len(keys) // MEASURED)] for name, keys in by_name.items()}
    sizes = await _sizes(store, [key for keys in measured.values() for key in keys])
    families = {}
    for name, keys in by_name.items():
        known = [sizes[key] for key in measured[name] if key in sizes]
        n = round(len(keys) * max(1.0, n_keys / max(1, n_sampled)))
        families[name] = Family(n, round(n * sum(known) / len(known)) if known else 0)
    return families


async def _sizes(store: Store, keys: Iterable[bytes]) -> dict[bytes, int]:
    """Bytes of those of the keys that there are."""
    asked = list(keys)
    pipe = store.redis.pipeline(transaction=False)
    for key in asked:
        pipe.memory_usage(key, samples=5)
    found = await pipe.execute() if asked else []
    return {key: int(size) for key, size in zip(asked, found, strict=True) if size is not None}


def _family(key: bytes) -> str:
    """What stands behind the group in a key's name.

    >>> _family(b"{shop}:history:u:ada"), _family(b"{recommender}:groups"), _family(b"mine")
    ('history', 'groups', 'other')
    """
    match = _NAME.match(key.decode(errors="replace"))
    return match["family"] if match else "other"


def _add(families: dict[str, Family], name: str, keys: int, size: int) -> None:
    before = families.get(name, Family(0, 0))
    families[name] = Family(before.keys + keys, before.bytes + size)
