"""Positions that are in effect in all shards, for those who wait for their own events.

A message is in effect once its session shard has applied it, and other shards what that left for
them. The first is told by watermarks; for the second the marks of what was left for each shard are
read, and the sources that it has applied are compared with them. What a delta leaves in turn, as
the history of a session that joins its user's, is waited for likewise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.at_once import at_once
from models.state.shards.shard_names import (
    DELTAS_OF_SESSIONS,
    ShardKind,
    record_field,
    shard_names,
)
from models.state.shards.sharded_store import ShardedStore
from models.state.store import Store
from models.tokens import TopicKind

HOPS = 3
"""Times at most that deltas leave deltas: a link, a history that joins, an owner's items."""


def reached_marks(store: Store) -> Callable[[Sequence[str]], Awaitable[list[int]]]:
    """A reader of the offset up to which each partition is in effect everywhere."""
    return ReachedMarks(store).read if isinstance(store, ShardedStore) else store.watermarks


def field_of_kind(store: Store) -> Callable[[TopicKind, str, int], str]:
    """Names the watermark of a partition by the kind and the incarnation of its topic."""
    kinds: dict[TopicKind, ShardKind] = {"items": "i", "users": "u"}

    def name(kind: TopicKind, incarnation: str, number: int) -> str:
        if isinstance(store, ShardedStore) and kind in kinds:
            return record_field(kinds[kind], incarnation, number)
        return f"{incarnation}/{number}"

    return name


class _Pending(NamedTuple):
    """An offset of a partition that all session shards have applied, and what they had left then.

    `left` has, by the destination's number among all shards, the offset of each source.
    """

    offset: int
    hop: int
    left: dict[int, dict[str, int]]


class ReachedMarks:
    """Reads positions that are in effect in all shards.

    It remembers by partition what was on its way: under a steady stream something always is.
    """

    def __init__(self, store: ShardedStore) -> None:
        self._store = store
        self._every = [*store.sessions, *store.items]
        self._names = shard_names(store.shards)
        self._reached: dict[str, int] = {}
        self._pending: dict[str, _Pending] = {}

    async def read(self, fields: Sequence[str]) -> list[int]:
        """Offset up to which each partition field is in effect everywhere; -1 without one."""
        self._pending = {field: one for field, one in self._pending.items() if field in fields}
        self._reached = {field: at for field, at in self._reached.items() if field in fields}
        return await at_once(map(self._read, fields))

    async def _read(self, field: str) -> int:
        try:
            return await self._read_whole(field)
        except AWAY_ERRORS:
            # With a shard away nothing is known to be in effect everywhere; without any, raise.
            await self._store.ping()
            return self._reached.get(field, -1)

    async def _read_whole(self, field: str) -> int:
        pending = self._pending.get(field)
        if pending is None:
            (mark,) = await self._store.watermarks([field])
            if mark < 0 or mark <= self._reached.get(field, -1):
                return mark
            pending = _Pending(mark, 1, await self._left_by([field]))
        while await self._are_applied(pending.left):
            has_sessions = any(number < self._store.shards for number in pending.left)
            if pending.hop == HOPS or not has_sessions:
                self._pending.pop(field, None)
                self._reached[field] = pending.offset
                return pending.offset
            left = await self._left_by(None)
            pending = _Pending(pending.offset, pending.hop + 1, left)
        self._pending[field] = pending
        return self._reached.get(field, -1)

    async def _left_by(self, fields: Sequence[str] | None) -> dict[int, dict[str, int]]:
        """Offsets of deltas that session shards have sent each shard so far, by partition.

        Without partitions: by those of deltas of other session shards.
        """
        answers = await at_once(
            self._left_by_shard(number, fields) for number in range(self._store.shards)
        )
        found: dict[int, dict[str, int]] = {}
        for of_shard in answers:
            for destination, sources in of_shard.items():
                found.setdefault(destination, {}).update(sources)
        return found

    async def _left_by_shard(
        self, number: int, fields: Sequence[str] | None
    ) -> dict[int, dict[str, int]]:
        shard, name = self._store.sessions[number], self._names[number]
        keys = [shard.key(f"emitted:{destination}") for destination in self._names]
        found: dict[int, dict[str, int]] = {}
        if fields is not None:
            sources = [f"{name}/{field}" for field in fields]
            answers = await shard.redis.reads.run(*(("HMGET", key, *sources) for key in keys))
            for destination, raws in enumerate(answers):
                own = {s: int(raw) for s, raw in zip(sources, raws, strict=True) if raw is not None}
                if own:
                    found[destination] = own
            return found
        stored = await at_once(map(shard.redis.hgetall, keys))
        start = f"{name}/{DELTAS_OF_SESSIONS}".encode()
        for destination, marks in enumerate(stored):
            own = {s.decode(): int(raw) for s, raw in marks.items() if s.startswith(start)}
            if own:
                found[destination] = own
        return found

    async def _are_applied(self, left: dict[int, dict[str, int]]) -> bool:
        """True if each shard has applied what was left for it."""
        return all(
            await at_once((self._has_applied(number, sources) for number, sources in left.items()))
        )

    async def _has_applied(self, number: int, sources: dict[str, int]) -> bool:
        shard = self._every[number]
        (raws,) = await shard.redis.reads.run(("HMGET", shard.key("sources"), *sources))
        return all(int(raw or -1) >= at for raw, at in zip(raws, sources.values(), strict=True))
