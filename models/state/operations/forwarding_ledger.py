"""The forwarder's ledger in Redis: its position in each partition, and counts of outcomes.

Keys start with the dataset group in braces, so that a group lives on one node of a cluster:

    {group}:forward:positions   hash    <incarnation>/<partition> -> next offset to forward
    {group}:forward:counts      hash    the fields of `ForwardCounts`
    {group}:forward:trackers    hash    the same of each tracker: <tracking id>/<field>
    {group}:forward:waiting     hash    <incarnation>/<partition> -> events that were read and that
                                        AWS has not answered: {<tracking id>: [events, since]}

All functions raise `Unavailable` if Redis does not answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import msgspec

from models.state.clients.client import RedisClient
from models.state.clients.redis_errors import unavailable
from models.state.scripts.registered_scripts import Script, run_script

MAX_TEXT_CHARS = 300

_SAVE = Script.of(
    """
local save = cjson.decode(ARGV[1])
local function add(tracker, counts)
  for name, n in pairs(counts) do
    redis.call('HINCRBY', KEYS[2], name, n)
    if tracker ~= '' then redis.call('HINCRBY', KEYS[3], tracker .. '/' .. name, n) end
  end
end
for field, move in pairs(save.moves) do
  if tonumber(move.offset) > tonumber(redis.call('HGET', KEYS[1], field) or '-1') then
    redis.call('HSET', KEYS[1], field, move.offset)
    for tracker, outcomes in pairs(move.outcomes) do add(tracker, outcomes) end
  end
end
for tracker, calls in pairs(save.calls) do add(tracker, calls) end
for tracker, notes in pairs(save.notes) do
  for name, text in pairs(notes) do
    redis.call('HSET', KEYS[2], name, text)
    redis.call('HSET', KEYS[3], tracker .. '/' .. name, text)
  end
end
for field, waiting in pairs(save.waiting) do
  if waiting == '' then redis.call('HDEL', KEYS[4], field)
  else redis.call('HSET', KEYS[4], field, waiting) end
