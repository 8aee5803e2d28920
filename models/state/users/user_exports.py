"""Export of everything that a dataset group's state holds about a user.

What is exported of which family of keys stands in `EXPORTED`; `WITHOUT_USERS` says of each other
family why not. A test compares both with the keys that the modules of this package document.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from models.metadata_records import Properties, Value
from models.state import layout
from models.state.histories import event_hashes, item_indexes, unpack_history
from models.state.outcomes.followed_lists import followed_lists
from models.state.store import Store
from models.state.users.user_data import linked_sessions

EXPORTED: Final[Mapping[str, str]] = {
    "history": "histories, with their events",
    "forgotten": "trimmedEventIds of a history",
    "recent": "recentEventIds of a history",
    "links": "linkedSessions",
    "owners": "number of a history, and linkedSessions",
    "takers": "rememberedBy of a history",
    "erased": "erasures",
    "users": "record",
    "shown": "servedLists",
    "askers": "servedLists: to whom each was served",
    "exposure": "experiments of a history's owner",
}
"""Families of keys that hold something of users: where it stands in the export."""

_COUNTS_OF_ITEMS = "of items, types or the group, with nobody's name"
_POSITIONS = "how far something is in Kafka, and counts"

WITHOUT_USERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "counts", "items", "ids", "types", "pairs", "stats", "columns", "values",
            "circumstance", "top", "updated", "properties", "categories", "category", "hidden",
            "expires", "variants", "tried", "changed", "terms", "term", "split",
        ),
        _COUNTS_OF_ITEMS,
    ),
    **dict.fromkeys(("watermarks", "witnesses", "forward", "emitted", "sources"), _POSITIONS),
    **dict.fromkeys(
        ("shards", "reshard", "frozen", "copied"), "on how many shards it is, and who moves it"
    ),
    "outbox": "what is on its way between shards, mostly for milliseconds: exported where it goes",
    "ranker": "weights, learned from all",
    "factors": "vectors of items, learned from all",
    "awaited": "hashes of events that name a list which is not known, with nobody's name",
    "outcomes": "counts by placement, arm, recipe, reason and position",
    "experiment": "sums over users, with nobody's name",
    "served": "lists of items by recommendationId; who asked for one is not kept",
    "batch": "runs of the pipeline",
    "figures": "rates and means of all",
    **dict.fromkeys(
        ("placements", "segments"), "configurations, and names of the keys that saved them"
    ),
    "experiments": "plans, and names of the keys that saved them",
    "unreadable": "where a reader stands still",
    "workers": "names of workers, and their partitions",
}  # fmt: skip
"""Families of keys of a group that hold nothing of a user, and why."""

OWNERS_PER_READ = 20
"""Histories that are read at once: 20 of 1,000 events are 300 KB."""

Digest = Annotated[str, Meta(description="Hash of an eventId, 5 bytes as hexadecimal digits.")]


class ExportedEvent(msgspec.Struct, frozen=True, rename="camel"):
    """An event of a history."""

    item_id: Annotated[str | None, Meta(description="null for an event without an item.")]
    event_type: Annotated[str | None, Meta(description="null if its type has no name of its own.")]
    occurred_at: Annotated[int, Meta(description="Unix seconds.")]
    event_id: Digest


class ExportedList(msgspec.Struct, frozen=True, rename="camel"):
    """A list that was served to the user or session, lately."""

    recommendation_id: str
    served_at: Annotated[float, Meta(description="Unix seconds.")]
    placement: str
    items: Annotated[list[str], Meta(description="In order; those that are known.")]
    taken: Annotated[list[str], Meta(description="Items that were clicked or bought since.")]


class ExportedExposure(msgspec.Struct, frozen=True, rename="camel"):
    """An experiment that the user or session was part of."""

    experiment: str
    arm: str
    clicks: int
    conversions: int
    value: float


class ExportedOutcomes(msgspec.Struct, frozen=True, rename="camel"):
    """Lists served to an owner: the user, the session of that name, or a linked session."""

    owner: Literal["user", "session"]
    id: str
    served_lists: list[ExportedList]
    experiments: list[ExportedExposure]


class ExportedHistory(msgspec.Struct, frozen=True, rename="camel"):
    """A history: of the user, of the session of that name, or of a linked session."""

    owner: Literal["user", "session"]
    id: str
    number: Annotated[int, Meta(description="Number by which items remember the owner.")]
    event_count: Annotated[int, Meta(description="Events ever applied, trimmed ones included.")]
    accepted_at: Annotated[float, Meta(description="Time of the newest, Unix seconds.")]
    events: Annotated[list[ExportedEvent], Meta(description="Oldest first.")]
    trimmed_event_ids: Annotated[
        list[Digest], Meta(description="Of events that are no longer in the history.")
    ]
    recent_event_ids: Annotated[
        list[Digest], Meta(description="Of those by which repetitions are recognised.")
    ]
    remembered_by: Annotated[
        list[str],
        Meta(description="Items of the events that have the number among their last owners."),
    ]


class ExportedRecord(msgspec.Struct, frozen=True, rename="camel"):
    """The user's metadata record."""

    properties: dict[str, Value]
    updated_at: Annotated[float, Meta(description="Unix seconds.")]


class ExportedErasure(msgspec.Struct, frozen=True, rename="camel"):
    """A tombstone, which keeps erased events from coming again."""

    owner: Literal["user", "session"]
    id: str
    erased_until: Annotated[float, Meta(description="Unix seconds.")]


