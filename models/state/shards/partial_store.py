"""State of a group of several shards for answers: that of the shards that answer.

An answer needs the user's own history; without the rest it is less good. What a shard that is away
holds is taken as it was read the last time, or for absent. `b""` stands for a value that could not
be read: no key of a group holds an empty one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import redis.exceptions

from models.settings import Settings
from models.state.clients.batched_requests import Command
from models.state.clients.client import RedisClient
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.at_once import some_at_once
from models.state.shards.merged_lists import merged_parts
from models.state.shards.sharded_store import AskedValues, ShardedStore
from models.state.store import Store

K = TypeVar("K")
V = TypeVar("V")


def store_for_answers(store: Store) -> Store:
    """The same state, of the shards that answer; the same store for a group of one shard."""
    if not isinstance(store, ShardedStore):
        return store
    return PartialStore(store.redis, store.settings)


class PartialStore(ShardedStore):
    """Reads of shards of which some may be away; the last answers about what all users share.

    These take some 50 kB a shard.
    """

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        super().__init__(client, settings)
        self._last: dict[Command, Any] = {}
        self._n_answered = 0

    def values(self, keys: list[str]) -> asyncio.Future[list[bytes | None]]:
        """As `ShardedStore.values`; the shard of the first key must answer."""
        asked = self._asked(self.redis.reads, keys)
        return asyncio.ensure_future(_some_values(keys, asked, needed=0))

    def shared_values(self, keys: list[str]) -> asyncio.Future[list[bytes | None]]:
        """As `ShardedStore.shared_values`; `b""` of shards that are away."""
        return asyncio.ensure_future(_some_values(keys, self._asked(self.redis.shared_reads, keys)))

    async def _ask(self, command: Command) -> Any:  # noqa: ANN401  whatever a command gives
        try:
            answer = await super()._ask(command)
        except AWAY_ERRORS:
            if command not in self._last:
                raise
            return self._last[command]
        self._last[command] = answer
        self._n_answered += 1
        return answer

    async def shared_answers(self, *commands: Command) -> list[Any]:
        """As `ShardedStore.shared_answers`; raises where no shard answers any more."""
        before = self._n_answered
        found = await super().shared_answers(*commands)
        if self._n_answered == before:
            raise redis.exceptions.ConnectionError("no shard answers")
        return found

    async def item_indexes(self, item_ids: Sequence[str]) -> list[int]:
        """Index of each item; 0 for one that is unknown, or whose shard is away."""
        found = await self._of_some(
            item_ids, self._of_name, lambda shard, own: self.items[shard].item_indexes(own)
        )
        return [index or 0 for index in found]

    async def item_ids(self, indexes: Sequence[int]) -> list[str | None]:
        """Item id of each index; None for one that is unknown, or whose shard is away."""
        return await self._of_some(
            indexes, self.item_place, lambda shard, own: self.items[shard].item_ids(own)
        )

    async def item_fields(self, name: str, indexes: Sequence[int]) -> Sequence[bytes | None]:
        """As `ShardedStore.item_fields`; None of shards that are away, but for properties.

        A filter that does not know an item's properties would allow what it has to keep out.
        """
        if name == "properties":
            return await super().item_fields(name, indexes)
        return await self._of_some(
            indexes, self.item_place, lambda shard, own: self.items[shard].item_fields(name, own)
        )

    async def owner_keys(self, numbers: Sequence[int]) -> list[str | None]:
        """As `ShardedStore.owner_keys`; None, too, where the shard is away."""
        return await self._of_some(
            numbers, self._of_number, lambda shard, own: self.sessions[shard].owner_keys(own)
        )

    async def event_types(self) -> dict[int, str]:
        """As `ShardedStore.event_types`; where that shard is away, as session shards know them."""
        try:
            return await super().event_types()
        except AWAY_ERRORS:
            found = await some_at_once(one.event_types() for one in self.sessions)
            return {code: name for types in found if types for code, name in types.items()}

    async def _of_some(
        self,
        keys: Sequence[K],
        shard_of: Callable[[K], int],
        ask: Callable[[int, list[K]], Awaitable[Sequence[V | None]]],
    ) -> list[V | None]:
        async def ask_or_none(shard: int, own: list[K]) -> Sequence[V | None]:
            try:
                return await ask(shard, own)
            except AWAY_ERRORS:
                return [None] * len(own)

        return await self._each(keys, shard_of, ask_or_none)


async def _some_values(
    keys: Sequence[str], asked: Sequence[AskedValues], needed: int | None = None
) -> list[bytes | None]:
    found: dict[int, list[bytes | None]] = {}
    answers = await asyncio.gather(*(reading for _, reading in asked), return_exceptions=True)
    for (places, _), answer in zip(asked, answers, strict=True):
        is_away = isinstance(answer, AWAY_ERRORS)
        if isinstance(answer, BaseException) and (needed in places or not is_away):
            raise answer
        values = [b""] * len(places) if isinstance(answer, BaseException) else answer
        for place, value in zip(places, values, strict=True):
            found.setdefault(place, []).append(value)
    return [_merged(key, found[place]) for place, key in enumerate(keys)]


def _merged(key: str, parts: list[bytes | None]) -> bytes | None:
    """A value of those of its parts that could be read; `b""` for none."""
    read = [part for part in parts if part != b""]
    return merged_parts(key, read) if read else b""
