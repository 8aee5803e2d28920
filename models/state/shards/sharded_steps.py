"""The atomic steps of a group's shards, and the outboxes; `shard_names` has their form.

Every method is one script on keys of one slot, or reads. The caller keeps the order: it publishes
what a session shard's step leaves, and applies what it reads of the topics of deltas. What is
published twice or in another order is applied once and in order, whatever process dies between any
two calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from models.settings import Settings
from models.state import layout
from models.state.clients.client import RedisClient
from models.state.clients.cluster_reads import ClusterReads
from models.state.clients.redis_errors import AWAY_ERRORS, is_frozen
from models.state.messages import Part, PartResult, StoredEvent, StoredMessage
from models.state.scripts.lua_source import OUTCOME_FUNCTIONS, make_script
from models.state.scripts.registered_scripts import Script, run_script, run_step
from models.state.shards.at_once import at_once
from models.state.shards.merged_answers import scored_members
from models.state.shards.shard_names import (
    DELTAS,
    MAX_SHARDS,
    DeltaPart,
    ShardKind,
    owner_shard,
    shard_name,
    shard_prefix,
)
from models.state.shards.split_lists import (
    NO_SPLITS,
    READ_EVERY_S,
    SPLIT_AHEAD_S,
    ListSplit,
    Splits,
    splits_of,
    splits_text,
)
from models.state.store import Store

_RECORDS = (StoredMessage, StoredEvent)

SESSION_STEP = make_script(
    "apply_session_shard",
    shared=("prelude", "frozen", "history_columns", "shard_outbox", "delta_parts"),
    functions=(
        "histories",
        *OUTCOME_FUNCTIONS,
        "recent_ids",
        "withdrawals",
        "apply_group",
    ),
    records=_RECORDS,
    part=Part,
    constants={f"{name}_DELTA": kind for name, kind in DELTAS.items()},
)

ITEM_STEP = make_script(
    "apply_item_shard",
    shared=("prelude", "frozen", "record_lists", "delta_parts"),
    functions=("terms", "items", "pair_lists", "recent_owners", "context_counts"),
    records=_RECORDS,
    part=Part,
    constants={f"{name}_DELTA": kind for name, kind in DELTAS.items()},
)

_TRIM_OUTBOX = Script.of("""
local n = 0
local function is_applied(value, applied)
  local size = struct.unpack('<I', value)
  for _, run in ipairs(cmsgpack.unpack(string.sub(value, 5, 4 + size))) do
    if (applied[run[1]] or -1) < run[3] then return false end
  end
  return true
end
for number, applied in ipairs(cmsgpack.unpack(ARGV[1])) do
  local key = KEYS[number]
  local value = redis.call('LINDEX', key, 0)
  while value and is_applied(value, applied) do
    redis.call('LPOP', key)
    n, value = n + 1, redis.call('LINDEX', key, 0)
  end
end
return n
""")


class SessionStepResult(NamedTuple):
    """Effects of a session shard's step.

    Attributes
    ----------
    events, deltas
        Results of the parts of events, and of deltas.
    counts
        Events, purchases, duplicates and so on that took effect.
    n_gaps
        Runs of deltas that were left, because some before them have not come yet.
    outbox
        Values to publish, each with its shard's name: `i03`, `u00`.
    """

    events: list[PartResult]
    deltas: list[PartResult]
    counts: dict[str, int]
    n_gaps: int
    outbox: list[tuple[str, bytes]]


class ItemStepResult(NamedTuple):
    """Effects of an item shard's step; as `SessionStepResult`."""

    deltas: list[PartResult]
    counts: dict[str, int]
    n_gaps: int


