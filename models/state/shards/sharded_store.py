"""State of a group over several shards, read as that of one.

Names of keys are those of `models.state.store`. What belongs to a user, a session or an item is
read in its shard, of all shards at once; what is one of the group, as its ranker and its
placements, has the keys of a group of one shard.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import redis.exceptions
from numpy.typing import NDArray

from models.settings import Settings
from models.state import layout
from models.state.channels import Listener, Unsubscribe
from models.state.clients.batched_requests import Command
from models.state.clients.client import RedisClient
from models.state.clients.cluster_reads import ClusterReads
from models.state.clients.redis_errors import unavailable
from models.state.histories import History
from models.state.messages import Part, PartResult, StoredPosition
from models.state.shards.at_once import at_once, some_at_once
from models.state.shards.heard_shards import HeardShards
from models.state.shards.merged_answers import (
    counts_beside_steps,
    merged_count,
    merged_counts,
    merged_tops,
)
from models.state.shards.merged_lists import merged_parts
from models.state.shards.merged_positions import merged_position
from models.state.shards.shard_names import (
    history_shard,
    item_shard,
    mark_shard,
    owner_shard,
    shard_names,
    shard_prefix,
)
from models.state.shards.shard_store import ShardStore
from models.state.shards.split_lists import NO_SPLITS, list_shards, splits_of
from models.state.store import Store

K = TypeVar("K")
V = TypeVar("V")


AskedValues = tuple[list[int], asyncio.Future[list[bytes | None]]]
"""Places of the keys of one slot among those that are asked for, and their values to come."""


def store_of(client: RedisClient, settings: Settings) -> Store:
    """State of the settings' group, on as many shards as they say."""
    return ShardedStore(client, settings) if settings.shards > 1 else Store(client, settings)


def absent_shards(store: Store) -> list[str]:
    """Names of a group's shards whose server is known to be absent, by a cluster's client.

    Asks nothing; empty for a group of one shard, and for one on a single server.
    """
    reads = store.redis.reads
    if not isinstance(store, ShardedStore) or not isinstance(reads, ClusterReads):
        return []
    every = zip(shard_names(store.shards), [*store.sessions, *store.items], strict=True)
    return [name for name, one in every if reads.is_absent(one.prefix)]


