"""The registry of dataset groups and of the tracking ids that lead to them.

    {recommender}:trackers      hash    tracking id -> group
    {recommender}:former        hash    removed tracking id -> when, in s, and group
    {recommender}:groups        set     the groups beside that of the settings
    {recommender}:scratch       hash    scratch group -> path of the job that it belongs to
    {recommender}:restoring     string  the command that replaces all state, until it has ended

`models.state.tenants` has the rules; every function here raises the errors of redis-py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

from models.metadata_records import normalized
from models.state.clients.client import RedisClient
from models.state.scripts.registered_scripts import Script, run_script

REGISTRY = "recommender"
"""Hash tag of the keys that are no group's."""

GROUPS = "{recommender}:groups"
TRACKERS = "{recommender}:trackers"
FORMER = "{recommender}:former"
SCRATCH_GROUPS = "{recommender}:scratch"
RESTORING = "{recommender}:restoring"

MAX_FORMER = 10_000
"""Removed tracking ids that are remembered, at most; those removed first are forgotten first."""

CHUNK = 1000
"""Keys of one command, at most."""

_REGISTER = Script.of(
    """
local group = redis.call('HGET', KEYS[1], ARGV[1])
if group then return group end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return false end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[1])
if ARGV[4] ~= ARGV[2] then redis.call('SADD', KEYS[2], ARGV[2]) end
return ARGV[2]
"""
)

_SET_COLUMNS = Script.of(
    """
if KEYS[2] and redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 0 then return end
redis.call('DEL', KEYS[1])
if #ARGV > 1 then redis.call('SADD', KEYS[1], unpack(ARGV, 2)) end
"""
)

_REMOVE = Script.of(
    """
local group = redis.call('HGET', KEYS[1], ARGV[1])
if not group then return end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' ' .. group)
if redis.call('HLEN', KEYS[2]) <= tonumber(ARGV[3]) then return end
local former, first, first_s = redis.call('HGETALL', KEYS[2]), nil, math.huge
for at = 1, #former, 2 do
  local removed_s = tonumber(string.match(former[at + 1], '^%S+'))
  if removed_s < first_s then first, first_s = former[at], removed_s end
end
redis.call('HDEL', KEYS[2], first)
"""
)

_UNREGISTER = Script.of(
    """
redis.call('SREM', KEYS[2], ARGV[1])
for number, key in ipairs({KEYS[1], KEYS[3]}) do
  local trackers = redis.call('HGETALL', key)
  for at = 1, #trackers, 2 do
    local group = number == 1 and trackers[at + 1] or string.match(trackers[at + 1], ' (.*)$')
    if group == ARGV[1] then redis.call('HDEL', key, trackers[at]) end
  end
end
"""
)


async def registered_group(client: RedisClient, tracking_id: str) -> str | None:
    """The group that a tracking id is registered for; None if it is not."""
    raw = await client.hget(TRACKERS, tracking_id)
    return None if raw is None else bytes(raw).decode()


async def former_group(client: RedisClient, tracking_id: str) -> tuple[str, float] | None:
    """The group of a tracking id that was removed, and when, in s; None if that is not known."""
    raw = await client.hget(FORMER, tracking_id)
    if raw is None:
        return None
    removed_s, _, group = bytes(raw).decode().partition(" ")
    return group, float(removed_s)


async def registered_groups(client: RedisClient) -> frozenset[str]:
    """All groups but that of the settings."""
    return frozenset(name.decode() for name in await client.smembers(GROUPS))


async def unfinished_replacement(client: RedisClient) -> str | None:
    """The command that is replacing all state, or was broken off; None if the state is whole."""
    raw = await client.get(RESTORING)
    return None if raw is None else bytes(raw).decode(errors="replace")


async def add_group(client: RedisClient, group: str) -> None:
    """Add a group to the registry; one that is there stays as it is."""
    await client.sadd(GROUPS, group)


async def register_tracker(
    client: RedisClient, tracking_id: str, group: str, *, settings_group: str, most: int
) -> str | None:
    """Register a tracking id for a group, and the group with it, unless it is another's.

    Returns the group that it is registered for now; None where there are `most` already.
    """
    keys = [TRACKERS, GROUPS, FORMER]
    raw = await run_script(client, _REGISTER, keys, tracking_id, group, most, settings_group)
    return None if raw is None else bytes(raw).decode()


async def remove_tracker(client: RedisClient, tracking_id: str, *, now_s: float) -> None:
    """Remove a tracking id, which is remembered as a former one; none is no error."""
    keys = [TRACKERS, FORMER]
    await run_script(client, _REMOVE, keys, tracking_id, f"{now_s:.3f}", MAX_FORMER)


async def set_context_columns(
    client: RedisClient, group: str, columns: Collection[str], *, settings_group: str
) -> None:
    """Replace a group's contextual columns, unless the group does not exist."""
    keys = [f"{{{group}}}:columns", *([] if group == settings_group else [GROUPS])]
    names = sorted({normalized(column) for column in columns})
    await run_script(client, _SET_COLUMNS, keys, group, *names)


async def copy_tombstones(client: RedisClient, group: str, other: str) -> None:
    """Let users who are erased in one group be so in another."""
    target = f"{{{other}}}:erased"
    await client.zunionstore(target, [f"{{{group}}}:erased", target], aggregate="MAX")


async def add_scratch_group(client: RedisClient, group: str, job_path: str) -> None:
    """Remember a scratch group, and the job that it belongs to."""
    await client.hset(SCRATCH_GROUPS, group, job_path)


async def remove_scratch_group(client: RedisClient, group: str) -> None:
    """Forget a scratch group."""
    await client.hdel(SCRATCH_GROUPS, group)


async def scratch_groups(client: RedisClient) -> dict[str, str]:
    """Paths of the jobs that scratch groups belong to, by group."""
    found = await client.hgetall(SCRATCH_GROUPS)
    return {group.decode(): path.decode() for group, path in found.items()}


async def erase_group(client: RedisClient, group: str) -> None:
    """Remove a group, its tracking ids and all its keys; O(keys of all groups)."""
    # First, so that no atomic step writes behind the deletion.
    await run_script(client, _UNREGISTER, [TRACKERS, GROUPS, FORMER], group)
    async for keys in scan_keys(client, f"{{{group}}}:"):
        await client.unlink(*keys)
    # Anything has changed (channels.py).
    await client.publish(f"{{{group}}}:changed", b"")


async def scan_keys(client: RedisClient, prefix: str) -> AsyncIterator[list[bytes]]:
    """Keys that start with a prefix, `CHUNK` at a time; O(keys of all groups).

    A key may come twice, as SCAN gives it.
    """
    found: list[bytes] = []
    async for key in client.scan_iter(match=_glob_literal(prefix) + "*", count=CHUNK):
        found.append(key)
        if len(found) == CHUNK:
            yield found
            found = []
    if found:
        yield found


def _glob_literal(text: str) -> str:
    """The text as a literal in a Redis glob pattern."""
    return "".join(f"\\{c}" if c in "*?[]\\^" else c for c in text)
