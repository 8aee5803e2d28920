"""All state, in Redis: the one atomic step that writes it, and the reads that answer from it.

Keys start with the dataset group in braces, so that a group lives on one node of a cluster:

    {group}:watermarks          hash    <incarnation>/<partition> -> last applied offset
    {group}:witnesses           hash    the same field -> offset, time and checksum of that message
    {group}:counts              hash    events, purchases, users, ..., clock, accepted_at
    {group}:items, {group}:ids  hash    item id -> index, and back; indexes are never reused
    {group}:types               hash    event type -> code
    {group}:history:u:<user>    string  head and entries, oldest first (models.state.layout)
    {group}:history:s:<session> string  the same, of a session without a user
    {group}:forgotten:<owner>   string  ids of the last events that its history keeps no longer
    {group}:recent              string  the group's newest events, whoever's (recent_ids.lua)
    {group}:links:<n>:<shard>   hash    session -> user, in generations of one session_ttl
    {group}:owners:<page>       hash    "u:<user>" or "s:<session>" of 128 numbers of histories,
                                        and <number>s -> sessions linked to that user
    {group}:erased              zset    digest of an erased owner -> until when, milliseconds
    {group}:pairs:<index>       string  an item's neighbours
    {group}:takers:<index>      string  numbers of the histories the item came into last
    {group}:stats:<page>        string  counts and popularities of 64 items
    {group}:columns             set     contextual columns of interactions (context_columns.py)
    {group}:values:<column>     hash    its values that are counted -> time of the last event
    {group}:circumstance:<c>    string  counts of items by <column> and by <column>=<value>
    {group}:top:<name>          zset    best items by popularity, recency, novelty
    {group}:ranker              hash    weights, watermark and measures of the ranker
    {group}:tried               hash    item index -> times it was shown for exploration
    {group}:served[:<number>]   hash    lists that were served, for attribution (served_lists.py)

and what models.state.metadata names.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple, cast

import msgspec
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.errors import Unavailable
from models.events import Event, event_hash
from models.settings import Settings
from models.state import layout
from models.state.batched_reads import BatchingClient
from models.state.context_columns import NO_CONTEXT, ContextColumns, context_values
from models.state.histories import unpack_history
from models.state.redis_errors import AWAY_ERRORS, Parser
from models.state.scripts import Script, run_script

GROUPS = "{recommender}:groups"
"""The groups that there are beside that of the settings; see `models.serving.tenants`."""

TRACKERS = "{recommender}:trackers"
"""The group of each registered tracking id."""

STEP = Script.of(
    (
        "local function open_circumstances(...)\n{context_counts}\nend\n"
        "local function open_recent(...)\n{recent_ids}\nend\n"
        "local function open_group(...)\n{apply_group}\nend\n{witness}{apply_batch}"
    ).format(
        **{
            name: resources.files(__package__).joinpath(f"{name}.lua").read_text()
            for name in ("context_counts", "recent_ids", "apply_group", "witness", "apply_batch")
        }
    )
)

SESSION_HEAD = struct.Struct("<BH")
"""Of a session in the list of those that are linked to a user: its shard, and its name's size."""

MOST_PARTITIONS = 5_000
"""Partitions whose places a group keeps, 100 bytes each, until it looks which topics are gone."""


_SAVE_RANKER = Script.of("""
local watermark = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or nil) or -1
if watermark ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], unpack(ARGV, 4))
return 1
""")


_LOWER_WATERMARK = Script.of("""
for number, key in ipairs(KEYS) do
  local mark = tonumber(redis.call('HGET', key, ARGV[1]) or nil)
  if mark and mark > tonumber(ARGV[2]) then redis.call('HSET', key, ARGV[1], ARGV[2]) end
end
return 1
""")


_RAISE_WATERMARK = Script.of("""
local mark = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or nil) or -1
if mark < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
""")


class StoredEvent(NamedTuple):
    """One event as the atomic step takes it."""

    item_id: str
    time: int
    type: str
    log2_weight: float
    is_purchase: bool
    hash: int
    context: ContextColumns = NO_CONTEXT
    millisecond: int = 0


class StoredMessage(NamedTuple):
    """The events of one Kafka message, with what decides where they go.

    Attributes
    ----------
    group
        Whose they are; empty for the group of the store that applies them.
    timestamp_ms, checksum
        What identifies the message in its partition, kept of the last one applied.
    erased_at
        When the user was erased, in seconds; 0 for a message of events.
    """

    offset: int
    user_id: str
    session_id: str
    shard: int
    accepted_at: float
    events: list[StoredEvent]
    group: str = ""
    timestamp_ms: int = 0
    checksum: int = 0
    erased_at: float = 0.0