end
"""
)


class TrackerChange(NamedTuple):
    """A partition's next offset to forward, and counts of outcomes of the events before it.

    The outcomes are by tracking id; those of messages without one are under "".
    """

    offset: int
    outcomes: Mapping[str, Mapping[str, int]]


class WaitingEvents(NamedTuple):
    """Number of events read from Kafka that AWS has not answered, and since when (Unix seconds)."""

    events: int
    since_s: float


@dataclass(frozen=True)
class ForwardCounts:
    """Counts of a group's forwarders so far, in all or for one tracker.

    Attributes
    ----------
    forwarded, refused
        Events that AWS accepted, and events that it refused (they are dead letters).
    withheld
        Events that the settings exclude, by type or because their session is not in the sample,
        and events whose user has been erased since.
    skipped
        Messages that could not be decoded, or whose tracker is not forwarded.
    calls, retries, throttles
        PutEvents calls, failed calls that are repeated, and those among them that AWS throttled.
    last_error, last_error_at, last_success_at
        The last failed call and the last successful one; Unix seconds, 0 without one.
    """

    forwarded: int = 0
    refused: int = 0
    withheld: int = 0
    skipped: int = 0
    calls: int = 0
    retries: int = 0
    throttles: int = 0
    last_error: str = ""
    last_error_at: float = 0.0
    last_success_at: float = 0.0


_WAITING = dict[str, tuple[int, float]]


async def forward_counts(client: RedisClient, group: str) -> ForwardCounts:
    """Counters of the group, as last saved."""
    return msgspec.convert(await _read(client, _key(group, "counts")), ForwardCounts, strict=False)


async def tracker_counts(client: RedisClient, group: str) -> dict[str, ForwardCounts]:
    """Counters of each tracker, by tracking id."""
    fields: dict[str, dict[str, str]] = {}
    for field, value in (await _read(client, _key(group, "trackers"))).items():
        tracker, _, name = field.rpartition("/")
        fields.setdefault(tracker, {})[name] = value
    return {
        tracker: msgspec.convert(values, ForwardCounts, strict=False)
        for tracker, values in sorted(fields.items())
    }


async def tracker_waiting(client: RedisClient, group: str) -> dict[str, WaitingEvents]:
    """Events that forwarders have read and AWS has not answered, by tracking id."""
    found: dict[str, WaitingEvents] = {}
    for text in (await _read(client, _key(group, "waiting"))).values():
        for tracker, (events, since_s) in msgspec.json.decode(text, type=_WAITING).items():
            before = found.get(tracker, WaitingEvents(0, since_s))
            found[tracker] = WaitingEvents(before.events + events, min(before.since_s, since_s))
    return found


async def tracker_status(
    client: RedisClient, group: str, *, now_s: float
) -> dict[str, dict[str, float | str]]:
    """Status of each tracker for operators, by tracking id.

    The fields of `ForwardCounts`, `waiting` (events that AWS has not answered), and
    `oldest_waiting_age_s`, 0 without any.
    """
    counts = await tracker_counts(client, group)
    held = await tracker_waiting(client, group)
    told: dict[str, dict[str, float | str]] = {}
    for tracker, one in counts.items():
        events, since_s = held.get(tracker, (0, now_s))
        age_s = round(max(0.0, now_s - since_s), 3)
        told[tracker] = asdict(one) | {"waiting": events, "oldest_waiting_age_s": age_s}
    return told


async def forward_positions(client: RedisClient, group: str) -> dict[str, int]:
    """Next offset to forward of each `<incarnation>/<partition>`; absent without a position."""
    stored = await _read(client, _key(group, "positions"))
    return {field: int(offset) for field, offset in stored.items()}


async def save_forward(
    client: RedisClient,
    group: str,
    *,
    moves: Mapping[str, TrackerChange] = {},
    calls: Mapping[str, Mapping[str, int]] = {},
    notes: Mapping[str, Mapping[str, str | float]] = {},
    waiting: Mapping[str, Mapping[str, WaitingEvents]] = {},
) -> None:
    """Move positions forward and add counts, in one atomic step.

    A position never moves back, and outcomes count only where a position moves: neither a
    repeated save nor a forwarder that has lost its partitions counts an event twice.

    Parameters
    ----------
    moves
        By `<incarnation>/<partition>`; outcomes are `forwarded`, `refused`, `withheld`, `skipped`.
    calls
        By tracking id, added even if no position moves: `calls`, `retries`, `throttles`.
    notes
        By tracking id, set as they are: `last_error`, `last_error_at`, `last_success_at`.
    waiting
        By `<incarnation>/<partition>`, and then by tracking id; replaces the partition's entry.

    Raises
    ------
    Unavailable
        The step may or may not have happened; repeating it is harmless.
    """
    # As text, because Lua would write a large number as 1e+15.
    save = {
        "moves": {
            field: {"offset": str(move.offset), "outcomes": _each(move.outcomes)}
            for field, move in moves.items()
        },
        "calls": _each(calls),
        "notes": _each(notes),
        "waiting": {
            field: msgspec.json.encode(by_tracker).decode() if by_tracker else ""
            for field, by_tracker in waiting.items()
        },
    }
    keys = [_key(group, name) for name in ("positions", "counts", "trackers", "waiting")]
    with unavailable("Redis did not save the forwarder's ledger"):
        await run_script(client, _SAVE, keys, msgspec.json.encode(save))


def _each(values: Mapping[str, Mapping[str, str | float]]) -> dict[str, dict[str, str]]:
    return {
        tracker: {name: str(value)[:MAX_TEXT_CHARS] for name, value in named.items()}
        for tracker, named in values.items()
    }


def _key(group: str, name: str) -> str:
    return f"{{{group}}}:forward:{name}"


async def _read(client: RedisClient, key: str) -> dict[str, str]:
    with unavailable():
        stored: Mapping[Any, Any] = await client.hgetall(key)
    return {_text(name): _text(value) for name, value in stored.items()}


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw
