"""Naive meaning of a sharded group: the reference, with links and so on of each shard."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.state import layout
from models.state.histories import item_indexes
from models.state.messages import StoredMessage
from models.state.shards.merged_lists import merged_lists
from models.state.shards.shard_names import (
    DeltaRun,
    history_shard,
    item_shard,
    message_shard,
    owner_shard,
)
from models.state.shards.sharded_steps import ShardedSteps
from models.state.shards.split_lists import list_shards, splits_of
from models.state.shards.stored_layout import ShardLayout
from models.state.store import Store
from tests.models.state.pair_records import unpack_pairs
from tests.models.state.reference import (
    NOW,
    Reference,
    assert_same_context_counts,
    contents,
    decayed,
    history_of,
    pairs_of,
    wrong_channels,
)

Delta = Callable[[], None]


class ShardedReference(Reference):
    """What messages and deltas lead to, each applied once by its shard, in the order given.

    Items are not sharded here: sums do not depend on where they stand.
    """

    def __init__(self, shards: int, **more: Any) -> None:
        super().__init__(**more)
        self.shards = shards
        self._of_shards = [
            (dict[str, str](), defaultdict[str, int](lambda: -1), defaultdict[Any, set[str]](set))
            for _ in range(shards)
        ]
        self._here = 0
        self._source, self._offset = "", -1
        self._waiting: dict[tuple[int, str], list[tuple[int, Delta]]] = defaultdict(list)
        self._marks: dict[tuple[int, str], int] = defaultdict(lambda: -1)

    def apply_events(self, shard: int, field: str, messages: list[StoredMessage]) -> None:
        """Apply messages of a partition that belong to a session shard, those beyond its mark."""
        self._enter(shard)
        for message in messages:
            assert message_shard(message, self.shards) == shard
            if message.offset > self._marks[shard, field]:
                self._marks[shard, field] = message.offset
                self._source, self._offset = f"u{shard:02d}/{field}", message.offset
                self._apply_one(message)

    def apply_deltas(self, shard: int, field: str, offset: int, runs: list[DeltaRun]) -> None:
        """Apply a message of the topic of deltas in a session shard."""
        if offset <= self._marks[shard, field]:
            return
        self._enter(shard)
        self._marks[shard, field] = offset
        for run in runs:
            mark = self._marks[shard, run.source]
            misses = any(self._marks[shard, other] < at for other, at in run.needs)
            if mark < run.previous or misses:
                continue
            for at, delta in self._waiting[shard, run.source]:
                if mark < at <= run.last:
                    self._source, self._offset = f"u{shard:02d}/{field}", offset
                    delta()
            self._marks[shard, run.source] = max(mark, run.last)

    def _enter(self, shard: int) -> None:
        self._here = shard
        self.links, self.tombstones, self.recent = self._of_shards[shard]

    def _put(self, name: str, delta: Delta) -> None:
        waiting = self._waiting[owner_shard(name, self.shards), self._source]
        waiting.append((self._offset, delta))

    def _is_elsewhere(self, name: str) -> bool:
        return owner_shard(name, self.shards) != self._here

    def _apply_one(self, message: StoredMessage) -> None:
        if message.erased_at:
            self._erase(message.user_id, math.floor(message.erased_at * 1000))
            return
        user = "" if message.user_id else self.links.get(message.session_id, "")
        if not user or not self._is_elsewhere(user):
            self._message(message)
            return
        events = [event for event in message.events if not self._is_erased(message, event)]
        self.counts["erased"] += len(message.events) - len(events)
        if events:
            forwarded = message._replace(user_id=user, session_id=user, events=events)
            self._put(user, lambda: self._message(forwarded))

    def _owner(self, message: StoredMessage) -> str:
        session, user = message.session_id, message.user_id
        before = self.links.get(session)
        owner = super()._owner(message)
        if user and user not in (session, before) and self._is_elsewhere(session):
            accepted_ms = math.floor(message.accepted_at * 1000)
            self._put(session, lambda: self._link(session, user, accepted_ms))
        return owner

    def _join(self, session: str, owner: str) -> None:
        # The history of a session of another shard comes when that shard has the link.
        if not self._is_elsewhere(session.removeprefix("s:")):
            super()._join(session, owner)

    def _link(self, session: str, user: str, accepted_ms: int) -> None:
        until_ms = self.tombstones[f"u:{user}"]
        if accepted_ms <= until_ms:
            self._erase_session(session, until_ms)
            return
        before = self.links.get(session, user)
        if before != user and self._is_elsewhere(before):
            self._put(before, lambda: self._unlink(session, before))
        self.links[session] = user
        if f"s:{session}" in self.histories:
            taken = self._take_out(f"s:{session}")
            self._put(user, lambda: self._take_joining(user, *taken))

    def _take_joining(
        self, user: str, joining: list[Any], trimmed: list[int], count: int, joined_at: float
    ) -> None:
        until_ms = self.tombstones[f"u:{user}"]
        kept = [seen for seen in joining if seen[0] * 1000 > until_ms]
        if len(kept) < len(joining):
            trimmed, count = [], len(kept)
        if not kept and not trimmed:
            return
        if f"u:{user}" not in self.histories:
            self.histories[f"u:{user}"] = []
            self.counts["users"] += 1
        self._take_in(f"u:{user}", kept, trimmed, count, joined_at)

    def _unlink(self, session: str, user: str) -> None:
        if self.links.get(session) == user:
            del self.links[session]

    def _erase_session(self, session: str, until_ms: int) -> None:
        owner = f"s:{session}"
        self.tombstones[owner] = max(self.tombstones[owner], until_ms)
        if owner in self.histories:
            self._erase_history(owner, until_ms)

    def _erase(self, user: str, until_ms: int) -> None:
        for session, other in list(self.links.items()):
            if other == user and self._is_elsewhere(session):
                del self.links[session]
                self._put(session, self._erasing(session, user, until_ms))
        super()._erase(user, until_ms)

    def _erasing(self, session: str, user: str, until_ms: int) -> Delta:
        def erase() -> None:
            if self.links.get(session) == user:
                del self.links[session]
                self._erase_session(session, until_ms)
            owner = f"u:{user}"
            self.tombstones[owner] = max(self.tombstones[owner], until_ms)

        return erase

    def all_links(self) -> list[dict[str, str]]:
        """Links from sessions to users, by shard."""
        return [links for links, *_ in self._of_shards]


def shard_store(steps: ShardedSteps, kind: Any, shard: int) -> Store:
    """Reads the keys of one shard."""
    store = Store(steps.redis, steps.settings)
    one = ShardLayout(steps.shards, steps.settings.generation)
    store.prefix = one.prefixes(steps.settings.group, kind)[shard]
    return store


async def assert_same_shards(
    steps: ShardedSteps,
    reference: Reference,
    links: list[dict[str, str]] | None = None,
    *,
    owners_are_same: bool = True,
) -> None:
    """The shards hold what the reference says, and nothing else; nothing is on its way."""
    n = steps.shards
    sessions = [shard_store(steps, "u", shard) for shard in range(n)]
    items = [shard_store(steps, "i", shard) for shard in range(n)]
    stored_sessions = await asyncio.gather(*map(contents, sessions))
    stored_items = await asyncio.gather(*map(contents, items))
    assert not [key for stored in stored_sessions for key in stored if key.startswith("outbox:")]
    _assert_same_counts(stored_sessions, stored_items, reference)
    names = names_of(stored_items)
    # An item whose events were all repeated or erased has an index, too.
    assert set(names.values()) >= reference.items.keys()
    for shard, stored in enumerate(stored_sessions):
        found: dict[bytes, bytes] = {}
        for key in stored:
            if key.startswith("links:"):
                found |= stored[key]
        if links is not None:
            assert found == {s.encode(): user.encode() for s, user in links[shard].items()}
        owners = {key.removeprefix("history:") for key in stored if key.startswith("history:")}
        assert owners == {o for o in reference.histories if owner_shard(o[2:], n) == shard}
    for owner, history in reference.histories.items():
        own = await history_of(sessions[owner_shard(owner[2:], n)], owner)
        assert (own.count, own.accepted_at) == (
            reference.owner_counts[owner],
            reference.accepted_at[owner],
        )
        indexes = zip(item_indexes(own).tolist(), (own.items < 0).tolist(), strict=True)
        seen = ["-" * negative + (names[item] if item else "") for item, negative in indexes]
        assert sorted(zip(own.times.tolist(), seen, strict=True)) == sorted(h[:2] for h in history)
    _assert_same_items(stored_items, reference, names)
    if owners_are_same:
        await _assert_same_owners(sessions, stored_items, reference, names)


def _assert_same_counts(
    sessions: list[dict[str, Any]], items: list[dict[str, Any]], reference: Reference
) -> None:
    counts: Counter[str] = Counter()
    for stored in sessions:
        own = {name.decode(): float(value) for name, value in stored.get("counts", {}).items()}
        counts.update({name: int(own.get(name, 0)) for name in reference.counts})
    assert +counts == +Counter(reference.counts)
    n_items = [int(stored.get("counts", {}).get(b"items", 0)) for stored in items]
    assert n_items == [len(stored.get("items", {})) for stored in items]


def names_of(items: list[dict[str, Any]]) -> dict[int, str]:
    """Item ids by index, of all item shards; each is where it belongs."""
    shards = len(items)
    names: dict[int, str] = {}
    for shard, stored in enumerate(items):
        for name, raw in stored.get("items", {}).items():
            index = int(raw)
            # An index of an earlier layout has a shard of its own.
            assert items[item_shard(index, shards)]["ids"][raw] == name
            assert owner_shard(name.decode(), shards) == shard
            names[index] = name.decode()
    assert len(names) == sum(len(stored.get("items", {})) for stored in items)
    assert len(names) == sum(len(stored.get("ids", {})) for stored in items)
    return names


def lists_of(stored_items: list[dict[str, Any]]) -> dict[int, bytes]:
    """Lists of neighbours by the item's index, of all their parts, which are where they belong."""
    splits = splits_of(stored_items[0].get("split", {}))
    parts = defaultdict[int, list[bytes | None]](list)
    for shard, stored in enumerate(stored_items):
        for key, raw in stored.items():
            if key.startswith("pairs:"):
                index = int(key.removeprefix("pairs:"))
                assert shard in list_shards(index, splits, len(stored_items))
                parts[index].append(raw)
    return {index: merged_lists(raws) or b"" for index, raws in parts.items()}


def _assert_same_items(
    stored_items: list[dict[str, Any]], reference: Reference, names: dict[int, str]
) -> None:
    found = {
        (names[index], names[other]): own
        for index, raw in lists_of(stored_items).items()
        for other, own in unpack_pairs(raw).items()
    }
    pairs = pairs_of(reference)
    assert found.keys() == pairs.keys()
    for pair, channels in pairs.items():
        assert not wrong_channels(found[pair], channels), pair
    tops: dict[bytes, float] = {}
    for stored in stored_items:
        tops |= dict(stored.get("top:all", []))
    taken = {n: own for n, name in names.items() if (own := reference.items.get(name))}
    assert tops == {b"%d" % index: len(parts) for index, parts in taken.items()}
    for index, parts in taken.items():
        page, place = divmod(index, layout.STATS_PER_PAGE)
        raw = stored_items[item_shard(index, len(stored_items))][f"stats:{page}"]
        stat = np.frombuffer(raw, layout.STAT)[place]
        times = [time for _, time in parts]
        assert tuple(stat[["events", "purchases", "first", "last"]].tolist()) == (
            len(parts),
            reference.item_purchases[names[index]],
            min(times),
            max(times),
        )
        for log2, half_life_s in zip(
            stat["log2"], layout.POPULARITY_HALF_LIVES_S.values(), strict=True
        ):
            popularity = math.log2(decayed(parts, NOW, half_life_s) or 2.0**-1000)
            if popularity > -900:
                found_log2 = log2 - (NOW - layout.EPOCH) / half_life_s
                assert found_log2 == pytest.approx(popularity, abs=1e-6)
    _assert_same_contexts(stored_items, reference, names)


def _assert_same_contexts(
    stored_items: list[dict[str, Any]], reference: Reference, names: dict[int, str]
) -> None:
    """Each shard has the counts of its own items under each value."""
    by_index = [names.get(index, "") for index in range(1, max(names, default=0) + 1)]
    for shard, stored in enumerate(stored_items):
        own = Reference(columns=reference.columns)
        for name, by_item in reference.context_counts.items():
            for item, parts in by_item.items():
                if owner_shard(item, len(stored_items)) == shard:
                    own.context_counts[name][item] = parts
        assert_same_context_counts(stored, own, by_index)


async def _assert_same_owners(
    sessions: list[Store],
    stored_items: list[dict[str, Any]],
    reference: Reference,
    names: dict[int, str],
) -> None:
    for index, name in names.items():
        raw = stored_items[item_shard(index, len(sessions))].get(f"takers:{index}", b"")
        found: list[str] = []
        for number in np.frombuffer(raw, np.uint32).tolist():
            (owner,) = await sessions[history_shard(number, len(sessions))].owner_keys([number])
            if owner is not None:
                found.append(owner)
        there = [o for o in reference.recent_owners[name] if o in reference.histories]
        assert sorted(found) == sorted(there), name