class UserExport(msgspec.Struct, frozen=True, rename="camel"):
    """Everything that is held about a user; empty for an unknown one."""

    group: str
    user_id: str
    exported_at: Annotated[float, Meta(description="Unix seconds.")]
    record: Annotated[ExportedRecord | None, Meta(description="null without metadata.")]
    linked_sessions: list[str]
    erasures: list[ExportedErasure]
    served: Annotated[list[ExportedOutcomes], Meta(description="Lists that are followed.")]
    action_histories: Annotated[
        list[ExportedHistory], Meta(description="Interactions with actions, which are the items.")
    ]
    histories: list[ExportedHistory]


async def export_user(
    store: Store, actions: Store, user_id: str, *, now_s: float
) -> AsyncIterator[bytes]:
    """A `UserExport` as JSON in pieces, the first of them without histories.

    `actions` is the state of the group's actions. A piece has at most `OWNERS_PER_READ` histories,
    so memory is bounded however many sessions are linked. It is read in several steps: what takes
    effect meanwhile may be in it or not.
    """
    sessions = await linked_sessions(store, user_id, now_s=now_s)
    owners = _owners(user_id, sessions)
    raw = await store.redis.hget(store.user_store(user_id).key("users"), user_id)
    until = await store.erased_until(owners)
    erasures = [
        ExportedErasure(*_named(owner), at) for owner, at in zip(owners, until, strict=True) if at
    ]
    served = [one for owner in owners if (one := await _served(store, owner)) is not None]
    head = UserExport(
        store.settings.group, user_id, now_s, _record(raw), sessions, erasures, served, [], []
    )
    yield msgspec.json.encode(head).removesuffix(b'],"histories":[]}')
    of_actions = _owners(user_id, await linked_sessions(actions, user_id, now_s=now_s))
    async for piece in _pieces(actions, of_actions):
        yield piece
    yield b'],"histories":['
    async for piece in _pieces(store, owners):
        yield piece
    yield b"]}"


def _owners(user_id: str, sessions: Sequence[str]) -> list[str]:
    return [f"u:{user_id}", *(f"s:{name}" for name in dict.fromkeys([user_id, *sessions]))]


async def _pieces(store: Store, owners: Sequence[str]) -> AsyncIterator[bytes]:
    """Histories of owners as JSON, without the brackets of the list."""
    is_first = True
    for at in range(0, len(owners), OWNERS_PER_READ):
        found = await _histories(store, owners[at : at + OWNERS_PER_READ])
        if found:
            encoded = msgspec.json.encode(found)[1:-1]
            yield encoded if is_first else b"," + encoded
            is_first = False


async def _served(store: Store, owner: str) -> ExportedOutcomes | None:
    """Lists and experiments of an owner as outcomes.lua keeps them; None without any."""
    lists = await followed_lists(store, [owner])
    exposure = await store.redis.get(store.key(f"exposure:{owner}"))
    arms: dict[str, Any] = (msgspec.msgpack.decode(exposure) if exposure else None) or {}
    if not lists and not arms:
        return None
    exported = [
        ExportedList(
            one.recommendation_id,
            one.served_at,
            one.placement,
            [item.item_id for item in one.items],
            [item.item_id for item in one.items if item.is_clicked or item.is_bought],
        )
        for one in lists
    ]
    experiments = [
        ExportedExposure(name, arm, int(clicks), int(conversions), value / 1000)
        for name, (arm, _, _, clicks, conversions, value) in arms.items()
    ]
    return ExportedOutcomes(*_named(owner), exported, experiments)


async def _histories(store: Store, owners: Sequence[str]) -> list[ExportedHistory]:
    """Histories of owners, of those that have one."""
    stored = await store.values([store.key(f"history:{owner}") for owner in owners])
    held = {owner: raw for owner, raw in zip(owners, stored, strict=True) if raw is not None}
    if not held:
        return []
    trimmed = await store.values([store.key(f"forgotten:{owner}") for owner in held])
    recent_of = {
        place: np.frombuffer(await place.redis.get(place.key("recent")) or b"", layout.RECENT_EVENT)
        for place in {store.history_store(owner) for owner in held}
    }
    types = await store.event_types()
    found = []
    for (owner, raw), ids in zip(held.items(), trimmed, strict=True):
        history, recent = unpack_history(raw), recent_of[store.history_store(owner)]
        (number,) = history.numbers
        items = item_indexes(history)
        distinct = np.unique(items[items > 0]).tolist()
        names = dict(zip(distinct, await store.item_ids(distinct), strict=True))
        last_owners = await store.recent_owners(distinct)
        found.append(
            ExportedHistory(
                *_named(owner),
                number,
                history.count,
                history.accepted_at,
                [
                    ExportedEvent(names.get(item), types.get(code), time, event_id)
                    for item, code, time, event_id in zip(
                        items.tolist(),
                        history.types.tolist(),
                        history.times.tolist(),
                        _digests(event_hashes(raw)),
                        strict=True,
                    )
                ],
                _digests(np.frombuffer(ids or b"", layout.EVENT_HASH)),
                _digests(recent["hash"][recent["owner"] == number]),
                [
                    names[item] or ""
                    for item, numbers in zip(distinct, last_owners, strict=True)
                    if number in numbers
                ],
            )
        )
    return found


def _named(owner: str) -> tuple[Literal["user", "session"], str]:
    """Kind and id of "u:<user>" or "s:<session>"."""
    return ("user" if owner.startswith("u:") else "session"), owner[2:]


def _digests(hashes: NDArray[np.void]) -> list[str]:
    raw, size = hashes.tobytes(), hashes.itemsize
    return [raw[at : at + size].hex() for at in range(0, len(raw), size)]


def _record(raw: bytes | None) -> ExportedRecord | None:
    if raw is None:
        return None
    updated_at, *_ = layout.RECORD_HEAD.unpack_from(raw)
    text = memoryview(raw)[layout.RECORD_HEAD.size :]
    properties: Properties = msgspec.json.decode(text)
    return ExportedRecord(dict(properties), updated_at)