class Part(NamedTuple):
    """Messages of one partition in offset order, and the watermark they follow.

    Attributes
    ----------
    checksum
        Of the message at the watermark; -1 if it is not known.
    """

    field: str
    expected: int
    messages: list[StoredMessage]
    checksum: int = -1


class Memory(msgspec.Struct, frozen=True):
    """Memory of a Redis server: bytes in use, the most there may be (0: no limit), and its policy.

    With any other policy than `noeviction` a full server throws away what events have taught.
    """

    used_bytes: int = 0
    limit_bytes: int = 0
    policy: str = "noeviction"


class PartResult(NamedTuple):
    """What became of a part; see apply_batch.lua."""

    status: Literal["applied", "lost", "full", "gone"]
    watermark: int
    offset: int
    refused: list[int]


def connect(url: str, *, timeout_s: float = 5.0) -> BatchingClient:
    """A client of the Redis server at `url`; connects at its first command.

    A command is tried once more on a new connection: the one it was on may have died unused, and
    every command of this project may be repeated. More patience is the callers' to have.
    """
    client = BatchingClient.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
        parser_class=Parser,
    )
    return cast(BatchingClient, client)


async def registered_group(client: Any, tracking_id: str) -> str | None:  # noqa: ANN401
    """The group that a tracking id was registered for; None if it was not."""
    raw = await client.hget(TRACKERS, tracking_id)
    return None if raw is None else bytes(raw).decode()


def shard_of(session_id: str) -> int:
    """Which of the link shards a session's link lives in."""
    return zlib.crc32(session_id.encode()) % layout.LINK_SHARDS