class ShardedStore(Store):
    """State of a group of more than one shard; holds nothing itself but the client."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        super().__init__(client, settings)
        self.shards = settings.shards
        self.home = ShardStore(client, settings)
        self.sessions = [self._shard("u", number) for number in range(self.shards)]
        self.items = [self._shard("i", number) for number in range(self.shards)]
        # As it was when the state that all users share was last read.
        self._splits = NO_SPLITS

    def _shard(self, kind: Literal["u", "i"], number: int) -> Store:
        one = ShardStore(self.redis, self.settings)
        one.prefix = shard_prefix(self.settings.group, kind, number, self.settings.generation)
        return one

    @property
    def history_stores(self) -> Sequence[Store]:
        """The session shards."""
        return self.sessions

    def history_store(self, owner: str) -> Store:
        """The session shard of an owner."""
        return self.sessions[self._of_owner(owner)]

    @property
    def item_stores(self) -> Sequence[Store]:
        """The item shards."""
        return self.items

    def item_place(self, index: int) -> int:
        """Number of the item's shard."""
        return item_shard(index, self.shards)

    def user_store(self, user_id: str) -> Store:
        """The session shard of a user."""
        return self.sessions[self._of_name(user_id)]

    async def apply(
        self, parts: Sequence[Part], *, now_s: float
    ) -> tuple[list[PartResult], dict[str, int]]:
        """Never called: `models.state.shards.sharded_steps` has the steps of shards."""
        raise AssertionError(f"{len(parts)} parts for a group of {self.shards} shards at {now_s}")

    # Positions ----------------------------------------------------------------------------------

    def _with_marks(self, field: str) -> list[Store]:
        """The shards that apply the messages of a partition."""
        kind, number = mark_shard(field)
        stores = self.sessions if kind == "u" else self.items
        return stores if number < 0 else [stores[number]]

    async def positions(self, fields: Sequence[str]) -> list[StoredPosition]:
        """Position of each partition, by the shards that answer; raises if none does.

        Topics whose messages one place applies for the whole group have their marks there: those
        that no shard has any of.
        """
        stores = [self.home, *self.sessions, *self.items]
        with_marks = {field: self._with_marks(field) for field in fields}
        wanted = [
            list(fields) if one is self.home else [f for f in fields if one in with_marks[f]]
            for one in stores
        ]
        asked = [(one, own) for one, own in zip(stores, wanted, strict=True) if own]
        answers = await some_at_once(_marks_of(one, own) for one, own in asked)
        of_stores = {
            one: None if found is None else dict(zip(own, found, strict=True))
            for (one, own), found in zip(asked, answers, strict=True)
        }
        return [
            merged_position(
                [of_stores[one] for one in with_marks[field]], of_stores[self.home], field
            )
            for field in fields
        ]

    async def _whole_positions(self, fields: Sequence[str]) -> list[StoredPosition]:
        found = await self.positions(fields) if fields else []
        if not all(one.is_whole for one in found):
            raise redis.exceptions.ConnectionError("a shard's server is away")
        return found

    async def watermarks(self, fields: Sequence[str]) -> list[int]:
        """Last offset of each partition field that all its shards have applied; -1 without one."""
        return [one.watermark for one in await self._whole_positions(fields)]

    async def witnesses(self, fields: Sequence[str]) -> list[tuple[int, int, int] | None]:
        """The message at that offset; see `Store.witnesses`."""
        return [one.witness for one in await self._whole_positions(fields)]

    async def raise_watermark(self, field: str, offset: int) -> None:
        """Set the watermark of a partition of events or deltas in its shards, where it is lower."""
        await at_once(one.raise_watermark(field, offset) for one in self._with_marks(field))

    async def lower_watermark(
        self, field: str, offset: int, witness: tuple[int, int, int] | None = None
    ) -> None:
        """Set the watermark of a partition to an offset, wherever it is higher."""
        stores = [self.home, *self._with_marks(field)]
        await at_once(one.lower_watermark(field, offset, witness) for one in stores)

    async def ping(self) -> None:
        """Raise `Unavailable` unless some shard answers."""
        with unavailable():
            await self.positions(["-"])

    async def counts(self) -> dict[str, float]:
        """Counters of all shards, and times of the newest event and message."""
        home, *of_shards = await at_once(
            one.counts() for one in (self.home, *self.sessions, *self.items)
        )
        return merged_counts([counts_beside_steps(home), *of_shards])

    # Keys of any shard --------------------------------------------------------------------------

    def _placed(self, key: str) -> list[str]:
        """A key in the shards that hold it or parts of it; unchanged where it is the group's."""
        name = key.removeprefix(self.prefix)
        family, _, rest = name.partition(":")
        if family in {"history", "forgotten"}:
            return [self.sessions[owner_shard(rest[2:], self.shards)].key(name)]
        if family == "owners":
            first = int(rest) * layout.OWNERS_PER_PAGE
            return [self.sessions[history_shard(first, self.shards)].key(name)]
        if family == "pairs":
            shards = list_shards(int(rest), self._splits, self.shards)
            return [self.items[shard].key(name) for shard in shards]
        if family == "term":
            return [one.key(name) for one in self.items]
        if family in {"takers", "stats"}:
            first = int(rest) * (layout.STATS_PER_PAGE if family == "stats" else 1)
            return [self.items[item_shard(first, self.shards)].key(name)]
        return [key]

    def values(self, keys: list[str]) -> asyncio.Future[list[bytes | None]]:
        """Values of full keys, None without one; those of all shards at once."""
        return self._get(self.redis.reads, keys)

    def shared_values(self, keys: list[str]) -> asyncio.Future[list[bytes | None]]:
        """The same of what all users share, which may be a little older: of a replica."""
        return self._get(self.redis.shared_reads, keys)

    def _get(
        self,
        reads: Any,  # noqa: ANN401  batched reads of any client
        keys: list[str],
    ) -> asyncio.Future[list[bytes | None]]:
        asked = self._asked(reads, keys)

        async def gathered() -> list[bytes | None]:
            answers = await at_once(reading for _, reading in asked)
            found: list[list[bytes | None]] = [[] for _ in keys]
            for (places, _), values in zip(asked, answers, strict=True):
                for place, value in zip(places, values, strict=True):
                    found[place].append(value)
            return [merged_parts(*one) for one in zip(keys, found, strict=True)]

        return asyncio.ensure_future(gathered())

    def _asked(
        self,
        reads: Any,  # noqa: ANN401  as above
        keys: list[str],
    ) -> list[AskedValues]:
        """Reads of the keys, one for each slot.

        Asked for before anything is awaited: what tasks want at once is one command.
        """
        by_slot: dict[str, list[tuple[int, str]]] = {}
        for place, placed in enumerate(map(self._placed, keys)):
            for key in placed:
                by_slot.setdefault(key[: key.index("}")], []).append((place, key))
        return [
            ([place for place, _ in some], reads.get([key for _, key in some]))
            for some in by_slot.values()
        ]

    async def shared_answers(self, *commands: Command) -> list[Any]:
        """Answers of commands about what all users share, of all shards as of one."""
        return list(await at_once(self._answer(command) for command in commands))

    async def _answer(self, command: Command) -> Any:  # noqa: ANN401  whatever a command gives
        verb, key, *rest = command
        name = str(key).removeprefix(self.prefix)
        if name.startswith("top:"):
            _, last = rest[:2]
            scored = await at_once(
                self._ask((verb, one.key(name), 0, last, "REV", "WITHSCORES")) for one in self.items
            )
            return merged_tops(scored, int(last) + 1, with_scores="WITHSCORES" in rest)
        if name == "counts":
            stores = (self.home, *self.sessions, *self.items)
            found = await at_once(self._ask((verb, one.key(name), *rest)) for one in stores)
            return [*map(merged_count, rest, zip(*found, strict=True))]
        if name == "types":
            first = self.items[0]
            asked = (verb, first.key(name), *rest), ("HGETALL", first.key("split"))
            types, splits = await at_once(map(self._ask, asked))
            self._splits = splits_of(splits)
            return types
        return await self._ask(command)

    async def _ask(self, command: Command) -> Any:  # noqa: ANN401  whatever a command gives
        (answer,) = await self.redis.shared_reads.run(command)
        return answer

    def listen(self, listener: Listener) -> Unsubscribe:
        """Tell a listener whose neighbour lists steps of any item shard change."""
        reads, heard = self.redis.shared_reads, HeardShards(listener, self.shards)
        ends = [
            reads.subscribe(one.key("changed"), heard.of(number))
            for number, one in enumerate(self.items)
        ]

        def unsubscribe() -> None:
            for end in ends:
                end()

        return unsubscribe

    # By user, session, history or item ------------------------------------------------------------

    async def _each(
        self,
        keys: Sequence[K],
        shard_of: Callable[[K], int],
        ask: Callable[[int, list[K]], Awaitable[Sequence[V]]],
    ) -> list[V]:
        """Answers of `ask` for each key, asked of all shards at once."""
        by_shard: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            by_shard.setdefault(shard_of(key), []).append(place)
        answers = await at_once(
            (ask(shard, [keys[place] for place in own]) for shard, own in by_shard.items())
        )
        found: dict[int, V] = {}
        for own, values in zip(by_shard.values(), answers, strict=True):
            found.update(zip(own, values, strict=True))
        return [found[place] for place in range(len(keys))]

    def _of_name(self, name: str) -> int:
        return owner_shard(name, self.shards)

    def _of_owner(self, owner: str) -> int:
        return owner_shard(owner[2:], self.shards)

    def _of_number(self, number: int) -> int:
        return history_shard(number, self.shards)

    async def linked_user_and_history(
        self, session_id: str, *, now_s: float
    ) -> tuple[str | None, bytes | None]:
        """As `Store.linked_user_and_history`, of the session's shard."""
        shard = self.sessions[self._of_name(session_id)]
        return await shard.linked_user_and_history(session_id, now_s=now_s)

    async def once_linked_sessions(self, user_id: str) -> list[str]:
        """As `Store.once_linked_sessions`, of the user's shard."""
        return await self.sessions[self._of_name(user_id)].once_linked_sessions(user_id)

    async def item_count(self) -> int:
        """Items of all shards; their indexes have gaps."""
        return sum(await at_once(one.item_count() for one in self.items))

    async def some_items(self, most: int) -> list[int]:
        """As `Store.some_items`, of all shards."""
        found = await at_once(one.some_items(most) for one in self.items)
        return sorted(itertools.chain.from_iterable(found))

    async def item_indexes(self, item_ids: Sequence[str]) -> list[int]:
        """Index of each item; 0 for an unknown one."""
        return await self._each(
            item_ids, self._of_name, lambda shard, own: self.items[shard].item_indexes(own)
        )

    async def item_ids(self, indexes: Sequence[int]) -> list[str | None]:
        """Item id of each index; None for an unknown one."""
        return await self._each(
            indexes, self.item_place, lambda shard, own: self.items[shard].item_ids(own)
        )

    async def packed_terms(self, indexes: Sequence[int]) -> Sequence[bytes | None]:
        """As `Store.packed_terms`, of the items' shards."""
        return await self._each(
            indexes, self.item_place, lambda shard, own: self.items[shard].packed_terms(own)
        )

    async def item_fields(self, name: str, indexes: Sequence[int]) -> Sequence[bytes | None]:
        """As `Store.item_fields`, of the items' shards."""
        return await self._each(
            indexes, self.item_place, lambda shard, own: self.items[shard].item_fields(name, own)
        )

    async def creation_times(self, indexes: Sequence[int]) -> Sequence[float | None]:
        """As `Store.creation_times`, of the items' shards."""
        return await self._each(
            indexes, self.item_place, lambda shard, own: self.items[shard].creation_times(own)
        )

    async def event_counts(self, indexes: Sequence[int]) -> list[float]:
        """As `Store.event_counts`, of the top lists of the items' shards."""
        return await self._each(
            indexes, self.item_place, lambda shard, own: self.items[shard].event_counts(own)
        )

    async def recent_owners(self, indexes: Sequence[int]) -> list[NDArray[Any]]:
        """Distinct history numbers of each item's recent owners."""
        return await self._each(
            indexes, self.item_place, lambda shard, own: self.items[shard].recent_owners(own)
        )

    async def owner_keys(self, numbers: Sequence[int]) -> list[str | None]:
        """Owner of each history number, "u:<user>" or "s:<session>"; None if it has expired."""
        return await self._each(
            numbers,
            self._of_number,
            lambda shard, own: self.sessions[shard].owner_keys(own),
        )

    async def histories(self, owners: Sequence[str]) -> list[History]:
        """History of each owner, "u:<user>" or "s:<session>"; empty without one."""
        return await self._each(
            owners, self._of_owner, lambda shard, own: self.sessions[shard].histories(own)
        )

    async def event_types(self) -> dict[int, str]:
        """Event type of each type code so far, which the first item shard gives."""
        return await self.items[0].event_types()

    async def erased_until(self, owners: Sequence[str]) -> list[float]:
        """As `Store.erased_until`, of each owner's shard."""
        return await self._each(
            owners, self._of_owner, lambda shard, own: self.sessions[shard].erased_until(own)
        )


async def _marks_of(store: Store, fields: Sequence[str]) -> list[StoredPosition]:
    return await Store.positions(store, fields)
