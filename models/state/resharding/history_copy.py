"""Copies histories, with their numbers and all that is kept of owners, to other session shards."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from models.settings import Settings
from models.state import layout
from models.state.clients.client import RedisClient
from models.state.resharding.copied_keys import KeyWriter, asked, pairs_of, pieces
from models.state.resharding.history_numbers import HistoryNumbers, number_of
from models.state.shards.shard_names import owner_shard
from models.state.shards.stored_layout import ShardLayout

PAGES_AT_ONCE = 8
"""Pages of owners in a piece of work: 1,024 histories."""

HISTORIES_AT_ONCE = 200
"""Histories that are read at once: up to a megabyte."""

_NUMBER_AT = 4
_NUMBER = struct.Struct("<I")


class PagesOfShard:
    """The pages of owners of one session shard, by the numbers that it has given."""

    def __init__(self, prefix: str, shard: int, shards: int, users: int, sessions: int) -> None:
        self.prefix = prefix
        self._shard, self._shards = shard, shards
        self._given = {True: users, False: sessions}

    def bound(self, *, is_user: bool) -> int:
        """Greatest number of a user, or of a session above the first session's."""
        last = number_of(self._given[is_user], self._shard, self._shards, is_user=True)
        return last + layout.OWNERS_PER_PAGE

    def pages(self) -> Iterator[int]:
        """Numbers of all its pages."""
        for is_user, given in self._given.items():
            for n in range(0, given + 1, layout.OWNERS_PER_PAGE):
                number = number_of(n, self._shard, self._shards, is_user=is_user)
                yield number // layout.OWNERS_PER_PAGE


class HistoryCopy:
    """Copies histories page by page; of the tasks of one loop.

    Parameters
    ----------
    target
        The new layout.
    numbers
        New numbers are given here.
    writer
        Makes a writer for a task.
    """

    def __init__(
        self,
        client: RedisClient,
        settings: Settings,
        target: ShardLayout,
        numbers: HistoryNumbers,
        writer: Callable[[], KeyWriter],
    ) -> None:
        self._client = client
        self._settings = settings
        self._shards = target.shards
        self._prefixes = target.prefixes(settings.group, "u")
        self._numbers = numbers
        self._writer = writer
        self.n_copied = 0

    async def copy_pages(self, prefix: str, pages: Sequence[int]) -> None:
        """Copy the histories whose owners stand on pages of a shard."""
        answers = await asked(
            self._client, *(("HGETALL", f"{prefix}owners:{page}") for page in pages)
        )
        owners: list[tuple[int, str, bytes | None]] = []
        for page, answer in zip(pages, answers, strict=True):
            fields = dict(pairs_of(answer))
            for place, owner in fields.items():
                if place.isdigit():
                    number = page * layout.OWNERS_PER_PAGE + int(place)
                    owners.append((number, owner.decode(), fields.get(place + b"s")))
        writer = self._writer()
        for some in pieces(owners, HISTORIES_AT_ONCE):
            await self._copy(prefix, some, writer)
        await writer.flush()

    async def _copy(
        self, prefix: str, owners: Sequence[tuple[int, str, bytes | None]], writer: KeyWriter
    ) -> None:
        names = [
            f"{prefix}{family}:{o}" for _, o, _ in owners for family in ("history", "forgotten")
        ]
        found = await asked(
            self._client, *(command for key in names for command in (("GET", key), ("PTTL", key)))
        )
        pages: dict[tuple[str, int, bool], list[str | int | bytes]] = {}
        for n, (old, owner, sessions) in enumerate(owners):
            history, ttl_ms, trimmed, trimmed_ttl_ms = found[4 * n : 4 * n + 4]
            if history is None or _NUMBER.unpack_from(history, _NUMBER_AT)[0] != old:
                continue  # it has expired, or its owner has another one by now
            shard = owner_shard(owner[2:], self._shards)
            target, new = self._prefixes[shard], self._numbers.give(old, shard)
            value = history[:_NUMBER_AT] + _NUMBER.pack(new) + history[_NUMBER_AT + 4 :]
            await _set(writer, target, f"history:{owner}", value, ttl_ms)
            if trimmed is not None:
                await _set(writer, target, f"forgotten:{owner}", trimmed, trimmed_ttl_ms)
            page, place = divmod(new, layout.OWNERS_PER_PAGE)
            fields = pages.setdefault((target, page, owner.startswith("u:")), [])
            fields += [place, owner]
            if sessions is not None:
                fields += [f"{place}s", sessions]
            self.n_copied += 1
        for (target, page, is_user), fields in pages.items():
            ttl_s = self._settings.user_ttl_s if is_user else self._settings.session_ttl_s
            await writer.put(target, "HSET", f"owners:{page}", *fields)
            await writer.put(target, "EXPIRE", f"owners:{page}", 2 * ttl_s)


async def _set(writer: KeyWriter, prefix: str, name: str, value: bytes, ttl_ms: int) -> None:
    expiry = ("PX", ttl_ms) if ttl_ms > 0 else ()
    await writer.put(prefix, "SET", name, value, *expiry)


class LinkCopy:
    """Copies links from sessions to users: to the session's shard, and to the user's."""

    def __init__(
        self,
        client: RedisClient,
        settings: Settings,
        source: ShardLayout,
        target: ShardLayout,
        writer: Callable[[], KeyWriter],
    ) -> None:
        self._client = client
        self._ttl_s = settings.session_ttl_s
        self._source = source.prefixes(settings.group, "u")
        self._target = target.prefixes(settings.group, "u")
        self._writer = writer

    def keys(self, now_s: float) -> list[str]:
        """Names of the hashes of links that there may be."""
        newest = int(now_s // self._ttl_s)
        return [
            f"links:{generation}:{shard}"
            for generation in range(newest - 1, newest + 2)
            for shard in range(layout.LINK_SHARDS)
        ]

    async def copy(self, names: Sequence[str]) -> None:
        """Copy some of them; where shards differ, that of the session knows."""
        answers = [
            await asked(self._client, *(("HGETALL", prefix + name) for name in names))
            for prefix in self._source
        ]
        writer = self._writer()
        for n, name in enumerate(names):
            links: dict[bytes, bytes] = {}
            own: dict[bytes, bytes] = {}
            for shard, answer in enumerate(of[n] for of in answers):
                for session, user in pairs_of(answer):
                    links[session] = user
                    if owner_shard(session.decode(), len(self._source)) == shard:
                        own[session] = user
            await self._write(writer, name, links | own)
        await writer.flush()

    async def _write(self, writer: KeyWriter, name: str, links: dict[bytes, bytes]) -> None:
        by_target: dict[str, list[bytes]] = {}
        for session, user in links.items():
            shards = {owner_shard(one.decode(), len(self._target)) for one in (session, user)}
            for shard in shards:
                by_target.setdefault(self._target[shard], []).extend((session, user))
        for target, flat in by_target.items():
            for some in pieces(flat, 1000):
                await writer.put(target, "HSET", name, *some)
            await writer.put(target, "EXPIRE", name, 2 * self._ttl_s)
