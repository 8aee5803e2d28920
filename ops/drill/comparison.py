"""The state that a drill has led to, beside that of an undisturbed run of the same messages.

The undisturbed run applies what Kafka has, one partition after the other, to a group of its own.
What depends on the order in which partitions are read is not compared: it differs between any two
runs. Both states are read by names, for items and owners are numbered as they come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from models.retrieval.covisitation import unpack_neighbours
from models.serving.cached.cache import StateCache
from models.settings import Settings
from models.state import layout
from models.state.groups.group_registry import erase_group, scan_keys
from models.state.histories import item_indexes
from models.state.messages import Part
from models.state.store import Store
from models.state.users.user_data import user_data_counts
from ops.drill.event_log import ERASED, ERASED_ITEMS, Log, SeenEvent
from ops.drill.reads import stored
from ops.drill.script import ORDERED_ITEM

K = TypeVar("K")
V = TypeVar("V")

AT_ONCE = 200
"""Messages of a step of the undisturbed run, and owners of a read."""

TOPS = ("all", "recent", "new")
DROPPED = ("duplicates", "erased")
"""Counters of events that take no effect, and count whenever they are read."""

COUNTERS = ("events", "purchases", "negatives", "items", "users", "sessions", *DROPPED)


@dataclass
class Findings:
    """Differences; all empty if nothing was lost or doubled.

    Attributes
    ----------
    unacknowledged_loss
        Ids of acknowledged events that Kafka does not have, though it did not lose them by a fault.
    n_messages, n_compared
        Messages in Kafka, and values that were compared.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unacknowledged_loss: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    n_messages: int = 0
    n_compared: Counter[str] = field(default_factory=Counter)

    def is_clean(self) -> bool:
        """True without differences."""
        return not (self.lost or self.doubled or self.unacknowledged_loss or self.other)

    def differ(self, what: str, found: float, expected: float) -> None:
        """Take note of a count that is not what it should be."""
        where = self.doubled if found > expected else self.lost
        where.append(f"{what}: {found:g}, not {expected:g}")


class OwnerHistory(NamedTuple):
    """Events of a user or a session by time and item, and the count of all there were."""

    events: Counter[tuple[int, str]]
    n_ever: int


class ItemCounts(NamedTuple):
    """Counts of an item: exact ones, and logarithms of decayed popularities."""

    events: int
    purchases: int
    first: int
    last: int
    popularity: tuple[float, ...]


class ComparedState(NamedTuple):
    """All of a group's state that two runs of the same messages have in common, by names.

    Attributes
    ----------
    links
        Users of sessions.
    tops
        Scores of the items of each top list.
    neighbours
        Items beside those of which all events have an order.
    """

    counters: dict[str, float]
    histories: dict[str, OwnerHistory]
    links: dict[str, str]
    items: dict[str, ItemCounts]
    tops: dict[str, dict[str, float]]
    neighbours: dict[str, frozenset[str]]


def compare(settings: Settings, log: Log, erased: Iterable[str], findings: Findings) -> None:
    """Add what differs between the group of the settings and an undisturbed run of the log."""
    other = settings.model_copy(update={"group": f"{settings.group}-undisturbed"})
    found = stored(settings, state_of)
    try:
        stored(other, lambda store: apply_undisturbed(store, log))
        expected = stored(other, state_of)
    finally:
        stored(other, lambda store: erase_group(store.redis, other.group))
    _compare_counters(found, expected, log, findings)
    _compare_histories(found, expected, log, findings)
    _compare_items(found, expected, findings)
    _same("links", found.links, expected.links, findings)
    # Longer ones are cut, and the items of users who are erased stand in one of the two.
    for name in TOPS if found.counters["items"] <= layout.TOPS else ():
        _same(f"top list {name}", found.tops[name], expected.tops[name], findings)
    _same("neighbours", found.neighbours, expected.neighbours, findings)
    stored(settings, lambda store: _compare_erased(store, erased, findings))


async def apply_undisturbed(store: Store, log: Log) -> None:
    """Apply a log's messages to a group without state, each once, by the step that workers take."""
    now_s = max((m.accepted_at for own in log.messages.values() for m in own), default=0.0)
    for (topic, partition), messages in log.messages.items():
        for at in range(0, len(messages), AT_ONCE):
            part = Part(f"{topic}/{partition}", at - 1, messages[at : at + AT_ONCE])
            ((status, *_),), _ = await store.apply([part], now_s=now_s)
            if status != "applied":
                raise RuntimeError(f"the undisturbed run: {part.field} from {at} is {status}")


async def state_of(store: Store) -> ComparedState:
    """The state of a group; without what there is of erased users."""
    names = {
        int(index): name.decode()
        for name, index in (await store.redis.hgetall(store.key("items"))).items()
        if not name.startswith(ERASED_ITEMS.encode())
    }
    counts = await store.counts()
    return ComparedState(
        {name: counts.get(name, 0.0) for name in COUNTERS},
        await _histories(store, names),
        await _links(store),
        await _items(store, names),
        {name: await _top(store, name, names) for name in TOPS},
        await _neighbours(store, names),
    )


async def _histories(store: Store, names: Mapping[int, str]) -> dict[str, OwnerHistory]:
    prefix = store.key("history:")
    found: dict[str, OwnerHistory] = {}
    async for keys in scan_keys(store.redis, prefix):
        owners = [key.decode().removeprefix(prefix) for key in keys]
        owners = [owner for owner in owners if not owner[2:].startswith(ERASED)]
        for owner, own in zip(owners, await store.histories(owners), strict=True):
            there = zip(own.times.tolist(), item_indexes(own).tolist(), strict=True)
            events = Counter((time, names.get(item, "?")) for time, item in there)
            found[owner] = OwnerHistory(events, own.count)
    return found


