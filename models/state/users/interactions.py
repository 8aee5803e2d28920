"""Interactions of a dataset group, read out of its histories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import require_one_shard
from models.state import layout
from models.state.groups.group_registry import scan_keys
from models.state.histories import HEAD, History, item_indexes, unpack_history
from models.state.store import Store


class Interaction(NamedTuple):
    """One recorded event; `at_s` in Unix seconds.

    A negative one is no interest in the item. An imported one is of an import in bulk, and was not
    sent singly.
    """

    user: str
    item: str
    type: str
    at_s: float
    is_negative: bool = False
    is_imported: bool = False


@dataclass
class InteractionSample:
    """Interactions of whole users, and counts of the whole group.

    Attributes
    ----------
    n_users, n_repeating, n_interactions
        Users and sessions of the group, those with two interactions or more, and interactions ever.
    n_items
        Distinct items in interactions and metadata.
    """

    interactions: list[Interaction] = field(default_factory=list)
    n_users: int = 0
    n_repeating: int = 0
    n_interactions: int = 0
    n_items: int = 0


async def histories(store: Store) -> AsyncIterator[tuple[str, list[Interaction], History]]:
    """Owner, interactions (oldest first) and history of every owner; O(keys of all groups).

    Owners are "u:<user>" or "s:<session>". Events without an item are left out. Histories change
    while this reads; each is consistent in itself.
    """
    require_one_shard(store.settings.shards, "Reading the events of all users")
    types = await store.redis.hgetall(store.key("types"))
    start = store.key("history:")
    seen: set[bytes] = set()
    async for keys in scan_keys(store.redis, start):
        new = [key for key in dict.fromkeys(keys) if key not in seen]
        seen.update(new)
        for one in await _read(store, new, len(start), types):
            yield one


async def sample(
    store: Store, *, most: int, event_types: Collection[str] = ()
) -> InteractionSample:
    """Interactions of as many users as fit into `most`, and counts of the whole group.

    Parameters
    ----------
    event_types
        Only interactions of these types, in lower case, whatever their own case; empty: all.
    """
    found = InteractionSample(n_items=await store.item_count())
    async for _, every, history in histories(store):
        own = [one for one in every if not one.is_negative]
        if event_types:
            kept = [one for one in own if one.type.lower() in event_types]
            found.n_interactions += len(kept)
        else:
            kept = own
            found.n_interactions += history.count
        found.n_users += bool(kept)
        found.n_repeating += len(kept) > 1
        if kept and len(found.interactions) + len(kept) <= most:
            found.interactions += kept
    return found


async def imported_events(
    store: Store,
) -> AsyncIterator[tuple[str, list[str], NDArray[np.uint64], NDArray[np.uint32]]]:
    """User, and types, hashes of ids and times of the user's events that were imported in bulk.

    Of every user who has some; O(keys of all groups). Times are Unix seconds.
    """
    stored = await store.redis.hgetall(store.key("types"))
    names = layout.type_names(stored)
    start = store.key("history:u:")
    seen: set[bytes] = set()
    async for keys in scan_keys(store.redis, start):
        new = [key for key in dict.fromkeys(keys) if key not in seen]
        seen.update(new)
        for key, raw in zip(new, await store.redis.mget(new) if new else [], strict=True):
            entries = np.frombuffer(raw or bytes(HEAD.size), layout.ENTRY, offset=HEAD.size)
            own = entries[entries["type"] > layout.plain_types(stored)]
            if len(own):
                # Six bytes each, as a number of eight.
                hashes = np.zeros((len(own), 8), np.uint8)
                packed = np.ascontiguousarray(own["hash"])
                hashes[:, :6] = packed.view(np.uint8).reshape(len(own), 6)
                types = [names.get(code, "") for code in own["type"].tolist()]
                times = own["time"].astype(np.uint32)
                yield key[len(start) :].decode(), types, hashes.view("<u8")[:, 0], times


async def _read(
    store: Store, keys: list[bytes], skip: int, types: Mapping[bytes, bytes]
) -> list[tuple[str, list[Interaction], History]]:
    if not keys:
        return []
    owned = [unpack_history(raw) for raw in await store.redis.mget(keys)]
    indexes = sorted({index for one in owned for index in item_indexes(one).tolist() if index})
    names = dict(zip(indexes, await store.item_ids(indexes), strict=True))
    type_names, plain = layout.type_names(types), layout.plain_types(types)
    found = []
    for key, history in zip(keys, owned, strict=True):
        owner = key[skip:].decode()
        events = zip(
            item_indexes(history).tolist(),
            history.times.tolist(),
            history.types.tolist(),
            (history.items < 0).tolist(),
            strict=True,
        )
        own = [
            Interaction(owner, name, type_names.get(code, ""), at, is_negative, code > plain)
            for index, at, code, is_negative in events
            if index and (name := names[index]) is not None
        ]
        found.append((owner, own, history))
    return found
