"""All state of a dataset group, in Redis: the atomic step that writes it, and the reads.

Keys start with the dataset group in braces, so that a group lives on one node of a cluster:

    {group}:watermarks          hash    <incarnation>/<partition> -> last applied offset
    {group}:witnesses           hash    the same field -> offset, time and checksum of that message
    {group}:counts              hash    format of the state, events, users, ..., clock, accepted_at
    {group}:items, {group}:ids  hash    item id -> index, and back; indexes are never reused
    {group}:types               hash    event type -> code
    {group}:history:u:<user>    string  head and columns, oldest first (models.state.layout)
    {group}:history:s:<session> string  the same, of an anonymous session
    {group}:forgotten:<owner>   string  ids of the last events that its history has trimmed
    {group}:recent              string  the group's newest events, of all owners (recent_ids.lua)
    {group}:links:<n>:<shard>   hash    session -> user, in generations of one session_ttl
    {group}:owners:<page>       hash    "u:<user>" or "s:<session>" of 128 numbers of histories,
                                        and <number>s -> sessions linked to that user
    {group}:erased              zset    tombstones: digest of an owner -> erased until, milliseconds
    {group}:pairs:<index>       string  an item's neighbours by co-visitation
    {group}:takers:<index>      string  numbers of the histories that the item entered last
    {group}:stats:<page>        string  counts and popularities of 64 items
    {group}:columns             set     contextual columns of interactions (context_columns.py)
    {group}:values:<column>     hash    its values with own counts -> time of the last event
    {group}:circumstance:<c>    string  counts of items under <column> and under <column>=<value>
    {group}:top:<name>          zset    best items by popularity, recency, novelty
    {group}:ranker              hash    weights, watermark and measures of the ranker
    {group}:tried               hash    item index -> times it was shown for exploration
    {group}:factors             string  vectors of items (stored_factors.py)
    {group}:served[:<number>]   hash    lists that were served, for attribution (served_lists.py)
    {group}:shards              hash    on how many shards it is (shards/stored_layout.py)
    {group}:frozen              string  no step changes anything, as its state moves (the same)
    {group}:changed             channel items whose neighbours a step has changed (channels.py)

Keys of metadata stand in `models.state.catalogue.metadata`, the registry of groups in
`models.state.groups.group_registry`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Collection, Sequence
from typing import Any

import msgspec
import numpy as np
import redis.exceptions
from numpy.typing import NDArray

from models.settings import Settings
from models.state import layout
from models.state.channels import Listener, Unsubscribe
from models.state.clients.batched_requests import Command
from models.state.clients.client import RedisClient
from models.state.clients.redis_errors import unavailable
from models.state.groups.group_registry import GROUPS, registered_groups
from models.state.histories import History, unpack_history
from models.state.messages import (
    Part,
    PartResult,
    StoredEvent,
    StoredMessage,
    StoredPosition,
    shard_of,
)
from models.state.scripts.lua_source import OUTCOME_FUNCTIONS, make_script
from models.state.scripts.registered_scripts import Script, run_script, run_step
from models.state.scripts.step_limits import step_limits
from models.state.scripts.watermark_scripts import LOWER_WATERMARK, RAISE_WATERMARK

STEP = make_script(
    "apply_batch",
    shared=("prelude", "frozen", "group_marks", "record_lists", "history_columns"),
    functions=(
        "terms",
        "items",
        "pair_lists",
        "recent_owners",
        "histories",
        *OUTCOME_FUNCTIONS,
        "recent_ids",
        "context_counts",
        "withdrawals",
        "apply_group",
    ),
    records=(StoredMessage, StoredEvent),
    part=Part,
)

MAX_PARTITIONS = 5_000
"""Partitions whose watermarks a group keeps, 100 bytes each, before those of deleted topics go."""


class Store:
    """State of one dataset group; holds nothing itself but the client.

    Methods raise the errors of redis-py, among them `redis_errors.AWAY_ERRORS`.

    Attributes
    ----------
    request
        What every step of events or served lists takes: the prefix, and limits.
    """

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self.redis = client
        self.settings = settings
        self.prefix = f"{{{settings.group}}}:"
        self.request = {"prefix": self.prefix, "limits": step_limits(settings)}

    def key(self, name: str) -> str:
        """The full key of `name` in this group."""
        return self.prefix + name

    @property
    def history_stores(self) -> Sequence[Store]:
        """The stores with the keys of the group's histories, beside each other in a slot each."""
        return [self]

    def history_store(self, owner: str) -> Store:  # noqa: ARG002  of several shards it matters
        """The one of `history_stores` with an owner's, "u:<user>" or "s:<session>"."""
        return self

    @property
    def item_stores(self) -> Sequence[Store]:
        """The stores with the keys of the group's items, beside each other in a slot each."""
        return [self]

    def item_place(self, index: int) -> int:  # noqa: ARG002  as above
        """Number of the one of `item_stores` with an item's metadata, counts and lists."""
        return 0

    def user_store(self, user_id: str) -> Store:  # noqa: ARG002  as above
        """The store with a user's metadata, in the slot of the user's history."""
        return self

    async def close(self) -> None:
        """Close the client's connections."""
        await self.redis.aclose()

    async def apply(
        self, parts: Sequence[Part], *, now_s: float
    ) -> tuple[list[PartResult], dict[str, int]]:
        """Apply messages, each exactly once, in one atomic step.

        Messages may be of this group and of any registered one (`models.state.tenants`): all
        take effect together, and this group's watermarks hold for all. Returns the result of each
        part, and counts of what took effect in all groups: events, purchases, duplicates, erased
        events, and new items, users and sessions.

        Raises
        ------
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
            The step may or may not have happened; repeating it is harmless.
        """
        payload = msgspec.msgpack.encode({**self.request, "now": now_s, "parts": parts})
        has_others = any(
            message.group or message.actions_group for part in parts for message in part.messages
        )
        # On a cluster all keys of a step are on one node: other groups only where there are any.
        keys = [self.key("watermarks"), *([GROUPS] if has_others else [])]
        results, counts = msgspec.msgpack.decode(
            await self.step(STEP, keys, payload), type=tuple[list[PartResult], dict[str, int]]
        )
        return results, counts

    async def step(self, script: Script, keys: Sequence[str], payload: bytes) -> bytes:
        """Run a script that applies messages; returns its answer.

        A server that is full refuses it: served lists then make room for the next attempt.
        """
        try:
            return bytes(await run_step(self.redis, script, keys, payload))
        except redis.exceptions.ResponseError as error:
            if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in str(error):
                await self.drop_served_lists()
            raise

    async def watermarks(self, fields: Sequence[str]) -> list[int]:
        """Last applied offset of each partition field; -1 without one."""
        stored = await self._fields("watermarks", fields) if fields else []
        return [-1 if offset is None else int(offset) for offset in stored]

    async def witnesses(self, fields: Sequence[str]) -> list[tuple[int, int, int] | None]:
        """Offset, time (ms) and checksum of the last applied message of each partition field.

        None without one, or where an earlier version applied it.
        """
        stored = await self._fields("witnesses", fields) if fields else []
        return [None if raw is None else layout.unpack_witness(raw) for raw in stored]

    async def positions(self, fields: Sequence[str]) -> list[StoredPosition]:
        """Position up to which each partition is in effect."""
        marks, witnesses = await self.watermarks(fields), await self.witnesses(fields)
        return [
            StoredPosition(mark, witness, mark)
            for mark, witness in zip(marks, witnesses, strict=True)
        ]

    async def _fields(self, name: str, fields: Sequence[str]) -> list[bytes | None]:
        """Fields of one of the group's hashes."""
        return [*await self.redis.hmget(self.key(name), list(fields))]

    async def raise_watermark(self, field: str, offset: int) -> None:
        """Set the group's watermark of a partition to an offset, if it is lower."""
        await run_script(self.redis, RAISE_WATERMARK, [self.key("watermarks")], field, offset)

    async def lower_watermark(
        self, field: str, offset: int, witness: tuple[int, int, int] | None = None
    ) -> None:
        """Set the group's watermark of a partition to an offset, if it is higher.

        `witness` is the message there, as `witnesses` gives it, where it is known.
        """
        packed = b"" if witness is None else layout.pack_witness(*witness)
        keys = [self.key("watermarks"), self.key("witnesses")]
        await run_script(self.redis, LOWER_WATERMARK, keys, field, offset, packed)

    async def forget_partitions(
        self, incarnations: Collection[str], *, most: int = MAX_PARTITIONS
    ) -> bool:
        """Drop watermarks of all topics but these, if there are more than `most`.

        A topic that is made again is another incarnation, and nothing asks for the old one.
        Returns whether there were more.
        """
        had_more = False
        for key in (self.key("watermarks"), self.key("witnesses")):
            if await self.redis.hlen(key) <= most:
                continue
            gone = [
                field
                for field in await self.redis.hkeys(key)
                if field.decode().rpartition("/")[0] not in incarnations
            ]
            for at in range(0, len(gone), 1000):
                await self.redis.hdel(key, *gone[at : at + 1000])
            had_more = True
        return had_more

    async def counts(self) -> dict[str, float]:
        """Counters of the group, its clock (newest event time) and freshness times."""
        stored = await self.redis.hgetall(self.key("counts"))
        return {name.decode(): float(value) for name, value in stored.items()}

    def values(self, keys: list[str]) -> asyncio.Future[list[bytes | None]]:
        """Values of full keys, None without one; one MGET for all tasks that read at once."""
        found: asyncio.Future[list[bytes | None]] = self.redis.reads.get(keys)
        return found

    def shared_values(self, keys: list[str]) -> asyncio.Future[list[bytes | None]]:
        """The same of what all users share, which may be a little older: of a replica."""
        found: asyncio.Future[list[bytes | None]] = self.redis.shared_reads.get(keys)
        return found

    def shared_answers(self, *commands: Command) -> Awaitable[list[Any]]:
        """Answers of commands about what all users share, in one round trip."""
        answers: Awaitable[list[Any]] = self.redis.shared_reads.run(*commands)
        return answers

    def listen(self, listener: Listener) -> Unsubscribe:
        """Tell a listener whose neighbour lists steps change; see `models.state.channels`."""
        reads = self.redis.shared_reads
        unsubscribe: Unsubscribe = reads.subscribe(self.key("changed"), listener)
        return unsubscribe

    async def linked_user(self, session_id: str, *, now_s: float) -> str | None:
        """The user that an event has linked a session to; None for an anonymous session."""
        user, _ = await self.linked_user_and_history(session_id, now_s=now_s)
        return user

    async def linked_user_and_history(
        self, session_id: str, *, now_s: float
    ) -> tuple[str | None, bytes | None]:
        """`linked_user` of a session, and the stored history of the session itself; one piece."""
        generation = int(now_s // self.settings.session_ttl_s)
        shard = shard_of(session_id)
        newer, older, history = await self.redis.reads.run(
            ("HGET", self.key(f"links:{generation}:{shard}"), session_id),
            ("HGET", self.key(f"links:{generation - 1}:{shard}"), session_id),
            ("GET", self.key(f"history:s:{session_id}")),
        )
        user = newer if newer is not None else older
        return (None if user is None else user.decode()), history

    async def item_count(self) -> int:
        """Items of the group; see `some_items` for their indexes, which may have gaps."""
        return int(await self.redis.hlen(self.key("items")))

    async def some_items(self, most: int) -> list[int]:
        """Indexes of items: all, or at least `most` of them and some more; lowest first."""
        cursor, found = 0, list[int]()
        while len(found) < most:
            cursor, page = await self.redis.hscan(self.key("ids"), cursor, count=most)
            found += map(int, page)
            if not cursor:
                break
        return sorted(found)

    async def item_indexes(self, item_ids: Sequence[str]) -> list[int]:
        """Index of each item; 0 for an unknown one."""
        if not item_ids:
            return []
        (stored,) = await self.redis.reads.run(("HMGET", self.key("items"), *item_ids))
        return [int(index) if index is not None else 0 for index in stored]

    async def item_ids(self, indexes: Sequence[int]) -> list[str | None]:
        """Item id of each index; None for an unknown one."""
        if not indexes:
            return []
        (stored,) = await self.redis.reads.run(("HMGET", self.key("ids"), *map(str, indexes)))
        return [raw.decode() if raw is not None else None for raw in stored]

    async def packed_terms(self, indexes: Sequence[int]) -> Sequence[bytes | None]:
        """Terms of each item's text, 4 bytes each; None without any."""
        command = ("HMGET", self.key("terms"), *map(str, indexes))
        (stored,) = await self.redis.shared_reads.run(command)
        return [*stored]

    async def item_fields(self, name: str, indexes: Sequence[int]) -> Sequence[bytes | None]:
        """Fields of a hash by index of items, `properties` or `categories`; None without one."""
        return await self._fields(name, [*map(str, indexes)]) if indexes else []

    async def creation_times(self, indexes: Sequence[int]) -> Sequence[float | None]:
        """Unix times of creation of items among the newest with metadata; None of others."""
        if not indexes:
            return []
        return [*await self.redis.zmscore(self.key("top:fresh"), [*map(str, indexes)])]

    async def event_counts(self, indexes: Sequence[int]) -> list[float]:
        """Number of events on each item of the top list of all time; 0 for other items."""
        if not indexes:
            return []
        counts = await self.redis.zmscore(self.key("top:all"), [str(index) for index in indexes])
        return [count or 0.0 for count in counts]

    async def recent_owners(self, indexes: Sequence[int]) -> list[NDArray[np.uint32]]:
        """Distinct history numbers of each item's recent owners."""
        if not indexes:
            return []
        raws = await self.redis.mget([self.key(f"takers:{index}") for index in indexes])
        return [np.unique(np.frombuffer(raw or b"", layout.HISTORY_NUMBER)) for raw in raws]

    async def owner_keys(self, numbers: Sequence[int]) -> list[str | None]:
        """Owner of each history number, "u:<user>" or "s:<session>"; None if it has expired."""
        commands = []
        for number in numbers:
            page, place = divmod(number, layout.OWNERS_PER_PAGE)
            commands.append(("HGET", self.key(f"owners:{page}"), place))
        found = await self.redis.shared_reads.run(*commands)
        return [raw.decode() if raw is not None else None for raw in found]

    async def owners_of_page(self, page: int) -> list[str]:
        """Owners whose history numbers are on a page of `layout.OWNERS_PER_PAGE`."""
        stored = await self.redis.hgetall(self.key(f"owners:{page}"))
        return [owner.decode() for place, owner in stored.items() if not place.endswith(b"s")]

    async def histories(self, owners: Sequence[str]) -> list[History]:
        """History of each owner, "u:<user>" or "s:<session>"; empty without one."""
        if not owners:
            return []
        raws = await self.redis.mget([self.key(f"history:{owner}") for owner in owners])
        return [unpack_history(raw) for raw in raws]

    async def event_types(self) -> dict[int, str]:
        """Event type of each type code so far, those of imported events included."""
        return layout.type_names(await self.redis.hgetall(self.key("types")))

    async def context_columns(self) -> frozenset[str]:
        """Folded names of the group's contextual columns."""
        return frozenset(
            column.decode() for column in await self.redis.smembers(self.key("columns"))
        )

    async def once_linked_sessions(self, user_id: str) -> list[str]:
        """Sessions that were linked to a user at any time, as histories.lua stores them."""
        (history,) = await self.histories([f"u:{user_id}"])
        found: list[str] = []
        for number in history.numbers:
            page, place = divmod(number, layout.OWNERS_PER_PAGE)
            raw, at = await self.redis.hget(self.key(f"owners:{page}"), f"{place}s") or b"", 0
            while at < len(raw):
                _, size = layout.SESSION_HEAD.unpack_from(raw, at)
                at += layout.SESSION_HEAD.size + size
                found.append(raw[at - size : at].decode())
        return found

    async def erased_until(self, owners: Sequence[str]) -> list[float]:
        """Time up to which all events of each owner are erased, Unix seconds; 0 without erasure.

        Owners are "u:<user>" or "s:<session>".
        """
        if not owners:
            return []
        digests = [
            hashlib.sha1(owner.encode(), usedforsecurity=False).hexdigest()[:24] for owner in owners
        ]
        scores = await self.redis.zmscore(self.key("erased"), digests)
        return [0.0 if score is None else score / 1000 for score in scores]

    async def drop_served_lists(self) -> None:
        """Drop the served lists of all groups: they go before anything that was learned."""
        for group in (self.settings.group, *await registered_groups(self.redis)):
            book = f"{{{group}}}:served"
            numbers = await self.redis.hkeys(book)
            if numbers:
                await self.redis.unlink(*(f"{book}:{number.decode()}" for number in numbers))
                await self.redis.unlink(book)

    async def ping(self) -> None:
        """Raise `Unavailable` unless the server answers."""
        with unavailable():
            await self.redis.ping()
