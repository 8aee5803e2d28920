"""Interactions of a dataset group, read out of its histories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.state import layout
from models.state.groups.group_registry import scan_keys
from models.state.histories import History, event_hashes, hash_numbers, item_indexes, unpack_history
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
    types: dict[Store, Mapping[bytes, bytes]] = {}
    async for place, keys in _history_keys(store, "history:"):
        if place not in types:
            types[place] = await place.redis.hgetall(place.key("types"))
        for one in await _read(store, keys, len(place.key("history:")), types[place]):
            yield one


async def _history_keys(store: Store, start: str) -> AsyncIterator[tuple[Store, list[bytes]]]:
    """Keys of histories whose names start so, each once, with the store that has them."""
    places = {place.key(start).encode(): place for place in store.history_stores}
    # Of all session shards at once: a scan goes through the keys of all groups.
    common = store.key(start) if len(places) == 1 else f"{{{store.settings.group}/u"
    seen: set[bytes] = set()
    async for keys in scan_keys(store.redis, common):
        new: dict[bytes, list[bytes]] = {}
        for key in dict.fromkeys(keys):
            own = key[: key.find(b"}") + 2 + len(start)]
            if own in places and key not in seen:
                new.setdefault(own, []).append(key)
        for own, some in new.items():
            seen.update(some)
            yield places[own], some


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
    async for place, keys in _history_keys(store, "history:u:"):
        stored = await place.redis.hgetall(place.key("types"))
        names, skip = layout.type_names(stored), len(place.key("history:u:"))
        for key, raw in zip(keys, await store.redis.mget(keys), strict=True):
            history = unpack_history(raw)
            is_own = history.types > layout.plain_types(stored)
            if is_own.any():
                types = [names.get(code, "") for code in history.types[is_own].tolist()]
                hashes, times = event_hashes(raw)[is_own], history.times[is_own]
                yield key[skip:].decode(), types, hash_numbers(hashes), times.astype(np.uint32)


async def _read(
    store: Store, keys: list[bytes], skip: int, types: Mapping[bytes, bytes]
) -> list[tuple[str, list[Interaction], History]]:
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
