"""Naive meaning of the atomic step: dictionaries, and decay by its definition.

With helpers to compare a store with it: messages, replays, and the contents of a group.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from models.ranking.context_lift import unpack_counts
from models.serving.cached.cache import StateCache
from models.state import layout
from models.state.histories import History, item_indexes, unpack_history
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from tests.models.state.pair_records import unpack_pairs

NOW = 1_790_000_000
"""The present of the tests of the core, Unix seconds."""

COUNTS = {"both": layout.BOTH_COUNT, "month": layout.MONTH_COUNT, "day": layout.DAY_COUNT}
"""The counts that are stored of a pair, by name."""

Seen = tuple[int, str, int]
"""Time, item and hash of one event in a history; "-" and the item of a negative one."""


@dataclass
class Reference:
    """The state that parts lead to, with histories of at most `limit` events."""

    limit: int = 100
    watermarks: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))
    histories: dict[str, list[Seen]] = field(default_factory=dict)
    trimmed: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    recent: dict[tuple[int, str, str, int, int], set[str]] = field(
        default_factory=lambda: defaultdict(set)
    )
    owner_counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    accepted_at: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    newest_accepted_at: float = 0.0
    tombstones: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))
    erasures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    links: dict[str, str] = field(default_factory=dict)
    pairs: dict[tuple[str, str, str], list[tuple[float, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    items: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    item_purchases: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    recent_owners: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    columns: Collection[str] = ()
    context_counts: dict[str, dict[str, list[tuple[float, int]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    values: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    def apply(self, parts: Sequence[Part]) -> None:
        """Apply the messages beyond each partition's watermark, in order."""
        for part in parts:
            for message in part.messages:
                if message.offset > self.watermarks[part.field]:
                    self.watermarks[part.field] = message.offset
                    if message.erased_at:
                        self._erase(message.user_id, math.floor(message.erased_at * 1000))
                    elif message.events:
                        self._message(message)

    def _message(self, message: StoredMessage) -> None:
        events = [event for event in message.events if not self._is_erased(message, event)]
        self.counts["erased"] += len(message.events) - len(events)
        if not events:
            return
        owner = self._owner(message)
        for event in events:
            self._event(owner, event)
        self.accepted_at[owner] = max(self.accepted_at[owner], message.accepted_at)
        self.newest_accepted_at = max(self.newest_accepted_at, message.accepted_at)

    def _is_erased(self, message: StoredMessage, event: StoredEvent) -> bool:
        linked = self.links.get(message.session_id)
        owners = [f"u:{message.user_id}"]
        if not message.user_id:
            owners = [f"s:{message.session_id}", *([f"u:{linked}"] if linked else [])]
        sent_ms = event.time * 1000 + event.millisecond
        time_ms = min(sent_ms, math.floor(message.accepted_at * 1000))
        return time_ms <= max(self.tombstones[owner] for owner in owners)

    def _erase(self, user: str, until_ms: int) -> None:
        linked = [session for session, other in self.links.items() if other == user]
        for session in linked:
            del self.links[session]
        # In the script's order: events after the erasure make them owners of their items anew.
        for owner in dict.fromkeys(
            (f"u:{user}", f"s:{user}", *(f"s:{session}" for session in linked))
        ):
            self.tombstones[owner] = max(self.tombstones[owner], until_ms)
            if owner in self.histories:
                self._erase_history(owner, until_ms)

    def _erase_history(self, owner: str, until_ms: int) -> None:
        self.erasures[owner] += 1
        self.trimmed.pop(owner, None)
        # Of a history whose events were all repeated there is no count.
        self.owner_counts.pop(owner, None)
        accepted_at = self.accepted_at.pop(owner)
        for owners in self.recent_owners.values():
            owners[:] = [other for other in owners if other != owner]
        after = [seen for seen in self.histories.pop(owner) if seen[0] * 1000 > until_ms]
        if after:
            self.histories[owner] = []
            for seen in after:
                self._take(owner, seen[1])
                self.histories[owner].append(seen)
            self.owner_counts[owner] = len(after)
            self.accepted_at[owner] = accepted_at

    def _owner(self, message: StoredMessage) -> str:
        session = message.session_id
        user = message.user_id or self.links.get(session, "")
        owner = f"u:{user}" if user else f"s:{session}"
        if owner not in self.histories:
            self.histories[owner] = []
            self.counts["users" if user else "sessions"] += 1
        if message.user_id and user != session and self.links.get(session) != user:
            self._join(f"s:{session}", owner)
            self.links[session] = user
        return owner

    def _join(self, session: str, owner: str) -> None:
        self._take_in(owner, *self._take_out(session))

    def _take_out(self, session: str) -> tuple[list[Seen], list[int], int, float]:
        """A session's history, trimmed ids, count of events and time, which it has no longer."""
        for owners in self.recent_owners.values():
            owners[:] = [other for other in owners if other != session]
        return (
            self.histories.pop(session, []),
            self.trimmed.pop(session, []),
            self.owner_counts.pop(session, 0),
            self.accepted_at.pop(session, 0.0),
        )

    def _take_in(
        self, owner: str, joining: list[Seen], trimmed: list[int], count: int, joined_at: float
    ) -> None:
        self.trimmed[owner] += trimmed
        self.owner_counts[owner] += count - len(joining)
        known = self._known(owner)
        for seen in joining:
            if seen[2] not in known:
                self._take(owner, seen[1])
                self._insert(owner, seen)
                self.owner_counts[owner] += 1
        self._trim(owner)
        self.accepted_at[owner] = max(self.accepted_at[owner], joined_at)

    def _take(self, owner: str, item: str) -> None:
        if (
            item
            and not item.startswith("-")
            and all(item != seen[1] for seen in self.histories[owner])
        ):
            self.recent_owners[item].append(owner)

    def _insert(self, owner: str, seen: Seen) -> int:
        history = self.histories[owner]
        at = len(history)
        while at and history[at - 1][0] > seen[0]:
            at -= 1
        history.insert(at, seen)
        return at

    def _trim(self, owner: str) -> None:
        history = self.histories[owner]
        self.trimmed[owner] += [seen[2] for seen in history[: -self.limit]]
        del history[: -self.limit]

    def _known(self, owner: str) -> set[int]:
        """Ids of events that are recognised as the owner's when they come again."""
        last = self.trimmed[owner][-layout.TRIMMED_IDS_PER_EVENT * self.limit :]
        return {seen[2] for seen in self.histories[owner]} | set(last)

    def _is_repeated(self, owner: str, event: StoredEvent) -> bool:
        """True if the event was counted before, by this owner or with one owner unknown."""
        if event.hash in self._known(owner):
            return True
        same = (event.hash, event.item_id, event.type, event.time, event.millisecond)
        # A user who returns after an erasure counts as another one.
        user = f"{owner}#{self.erasures[owner]}" if owner.startswith("u:") else ""
        others = self.recent[same]
        if user in others or (others and not user) or "" in others:
            return True
        others.add(user)
        return False

    def _event(self, owner: str, event: StoredEvent) -> None:
        if self._is_repeated(owner, event):
            self.counts["duplicates"] += 1
            return
        if event.item_id and event.effect:
            self._insert(owner, (event.time, f"-{event.item_id}", event.hash))
            self._trim(owner)
            self.owner_counts[owner] += 1
            self.counts["events"] += 1
            self.counts["negatives"] += 1
            # It has an index, and no events.
            self.items[event.item_id] += []
            return
        self._take(owner, event.item_id)
        at = self._insert(owner, (event.time, event.item_id, event.hash))
        history = self.histories[owner][:at]
        before = [item for _, item, _ in history if not item.startswith("-")]
        self._trim(owner)
        self.owner_counts[owner] += 1
        self.counts["events"] += 1
        self.counts["purchases"] += event.is_purchase
        if not event.item_id:
            return
        weight = 2.0**event.log2_weight
        if not before or before[-1] != event.item_id:
            self._pairs(event.item_id, before, weight, event.time)
        self.items[event.item_id].append((weight, event.time))
        self.item_purchases[event.item_id] += event.is_purchase
        self._context_counts(event, weight)

    def _context_counts(self, event: StoredEvent, weight: float) -> None:
        for column in event.context.keys() & set(self.columns):
            known = self.values[column]
            self.context_counts[column][event.item_id].append((weight, event.time))
            for value in event.context[column]:
                name = f"{column}={value}"
                self.context_counts[name][event.item_id].append((weight, event.time))
                known[value] = max(known.get(value, 0), event.time)

    def _pairs(self, item: str, before: list[str], weight: float, time: int) -> None:
        window: list[str] = []
        for other in reversed(before[-3 * layout.WINDOW :]):
            if other and other != item and other not in window:
                window.append(other)
        for distance, other in enumerate(window[: layout.WINDOW]):
            faded = weight * layout.FADE**distance
            if distance == 0:
                self.pairs[other, item, "next"].append((faded, time))
            self.pairs[other, item, "after"].append((faded, time))
            self.pairs[item, other, "before"].append((faded, time))
            for channel in ("day", "month"):
                self.pairs[other, item, channel].append((faded, time))
                self.pairs[item, other, channel].append((faded / 2, time))


