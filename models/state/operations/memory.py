"""Memory of the Redis server, and its use by families of keys: an estimate at a bounded cost.

Redis walks its keys in an order that is independent of their names, so the first ones are a fair
sample. With more keys than are sampled, numbers are extrapolated; large single keys, such as the
hash of all items' names, are measured by name.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable

import msgspec
from redis.exceptions import ResponseError

from models.state.clients.client import RedisClient
from models.state.groups.group_registry import registered_groups
from models.state.store import Store

SCANNED = 5000
"""Keys in the sample, at least, if there are as many."""

MEASURED = 40
"""Keys of each family whose memory is measured, at most."""

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
    "hidden",
    "expires",
    "variants",
    "ranker",
    "tried",
    "served",
)
"""Keys of which a group has one each, and whose size grows with their content."""

LOG = logging.getLogger(__name__)

EVICTING = re.compile(r"^(allkeys|volatile)-")

_NAME = re.compile(r"^\{[^}]*\}:(?P<family>[A-Za-z_-]+)")


class Memory(msgspec.Struct, frozen=True):
    """Memory of a Redis server: bytes in use, its limit (0: none), and its eviction policy.

    With any other policy than `noeviction` a full server drops learned state.
    """

    used_bytes: int = 0
    limit_bytes: int = 0
    policy: str = "noeviction"


class Family(msgspec.Struct):
    """Approximate number and bytes of the keys of one kind, of all groups."""

    keys: int
    bytes: int


async def read_memory(client: RedisClient) -> Memory:
    """Memory as the server reports it."""
    told = await client.info("memory")
    return Memory(told["used_memory"], told["maxmemory"], told["maxmemory_policy"])


def shortages(memory: Memory) -> list[str]:
    """A sentence for operators while the server is full and refuses writes; else nothing."""
    is_full = memory.limit_bytes and memory.used_bytes >= memory.limit_bytes
    if not is_full or EVICTING.match(memory.policy):
        return []
    used = f"{memory.used_bytes} of {memory.limit_bytes} bytes"
    return [f"Redis is full ({used}): events wait in Kafka until there is room; raise maxmemory"]


def risks(memory: Memory) -> list[str]:
    """A sentence for operators if the eviction policy may drop state; else nothing."""
    if not EVICTING.match(memory.policy):
        return []
    lost = "at its limit it drops what was learned without a word"
    return [f"Redis has maxmemory-policy {memory.policy}: {lost}; set it to noeviction"]


async def read_families(store: Store) -> dict[str, Family]:
    """Families of keys of all groups, largest first; `other` are keys of no group.

    A few hundred commands at most, whatever the store holds. Empty where the server does not
    permit the commands.
    """
    try:
        n_keys = int(await store.redis.dbsize())
        groups = {store.settings.group, *await registered_groups(store.redis)}
        single = [f"{{{group}}}:{name}".encode() for group in sorted(groups) for name in SINGLE]
        sampled = await sample_keys(store)
        families = await _families(store, sampled - set(single), n_keys, len(sampled))
        for key, size in (await _sizes(store, single)).items():
            _add(families, _family(key), 1, size)
    except ResponseError as error:
        LOG.warning("Redis does not tell the memory of its keys: %s", error)
        return {}
    return dict(sorted(families.items(), key=lambda one: (-one[1].bytes, one[0])))


async def sample_keys(store: Store) -> set[bytes]:
    """Some keys of the server that holds a group, `SCANNED` or a few more; all if it has fewer."""
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
    """Families of all keys, extrapolated from a sample."""
    by_name: dict[str, list[bytes]] = defaultdict(list)
    for key in sorted(sampled):
        by_name[_family(key)].append(key)
    # Keys of similar names are of similar size: the measured ones are spread over all.
    measured = {name: keys[:: -(-len(keys) // MEASURED)] for name, keys in by_name.items()}
    sizes = await _sizes(store, [key for keys in measured.values() for key in keys])
    families = {}
    for name, keys in by_name.items():
        known = [sizes[key] for key in measured[name] if key in sizes]
        n = round(len(keys) * max(1.0, n_keys / max(1, n_sampled)))
        families[name] = Family(n, round(n * sum(known) / len(known)) if known else 0)
    return families


async def _sizes(store: Store, keys: Iterable[bytes]) -> dict[bytes, int]:
    """Bytes of each key that exists."""
    asked = list(keys)
    pipe = store.redis.pipeline(transaction=False)
    for key in asked:
        pipe.memory_usage(key, samples=5)
    found = await pipe.execute() if asked else []
    return {key: int(size) for key, size in zip(asked, found, strict=True) if size is not None}


def _family(key: bytes) -> str:
    """The part of a key's name behind the group.

    >>> _family(b"{shop}:history:u:ada"), _family(b"{recommender}:groups"), _family(b"mine")
    ('history', 'groups', 'other')
    """
    match = _NAME.match(key.decode(errors="replace"))
    return match["family"] if match else "other"


def _add(families: dict[str, Family], name: str, keys: int, size: int) -> None:
    before = families.get(name, Family(0, 0))
    families[name] = Family(before.keys + keys, before.bytes + size)