async def _links(store: Store) -> dict[str, str]:
    found: dict[str, str] = {}
    async for keys in scan_keys(store.redis, store.key("links:")):
        for key in keys:
            for session, user in (await store.redis.hgetall(key)).items():
                if not user.startswith(ERASED.encode()):
                    found[session.decode()] = user.decode()
    return found


async def _items(store: Store, names: Mapping[int, str]) -> dict[str, ItemCounts]:
    rows = await StateCache(store).stats(np.array(list(names), np.int64), 0.0)
    return {
        name: ItemCounts(
            int(row["events"]),
            int(row["purchases"]),
            int(row["first"]),
            int(row["last"]),
            tuple(row["log2"].tolist()),
        )
        for name, row in zip(names.values(), rows, strict=True)
    }


async def _top(store: Store, name: str, names: Mapping[int, str]) -> dict[str, float]:
    ranked = await store.redis.zrange(store.key(f"top:{name}"), 0, -1, withscores=True)
    return {names[int(index)]: score for index, score in ranked if int(index) in names}


async def _neighbours(store: Store, names: Mapping[int, str]) -> dict[str, frozenset[str]]:
    """Only those of users with ordered events; those of others depend on the partitions' order."""
    found = {}
    for index, name in names.items():
        if name.startswith(ORDERED_ITEM):
            raw = await store.redis.get(store.key(f"pairs:{index}")) or b""
            beside = unpack_neighbours(raw, 0.0).items.tolist()
            found[name] = frozenset(names.get(item, "?") for item in beside)
    return found


def _compare_counters(
    found: ComparedState, expected: ComparedState, log: Log, findings: Findings
) -> None:
    findings.n_compared["counters"] = len(COUNTERS)
    for name, count in expected.counters.items():
        own = found.counters[name]
        is_open = log.has_lost_tails and name in DROPPED
        most = math.inf if is_open else count + log.n_erasable
        if not count <= own <= most:
            if name in DROPPED:
                findings.other.append(f"counter {name}: {own:g}, not {count:g}")
            else:
                findings.differ(f"counter {name}", own, count)


def _compare_histories(
    found: ComparedState, expected: ComparedState, log: Log, findings: Findings
) -> None:
    none = OwnerHistory(Counter(), 0)
    findings.n_compared["histories"] = len(expected.histories)
    for owner in sorted(expected.histories.keys() | found.histories.keys()):
        there = found.histories.get(owner, none)
        wanted = expected.histories.get(owner, none)
        findings.lost += _described(owner, wanted.events - there.events, log)
        findings.doubled += _described(owner, there.events - wanted.events, log)
        if there.events == wanted.events and there.n_ever != wanted.n_ever:
            findings.differ(f"events of {owner}", there.n_ever, wanted.n_ever)


def _described(owner: str, events: Counter[tuple[int, str]], log: Log) -> list[str]:
    """Each event with its id and where Kafka has it."""
    described = []
    for time, item in events:
        user = owner.partition(":")[2]
        seen = (SeenEvent(name, time, item) for name in (user, user.removeprefix("u-")))
        event_id = next((log.names[one] for one in seen if one in log.names), "an unknown event")
        where = ", ".join("/".join(map(str, p)) for p in log.positions.get(event_id, []))
        described.append(f"{event_id} of {owner}, item {item}, at {where or 'no place in Kafka'}")
    return described


def _compare_items(found: ComparedState, expected: ComparedState, findings: Findings) -> None:
    findings.n_compared["items"] = len(expected.items)
    for name in sorted(expected.items.keys() | found.items.keys()):
        there, wanted = found.items.get(name), expected.items.get(name)
        if there is None or wanted is None:
            findings.differ(f"item {name}", there is not None, wanted is not None)
        elif there.events != wanted.events:
            findings.differ(f"events of item {name}", there.events, wanted.events)
        elif there[:4] != wanted[:4]:
            findings.other.append(f"item {name}: {there[:4]}, not {wanted[:4]}")
        elif not np.allclose(there.popularity, wanted.popularity, rtol=0, atol=1e-6):
            findings.other.append(f"popularity of item {name}: {there[4]}, not {wanted[4]}")


def _same(what: str, found: Mapping[K, V], expected: Mapping[K, V], findings: Findings) -> None:
    findings.n_compared[what] = len(expected)
    for name in sorted(found.keys() | expected.keys(), key=str):
        there, wanted = found.get(name), expected.get(name)
        if there != wanted:
            findings.other.append(f"{what}, {name}: {there}, not {wanted}")


async def _compare_erased(store: Store, erased: Iterable[str], findings: Findings) -> None:
    """Erased users have no data left, and events on their items are counted once."""
    for user in erased:
        held = await user_data_counts(store, user, now_s=0.0)
        found = sum(held.values())
        for number in range(5):
            found += await store.redis.exists(store.key(f"history:s:{user}-{number}"))
        if found:
            findings.other.append(f"{user} was erased, and there is: {held}")
    known = await store.redis.hgetall(store.key("items"))
    items = {
        name: int(index) for name, index in known.items() if name.startswith(ERASED_ITEMS.encode())
    }
    if items:
        stats = await StateCache(store).stats(np.array(list(items.values()), np.int64), 0.0)
        for name, count in zip(items, stats["events"].tolist(), strict=True):
            if count > 1:
                findings.doubled.append(f"item {name.decode()} of somebody erased: {count} times")