def decayed(parts: Sequence[tuple[float, int]], now: float, half_life_s: float) -> float:
    """The sum of weights, each halved every half-life since its time."""
    return float(sum(weight * 2 ** (-(now - time) / half_life_s) for weight, time in parts))


async def history_of(store: Store, owner: str) -> History:
    """The stored history of `u:<user>` or `s:<session>`."""
    return unpack_history(await store.redis.get(store.key(f"history:{owner}")))


async def contents(store: Store) -> dict[str, Any]:
    """Every key of the group, without the group's name, and its value."""
    found: dict[str, Any] = {}
    redis = store.redis
    async for key in redis.scan_iter(match=store.prefix + "*", count=1000):
        kind = await redis.type(key)
        if kind == b"hash":
            value = await redis.hgetall(key)
        elif kind == b"zset":
            value = await redis.zrange(key, 0, -1, withscores=True)
        elif kind == b"set":
            value = await redis.smembers(key)
        else:
            value = await redis.get(key)
        found[key.decode().removeprefix(store.prefix)] = value
    return found


async def assert_same(store: Store, reference: Reference) -> None:
    """The store equals the reference, and holds nothing else."""
    counts = await store.counts()
    expected = {"items": len(reference.items), **reference.counts}
    assert {name: counts.get(name, 0) for name in expected} == expected
    assert counts.get("accepted_at", 0) == reference.newest_accepted_at
    names = await store.item_ids(range(1, len(reference.items) + 1))
    assert sorted(names, key=str) == sorted(reference.items)
    assert await store.item_indexes(list(map(str, names))) == list(range(1, len(names) + 1))
    stored = await contents(store)
    linked: dict[bytes, bytes] = {}
    for key in stored:
        if key.startswith("links:"):
            linked |= stored[key]
    assert linked == {s.encode(): user.encode() for s, user in reference.links.items()}
    owners = {key.removeprefix("history:") for key in stored if key.startswith("history:")}
    assert owners == reference.histories.keys()
    for owner, history in reference.histories.items():
        found = await history_of(store, owner)
        assert (found.count, found.accepted_at) == (
            reference.owner_counts[owner],
            reference.accepted_at[owner],
        )
        assert found.times.tolist() == [time for time, *_ in history]
        indexes = zip(item_indexes(found).tolist(), (found.items < 0).tolist(), strict=True)
        assert [
            "-" * is_negative + (str(names[item - 1]) if item else "")
            for item, is_negative in indexes
        ] == [i for _, i, _ in history]
    assert_same_pairs(stored, reference, list(map(str, names)))
    await assert_same_recent_owners(store, reference, list(map(str, names)))
    await assert_same_popularity(store, reference, list(map(str, names)))
    assert_same_context_counts(stored, reference, list(map(str, names)))


