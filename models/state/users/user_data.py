"""Data of a group's users: counts, their sessions and their metadata records."""

from __future__ import annotations

from collections.abc import Sequence

from models.state.histories import unpack_history
from models.state.store import Store


async def users_with_records(store: Store, user_ids: Sequence[str]) -> set[str]:
    """The users among these that have a metadata record."""
    by_key: dict[str, list[str]] = {}
    for user_id in user_ids:
        by_key.setdefault(store.user_store(user_id).key("users"), []).append(user_id)
    found = set[str]()
    for key, own in by_key.items():
        held = await store.redis.reads.run(*(("HEXISTS", key, user_id) for user_id in own))
        found |= {user_id for user_id, is_held in zip(own, held, strict=True) if is_held}
    return found


async def user_data_counts(store: Store, user_id: str, *, now_s: float) -> dict[str, int]:
    """Counts of a user's stored data: `events`, `sessions`, `links`, `records`.

    `sessions` are histories: the user's own, and those of the user's sessions that have not
    been joined to it. All of these are 0 once an erasure is in effect.
    """
    own = [f"u:{user_id}", f"s:{user_id}"]
    sessions = await linked_sessions(store, user_id, now_s=now_s)
    owners = [*own, *(f"s:{name}" for name in sessions if name != user_id)]
    raws = await store.values([store.key(f"history:{owner}") for owner in owners])
    return {
        "events": sum(len(unpack_history(raw).items) for raw in raws),
        "sessions": sum(raw is not None for raw in raws),
        "links": len(sessions),
        "records": len(await users_with_records(store, [user_id])),
    }


async def linked_sessions(store: Store, user_id: str, *, now_s: float) -> list[str]:
    """Sessions that are linked to a user, the oldest link first."""
    return [
        name
        for name in await store.once_linked_sessions(user_id)
        if await store.linked_user(name, now_s=now_s) == user_id
    ]