class ShardedSteps:
    """Steps and outboxes of all shards of one group.

    Parameters
    ----------
    shards
        Session shards, and item shards, of the group.

    Raises
    ------
    ValueError
        There are fewer than 2 shards, or more than `MAX_SHARDS`.
    """

    def __init__(self, client: RedisClient, settings: Settings, *, shards: int) -> None:
        if not 2 <= shards <= MAX_SHARDS:
            raise ValueError(f"a sharded group has 2 to {MAX_SHARDS} shards, not {shards}")
        self.redis = client
        self.settings = settings
        self.shards = shards
        self._splits, self._splits_read_s = NO_SPLITS, -math.inf
        limits: Any = Store(client, settings).request["limits"]
        # Outcomes of served lists do not know shards; an item shard has its share of the items.
        self._limits: dict[str, Any] = {
            **limits,
            "outcome_window": 0,
            "items": -(-settings.max_items // shards),
        }

    def is_absence(self, error: BaseException) -> bool:
        """True for an error of a shard without which others may go on: on a cluster.

        Who is frozen is not away: all are, as the group moves.
        """
        reads = self.redis.reads
        has_nodes = isinstance(reads, ClusterReads) and reads.tells_absence
        return has_nodes and isinstance(error, AWAY_ERRORS) and not is_frozen(error)

    def session_key(self, shard: int, name: str) -> str:
        """A full key of a session shard."""
        return self._prefix("u", shard) + name

    def item_key(self, shard: int, name: str) -> str:
        """A full key of an item shard."""
        return self._prefix("i", shard) + name

    async def apply_events(
        self,
        shard: int,
        parts: Sequence[Part],
        deltas: Sequence[DeltaPart] = (),
        *,
        indexes: Mapping[str, int],
        types: Mapping[str, int],
        now_s: float,
    ) -> SessionStepResult:
        """Apply messages, and deltas of other session shards, in one session shard.

        `indexes` has the item ids of the events, and `types` their event types; an event on an item
        without an index is refused with the status `full`.
        """
        request = self._request("u", shard, now_s)
        if now_s > self._splits_read_s + READ_EVERY_S:
            newest_s = now_s + self.settings.future_limit_s
            if not deltas:
                messages = [message for part in parts for message in part.messages]
                newest_s = max((e.time for one in messages for e in one.events), default=0)
            await self._renew_splits(newest_s, now_s)
        request |= {"parts": parts, "indexes": indexes, "types": types, "split": self._splits}
        key = self.session_key(shard, "watermarks")
        packed, *outbox = await self._run(SESSION_STEP, key, request, deltas)
        of_events, of_deltas, counts, n_gaps = msgspec.msgpack.decode(
            packed, type=tuple[list[PartResult], list[PartResult], dict[str, int], int]
        )
        values = zip((name.decode() for name in outbox[::2]), outbox[1::2], strict=True)
        return SessionStepResult(of_events, of_deltas, counts, n_gaps, list(values))

    async def apply_deltas(
        self, shard: int, deltas: Sequence[DeltaPart], *, now_s: float
    ) -> ItemStepResult:
        """Apply deltas in one item shard."""
        request = self._request("i", shard, now_s)
        raw = await self._run(ITEM_STEP, self.item_key(shard, "watermarks"), request, deltas)
        return msgspec.msgpack.decode(raw, type=ItemStepResult)

    async def _renew_splits(self, newest_s: float, now_s: float) -> None:
        """Read the splits; where their shard is away, go on with those that are known.

        None that is not known holds yet for events up to some time; `newest_s` is the newest one's.
        """
        try:
            await self.read_splits(now_s)
        except AWAY_ERRORS as error:
            known_until_s = self._splits_read_s + self.settings.future_limit_s + SPLIT_AHEAD_S / 2
            if not self.is_absence(error) or newest_s > known_until_s:
                raise

    async def read_splits(self, now_s: float) -> Splits:
        """The splits of lists of neighbours; steps go by them until they are read again."""
        self._splits = splits_of(await self.redis.hgetall(self.item_key(0, "split")))
        self._splits_read_s = now_s
        return self._splits

    async def popularities(self) -> dict[int, float]:
        """Logarithm of the last hour's decayed events, of the most popular items of each shard."""
        answers = await at_once(
            self.redis.reads.run(("ZRANGE", self.item_key(shard, "top:hour"), 0, -1, "WITHSCORES"))
            for shard in range(self.shards)
        )
        return {int(raw): score for (one,) in answers for raw, score in scored_members(one)}

    async def split_lists(self, splits: Mapping[int, Sequence[ListSplit]]) -> None:
        """Write down splits; all of an item's."""
        if splits:
            texts = {str(index): splits_text(every) for index, every in splits.items()}
            await self.redis.hset(self.item_key(0, "split"), mapping=texts)

    async def waiting_values(self, shard: int, destination: str, *, most: int = 100) -> list[bytes]:
        """The oldest values of a session shard's outbox for a shard."""
        key = self.session_key(shard, f"outbox:{destination}")
        return list(await self.redis.lrange(key, 0, most - 1))

    async def outbox_sizes(self, shard: int, destinations: Sequence[str]) -> list[int]:
        """Number of values that wait in each outbox of a session shard."""
        keys = [self.session_key(shard, f"outbox:{destination}") for destination in destinations]
        found = await self.redis.reads.run(*(("LLEN", key) for key in keys))
        return [int(size) for size in found]

    async def applied_sources(self, destination: str) -> dict[str, int]:
        """Offset of the last deltas that a shard has applied, of each source."""
        prefix = self._prefix("u" if destination[0] == "u" else "i", int(destination[1:]))
        stored = await self.redis.hgetall(prefix + "sources")
        return {source.decode(): int(offset) for source, offset in stored.items()}

    async def trim_outbox(self, shard: int, applied: Mapping[str, Mapping[str, int]]) -> int:
        """Take from a session shard's outbox what others have applied; returns how many values.

        `applied` has by destination what `applied_sources` gives, or the part of it of this shard.
        """
        keys = [self.session_key(shard, f"outbox:{destination}") for destination in applied]
        own = f"{shard_name('u', shard)}/"
        marks = [
            {source: mark for source, mark in of_sources.items() if source.startswith(own)}
            for of_sources in applied.values()
        ]
        packed = msgspec.msgpack.encode(marks)
        return int(await run_script(self.redis, _TRIM_OUTBOX, keys, packed)) if keys else 0

    async def indexes_of(self, item_ids: Sequence[str]) -> dict[str, int]:
        """Index of each item that has one."""
        by_shard: dict[int, list[str]] = {}
        for item_id in item_ids:
            by_shard.setdefault(owner_shard(item_id, self.shards), []).append(item_id)
        answers = await at_once(
            (
                self.redis.hmget(self.item_key(shard, "items"), names)
                for shard, names in by_shard.items()
            )
        )
        return {
            name: int(raw)
            for names, stored in zip(by_shard.values(), answers, strict=True)
            for name, raw in zip(names, stored, strict=True)
            if raw
        }

    async def is_full(self, shard: int) -> bool:
        """True if an item shard gives no more indexes."""
        n_items = int(await self.redis.hlen(self.item_key(shard, "items")))
        return n_items >= int(self._limits["items"])

    async def are_types_full(self) -> bool:
        """True if no more event types get a code."""
        return int(await self.redis.hlen(self.item_key(0, "types"))) >= layout.TYPES

    async def type_codes(self) -> dict[str, int]:
        """Code of each event type."""
        stored = await self.redis.hgetall(self.item_key(0, "types"))
        return {name.decode(): int(code) for name, code in stored.items()}

    def _prefix(self, kind: ShardKind, shard: int) -> str:
        return shard_prefix(self.settings.group, kind, shard, self.settings.generation)

    def _request(self, kind: ShardKind, shard: int, now_s: float) -> dict[str, Any]:
        return {
            "prefix": self._prefix(kind, shard),
            "now": now_s,
            "limits": self._limits,
            "shard": shard,
            "shards": self.shards,
        }

    async def _run(
        self, script: Script, key: str, request: dict[str, Any], deltas: Sequence[DeltaPart]
    ) -> Any:  # noqa: ANN401  whatever a script returns
        # Packed runs follow as arguments of their own: MessagePack of scripts knows no bytes.
        runs: list[bytes] = []
        parts = []
        for part in deltas:
            messages = []
            for message in part.messages:
                runs.append(message.runs)
                messages.append(
                    (message.offset, len(runs) + 1, message.timestamp_ms, message.checksum)
                )
            parts.append((part.field, part.expected, messages, part.checksum))
        payload = msgspec.msgpack.encode(request | {"deltas": parts})
        return await run_step(self.redis, script, [key], payload, *runs)