def assert_same_pairs(stored: dict[str, Any], reference: Reference, names: list[str]) -> None:
    """Exactly the reference's pairs are stored, each as exact as its codes."""
    found = {}
    for index, name in enumerate(names, 1):
        raw = stored.get(f"pairs:{index}")
        for item, own in (unpack_pairs(raw) if raw else {}).items():
            found[name, names[item - 1]] = own
    assert found.keys() == pairs_of(reference).keys()
    for pair, parts in pairs_of(reference).items():
        assert not wrong_channels(found[pair], parts), pair


PairParts = dict[str, list[tuple[float, int]]]
"""Weights and times by channel."""


def pairs_of(reference: Reference) -> dict[tuple[str, str], PairParts]:
    """The reference's pairs, with their parts by channel."""
    pairs: dict[tuple[str, str], PairParts] = defaultdict(dict)
    for (name, other, channel), parts in reference.pairs.items():
        if parts:
            pairs[name, other][channel] = parts
    return pairs


def wrong_channels(found: dict[str, float], parts: PairParts) -> dict[str, tuple[float, float]]:
    """What is stored of a pair, and what is right, where they differ by more than rounding.

    Every event rounds a count's logarithm by less than a step, and a share by less than a code. A
    count of a day may be none where it is too small beside the list's greatest.
    """
    wrong = {}
    sums = {
        name: decayed(parts.get(name, []), NOW, count.half_life_s)
        for name, count in COUNTS.items()
        if name != "both"
    }
    directions = {
        name: decayed(parts.get(name, []), NOW, layout.BOTH_COUNT.half_life_s)
        for name in ("next", "after", "before")
    }
    sums["both"] = directions["after"] + directions["before"] / 2
    n = len(parts["month"])
    for name, count in COUNTS.items():
        log2 = found[name] - (NOW - layout.EPOCH) / count.half_life_s
        is_small = name == "day" and log2 == -math.inf and sums[name] < 2**-8
        if not is_small and abs(log2 - math.log2(sums[name])) > n * count.step_log2:
            wrong[name] = (log2, math.log2(sums[name]))
    # How a new event mixes with what was depends on the rounded sum, too.
    drift = 2 ** (n * layout.BOTH_COUNT.step_log2) - 1
    shares = {name: 2 ** (found[name] - found["both"]) for name in ("after", "next")}
    for name, rounded in (("after", 1), ("next", 2)):
        expected = directions[name] / sums["both"]
        bound = n * (rounded / (layout.SHARE_CODES - 1) + drift)
        if abs(shares[name] - expected) > bound:
            wrong[name] = (shares[name], expected)
    return wrong