class Store:
    """One dataset group's state; holds no state itself but the client."""

    def __init__(self, client: redis.asyncio.Redis, settings: Settings) -> None:
        # Typed as Any: redis-py says bytes or str of every answer, and this client decodes none.
        self.redis: Any = client
        self.settings = settings
        self.prefix = f"{{{settings.group}}}:"
        self._request = {
            "prefix": self.prefix,
            "epoch": layout.EPOCH,
            "limits": {
                "history": settings.history_events,
                "forgotten": layout.TRIMMED_IDS_PER_EVENT * settings.history_events,
                "recent": settings.recent_events,
                "window": layout.WINDOW,
                "neighbours": layout.NEIGHBOURS,
                "takers": layout.RECENT_OWNERS,
                "tops": layout.TOPS,
                "items": settings.max_items,
                "types": layout.TYPES,
                "counted": layout.CONTEXT_ITEMS,
                "values": layout.CONTEXT_VALUES,
                "user_sessions": settings.user_sessions,
                "tombstones": settings.max_tombstones,
                "tombstone_ttl": settings.kept_tombstones_s,
                "session_ttl": settings.session_ttl_s,
                "user_ttl": settings.user_ttl_s,
            },
            "fade": [d * math.log2(layout.FADE) for d in range(layout.WINDOW)],
            "rates": [*layout.PAIR_RATES.tolist(), *layout.POPULARITY_RATES.tolist()],
        }

    def key(self, name: str) -> str:
        """The full key of `name` in this group."""
        return self.prefix + name

    async def apply(
        self, parts: Sequence[Part], *, now_s: float
    ) -> tuple[list[PartResult], dict[str, int]]:
        """Apply messages, each exactly once, in one atomic step.

        Of this group and any other that `models.serving.tenants` has registered: all take effect
        together, and this group's watermarks say up to where. Returns what became of each part, and
        counts of what took effect in all: events, purchases, duplicates, and new items, users and
        sessions.

        Raises
        ------
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
            The step may or may not have happened; repeating it is harmless.
        """
        payload = msgspec.msgpack.encode({**self._request, "now": now_s, "parts": parts})
        has_others = any(message.group for part in parts for message in part.messages)
        answer = await self._run(payload, has_others=has_others)
        results, counts = msgspec.msgpack.decode(
            answer, type=tuple[list[PartResult], dict[str, int]]
        )
        return results, counts

    async def _run(self, payload: bytes, *, has_others: bool) -> bytes:
        # Only where it must be: on a cluster all keys of a step are on one node.
        keys = [self.key("watermarks"), *([GROUPS] if has_others else [])]
        return bytes(await self.step(STEP, keys, payload))

    async def step(self, script: Script, keys: Sequence[str], payload: bytes) -> Any:  # noqa: ANN401
        """What a script answers that brings messages into effect.

        A server that is full refuses it. What is kept for attribution then makes room for the next
        attempt.
        """
        try:
            return await run_script(self.redis, script, keys, payload)
        except redis.exceptions.ResponseError as error:
            if isinstance(error, redis.exceptions.OutOfMemoryError) or "OOM" in str(error):
                await self.make_room()
            raise

    async def watermarks(self, fields: Sequence[str]) -> list[int]:
        """Last applied offset of each partition field; -1 where none was applied yet."""
        if not fields:
            return []
        stored = await self.redis.hmget(self.key("watermarks"), list(fields))
        return [int(offset) if offset is not None else -1 for offset in stored]

    async def witnesses(self, fields: Sequence[str]) -> list[tuple[int, int, int] | None]:
        """Offset, time (ms) and checksum of the last message applied of each partition field.

        None where none was, or an earlier version applied it.
        """
        if not fields:
            return []
        stored = await self.redis.hmget(self.key("witnesses"), list(fields))
        return [None if raw is None else layout.unpack_witness(raw) for raw in stored]

    async def raise_watermark(self, field: str, offset: int) -> None:
        """Take the group's watermark of a partition on to an offset, if it lies before."""
        await run_script(self.redis, _RAISE_WATERMARK, [self.key("watermarks")], field, offset)

    async def lower_watermark(self, field: str, offset: int) -> None:
        """Take the group's watermark of a partition back to an offset, if it lies beyond."""
        await run_script(self.redis, _LOWER_WATERMARK, [self.key("watermarks")], field, offset)

    async def forget_partitions(
        self, incarnations: Collection[str], *, most: int = MOST_PARTITIONS
    ) -> bool:
        """Where the places of more partitions are kept, keep those of these topics alone.

        A topic that is made anew is another incarnation, whose places nobody asks for again.
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

    async def linked_user(self, session_id: str, *, now_s: float) -> str | None:
        """The user a session was linked to by an event that named both."""
        generation = int(now_s // self.settings.session_ttl_s)
        shard = shard_of(session_id)
        pipe = self.redis.pipeline(transaction=False)
        for n in (generation, generation - 1):
            pipe.hget(self.key(f"links:{n}:{shard}"), session_id)
        for user in await pipe.execute():
            if user is not None:
                return bytes(user).decode()
        return None

    async def item_indexes(self, item_ids: Sequence[str]) -> list[int]:
        """Index of each item; 0 where it is unknown."""
        if not item_ids:
            return []
        stored = await self.redis.hmget(self.key("items"), list(item_ids))
        return [int(index) if index is not None else 0 for index in stored]

    async def item_ids(self, indexes: Sequence[int]) -> list[str | None]:
        """Item id of each index."""
        if not indexes:
            return []
        stored = await self.redis.hmget(self.key("ids"), [str(index) for index in indexes])
        return [raw.decode() if raw is not None else None for raw in stored]

    async def owner_keys(self, numbers: Sequence[int]) -> list[str | None]:
        """Whose histories these are, "u:<user>" or "s:<session>"; None where they are gone."""
        pipe = self.redis.pipeline(transaction=False)
        for number in numbers:
            page, place = divmod(number, layout.OWNERS_PER_PAGE)
            pipe.hget(self.key(f"owners:{page}"), place)
        found = await pipe.execute() if numbers else []
        return [raw.decode() if raw is not None else None for raw in found]

    async def event_types(self) -> dict[int, str]:
        """Event type of each code seen so far."""
        stored = await self.redis.hgetall(self.key("types"))
        return {int(code): name.decode() for name, code in stored.items()}

    async def users_with_records(self, user_ids: Sequence[str]) -> set[str]:
        """Those of the users of whom there is metadata."""
        pipe = self.redis.pipeline(transaction=False)
        for user_id in user_ids:
            pipe.hexists(self.key("users"), user_id)
        held = await pipe.execute()
        return {user_id for user_id, is_held in zip(user_ids, held, strict=True) if is_held}

    async def user_data_counts(self, user_id: str, *, now_s: float) -> dict[str, int]:
        """What there is of a user: events, histories (the user's and of sessions), links, records.

        What an erasure removes, as far as it is in effect now.
        """
        own = [f"u:{user_id}", f"s:{user_id}"]
        sessions = [
            name
            for name in await self._sessions_of(f"u:{user_id}")
            if await self.linked_user(name, now_s=now_s) == user_id
        ]
        owners = [*own, *(f"s:{name}" for name in sessions if name != user_id)]
        raws = await self.redis.mget([self.key(f"history:{owner}") for owner in owners])
        return {
            "events": sum(len(unpack_history(raw).items) for raw in raws),
            "sessions": sum(raw is not None for raw in raws),
            "links": len(sessions),
            "records": len(await self.users_with_records([user_id])),
        }

    async def _sessions_of(self, owner: str) -> list[str]:
        """Sessions that were linked to the owner of a history, as apply_group.lua keeps them."""
        history = unpack_history(await self.redis.get(self.key(f"history:{owner}")))
        found: list[str] = []
        for number in history.numbers:
            page, place = divmod(number, layout.OWNERS_PER_PAGE)
            raw, at = await self.redis.hget(self.key(f"owners:{page}"), f"{place}s") or b"", 0
            while at < len(raw):
                _, size = SESSION_HEAD.unpack_from(raw, at)
                at += SESSION_HEAD.size + size
                found.append(raw[at - size : at].decode())
        return found

    async def erased_until(self, owners: Sequence[str]) -> list[float]:
        """Up to when all of these owners was erased, in seconds; 0 where nothing was.

        Owners are "u:<user>" or "s:<session>".
        """
        if not owners:
            return []
        digests = [
            hashlib.sha1(owner.encode(), usedforsecurity=False).hexdigest()[:24] for owner in owners
        ]
        scores = await self.redis.zmscore(self.key("erased"), digests)
        return [0.0 if score is None else score / 1000 for score in scores]

    async def save_ranker(
        self, fields: Mapping[str, bytes | str], *, field: str, expected: int, offset: int
    ) -> bool:
        """Keep the ranker's numbers with its watermark, if it is still the `expected` one.

        A learner that lost its partition to another thus cannot overwrite what that one learned.

        Parameters
        ----------
        field
            Names the partition the watermark belongs to, as in `watermarks`.
        """
        flat = [item for pair in fields.items() for item in pair]
        keys = [self.key("ranker")]
        saved = await run_script(
            self.redis, _SAVE_RANKER, keys, f"watermark:{field}", expected, offset, *flat
        )
        return bool(saved)

    async def load_ranker(self) -> dict[str, bytes]:
        """The ranker's numbers as `save_ranker` kept them; empty before the first time."""
        stored = await self.redis.hgetall(self.key("ranker"))
        return {name.decode(): bytes(value) for name, value in stored.items()}

    async def make_room(self) -> None:
        """Drop what is kept for attribution: it goes before anything that was learned."""
        groups = [
            self.settings.group,
            *(name.decode() for name in await self.redis.smembers(GROUPS)),
        ]
        for group in groups:
            book = f"{{{group}}}:served"
            numbers = await self.redis.hkeys(book)
            if numbers:
                await self.redis.unlink(*(f"{book}:{number.decode()}" for number in numbers))
                await self.redis.unlink(book)

    async def memory(self) -> Memory:
        """What the server says of its memory."""
        told = await self.redis.info("memory")
        return Memory(told["used_memory"], told["maxmemory"], told["maxmemory_policy"])

    async def ping(self) -> None:
        """Raise `Unavailable` unless the server answers."""
        try:
            await self.redis.ping()
        except AWAY_ERRORS as error:
            raise Unavailable(f"Redis does not answer: {error}") from error


def escaped(text: str) -> str:
    """The text as a literal in a Redis glob pattern."""
    return "".join(f"\\{c}" if c in "*?[]\\^" else c for c in text)


def stored_events(
    events: Iterable[Event], *, weights: Mapping[str, float], purchase_types: frozenset[str]
) -> list[StoredEvent]:
    """Events as the atomic step takes them; they must have ids, as `models.events.parse` gives."""
    stored = []
    for event in events:
        kind = event.event_type.lower()
        stored.append(
            StoredEvent(
                event.item_id or "",
                int(event.sent_at),
                event.event_type,
                math.log2(weights.get(kind, 1.0)),
                kind in purchase_types,
                event_hash(event.event_id or ""),
                context_values(event.properties),
                int(event.sent_at * 1000) % 1000,
            )
        )
    return stored
