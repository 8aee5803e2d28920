"""Interactions of a dataset group, read out of its histories."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple

from models.state.groups import scan_keys
from models.state.histories import History, unpack_history
from models.state.store import Store


class Interaction(NamedTuple):
    """One recorded event; `at_s` in Unix seconds."""

    user: str
    item: str
    type: str
    at_s: float


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
    types = await store.event_types()
    start = store.key("history:")
    seen: set[bytes] = set()
    async for keys in scan_keys(store.redis, start):
        new = [key for key in dict.fromkeys(keys) if key not in seen]
        seen.update(new)
        for one in await _read(store, new, len(start), types):
            yield one


async def sample(store: Store, *, most: int, event_type: str = "") -> InteractionSample:
    """Interactions of as many users as fit into `most`, and counts of the whole group.

    Parameters
    ----------
    event_type
        Only interactions of this type, in any case; empty: all.
    """
    found = InteractionSample(n_items=int(await store.redis.hlen(store.key("items"))))
    wanted = event_type.lower()
    async for _, own, history in histories(store):
        if wanted:
            kept = [one for one in own if one.type.lower() == wanted]
            found.n_interactions += len(kept)
        else:
            kept = own
            found.n_interactions += history.count
        found.n_users += bool(kept)
        found.n_repeating += len(kept) > 1
        if kept and len(found.interactions) + len(kept) <= most:
            found.interactions += kept
    return found


async def _read(
    store: Store, keys: list[bytes], skip: int, types: dict[int, str]
) -> list[tuple[str, list[Interaction], History]]:
    if not keys:
        return []
    owned = [unpack_history(raw) for raw in await store.redis.mget(keys)]
    indexes = sorted({index for one in owned for index in one.items.tolist() if index})
    names = dict(zip(indexes, await store.item_ids(indexes), strict=True))
    found = []
    for key, history in zip(keys, owned, strict=True):
        owner = key[skip:].decode()
        events = zip(
            history.items.tolist(), history.times.tolist(), history.types.tolist(), strict=True
        )
        own = [
            Interaction(owner, name, types.get(code, ""), at)
            for index, at, code in events
            if index and (name := names[index]) is not None
        ]
        found.append((owner, own, history))
    return found