async def assert_same_recent_owners(store: Store, reference: Reference, names: list[str]) -> None:
    """Each item remembers its owners, in order; joined sessions have no name."""
    for index, name in enumerate(names, 1):
        raw = await store.redis.get(store.key(f"takers:{index}")) or b""
        numbers = np.frombuffer(raw, np.uint32).tolist()
        owners = [owner for owner in await store.owner_keys(numbers) if owner is not None]
        there = [owner for owner in reference.recent_owners[name] if owner in reference.histories]
        assert owners == there
        for owner, number in zip(await store.owner_keys(numbers), numbers, strict=True):
            if owner is not None:
                assert (await history_of(store, owner)).numbers == (number,)


async def assert_same_popularity(store: Store, reference: Reference, names: list[str]) -> None:
    """Counts, times and decayed popularities of each item, and the top lists of them."""
    stats = await StateCache(store).stats(np.arange(1, len(names) + 1), NOW)
    tops: dict[str, list[float]] = {name: [] for name in ("all", "recent", "new")}
    for name, row in zip(names, stats, strict=True):
        parts = reference.items[name]
        times = [time for _, time in parts]
        if not parts:
            assert not row["events"]
            continue
        counted = (len(parts), reference.item_purchases[name], min(times), max(times))
        assert tuple(row[["events", "purchases", "first", "last"]].tolist()) == counted
        for log2, half_life_s in zip(
            row["log2"], layout.POPULARITY_HALF_LIVES_S.values(), strict=True
        ):
            now = float(max(times))
            popularity = math.log2(decayed(parts, now, half_life_s))
            assert log2 - (now - layout.EPOCH) / half_life_s == pytest.approx(popularity, abs=1e-6)
        tops["all"].append(counted[0])
        tops["new"].append(counted[2])
        tops["recent"].append(counted[3])
    for top, scores in tops.items():
        ranked = await store.redis.zrange(store.key(f"top:{top}"), 0, -1, withscores=True)
        taken = [n for n, name in enumerate(names, 1) if reference.items[name]]
        assert dict(ranked) == {b"%d" % n: score for n, score in zip(taken, scores, strict=True)}


def assert_same_context_counts(
    stored: dict[str, Any], reference: Reference, names: list[str]
) -> None:
    """Counts under each context value, by item and in total, and times of values."""
    half_life_s = layout.CONTEXT_HALF_LIFE_S
    found = {
        key.removeprefix("circumstance:"): raw
        for key, raw in stored.items()
        if key.startswith("circumstance:")
    }
    assert found.keys() == reference.context_counts.keys()
    for name, by_item in reference.context_counts.items():
        counts = unpack_counts(found[name], NOW)
        items = [names[item - 1] for item in counts.items.tolist()]
        assert sorted(items) == sorted(by_item)
        for item, events in zip(items, counts.events.tolist(), strict=True):
            assert events == pytest.approx(decayed(by_item[item], NOW, half_life_s))
        everything = [part for parts in by_item.values() for part in parts]
        assert counts.total == pytest.approx(decayed(everything, NOW, half_life_s))
    for column, known in reference.values.items():
        expected = {value.encode(): b"%d" % time for value, time in known.items()}
        assert stored.get(f"values:{column}", {}) == expected


def click(item: str, number: int, time: int = NOW) -> StoredEvent:
    """A click with a hash of its own."""
    return StoredEvent(item, time, "click", 0.0, False, number + 1)


def message(offset: int, *events: StoredEvent, user: str = "", session: str = "s") -> StoredMessage:
    """One message."""
    return StoredMessage(offset, user, session, shard_of(session), 1.0 + offset, list(events))


def erasure(offset: int, user: str, at_s: float) -> StoredMessage:
    """The erasure of a user."""
    return StoredMessage(offset, user, "", 0, at_s, [], erased_at=at_s)


async def replay(
    store: Store,
    drawn: list[tuple[str, str, list[StoredEvent] | float]],
    cuts: list[tuple[int, int]],
    columns: Sequence[str] = (),
) -> None:
    """Apply a stream in batches of the sizes given, each with some of the last messages again.

    A time in place of the events is an erasure of the user at that time.
    """
    reference = Reference(store.settings.history_events, columns=columns)
    if columns:
        await store.redis.sadd(store.key("columns"), *columns)
    logs: tuple[list[StoredMessage], ...] = ([], [])
    at, sizes = 0, itertools.cycle(cuts)
    while at < len(drawn):
        size, again = next(sizes)
        starts = [len(log) for log in logs]
        for user, session, events in drawn[at : at + size]:
            log = logs[shard_of(session) % 2]
            if isinstance(events, float):
                log.append(erasure(len(log), user, events))
                continue
            one = message(len(log), *events, user=user, session=session)
            # Clocks of those who accept differ: the newest is not the last.
            log.append(one._replace(accepted_at=NOW - 2.0 + 7 * len(log) % 5))
        parts = []
        for number, (log, start) in enumerate(zip(logs, starts, strict=True)):
            parts.append(Part(f"p/{number}", start - 1, log[max(0, start - again) :]))
        reference.apply(parts)
        results, _ = await store.apply(parts, now_s=NOW)
        assert [(r.status, r.watermark) for r in results] == [
            ("applied", len(log) - 1) for log in logs
        ]
        at += size
    await assert_same(store, reference)
    before = await contents(store)
    _, counts = await store.apply(
        [Part(f"p/{number}", -1, log) for number, log in enumerate(logs)], now_s=NOW
    )
    assert not any(counts.values())
    assert await contents(store) == before
