"""Named configurations of a group, with their earlier versions, for all its processes.

    {group}:placements              hash    name -> current version (`SavedVersion` as JSON)
    {group}:placements:old:<name>   list    versions before it, the newest first
    {group}:segments, {group}:segments:old:<name>   the same of segments
    {group}:experiments[:old:…]             the same of experiments

A deletion is a version too, without a value, so that it can be rolled back. Every function raises
the errors of redis-py.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from models.errors import LimitExceeded
from models.state.scripts.registered_scripts import Script, run_script
from models.state.store import Store

NamedKind = Literal["placements", "segments", "experiments"]

MAX_NAMED = 200
"""Names of a kind in a group; of more, one that was deleted makes room, the oldest first."""

MAX_VERSIONS = 50
"""Earlier versions that are kept of a name."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"

# The number of a version stands first in its JSON, and a value last.
_SAVE = Script.of(
    """
local function number_of(raw) return tonumber(string.match(raw, '^{"version":(%d+)')) end
local function is_deleted(raw) return string.sub(raw, -13) == '"value":null}' end
local name, rest, most, versions = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local before = redis.call('HGET', KEYS[1], name)
local deletes = is_deleted('{' .. rest)
if deletes and (not before or is_deleted(before)) then return 0 end
if not before and redis.call('HLEN', KEYS[1]) >= most then
  local oldest, oldest_at
  local stored = redis.call('HGETALL', KEYS[1])
  for at = 2, #stored, 2 do
    local saved_at = tonumber(string.match(stored[at], '"saved_at":([%d.e+]+)'))
    if is_deleted(stored[at]) and (not oldest or saved_at < oldest_at) then
      oldest, oldest_at = stored[at - 1], saved_at
    end
  end
  if not oldest then return -1 end
  redis.call('HDEL', KEYS[1], oldest)
  redis.call('DEL', KEYS[1] .. ':old:' .. oldest)
end
local version = 1
if before then
  version = number_of(before) + 1
  local old = KEYS[1] .. ':old:' .. name
  redis.call('LPUSH', old, before)
  redis.call('LTRIM', old, 0, versions - 1)
end
redis.call('HSET', KEYS[1], name, string.format('{"version":%d,', version) .. rest)
return version
"""
)


class SavedVersion(msgspec.Struct, frozen=True):
    """One version of a named configuration.

    Attributes
    ----------
    version
        Counts from 1.
    saved_at, saved_by
        Unix seconds, and the name of the API key.
    value
        The configuration as JSON; null where this version deleted it.
    """

    version: int
    saved_at: float
    saved_by: str
    value: msgspec.Raw

    @property
    def is_deleted(self) -> bool:
        """True if there is nothing of that name as of this version."""
        return bytes(self.value) == b"null"


class _NewVersion(msgspec.Struct):
    saved_at: float
    saved_by: str
    value: msgspec.Raw


_decode = msgspec.json.Decoder(SavedVersion).decode


async def save_version(
    store: Store, kind: NamedKind, name: str, value: bytes | None, *, saved_by: str, now_s: float
) -> int:
    """Save a new version, None to delete; gives its number, or 0 if there is nothing to delete.

    Raises
    ------
    LimitExceeded
        There are `MAX_NAMED` names already.
    """
    new = _NewVersion(now_s, saved_by, msgspec.Raw(b"null" if value is None else value))
    rest = msgspec.json.encode(new)[1:]
    keys = [store.key(kind)]
    version = await run_script(store.redis, _SAVE, keys, name, rest, MAX_NAMED, MAX_VERSIONS)
    if version < 0:
        raise LimitExceeded(f"there are {MAX_NAMED} {kind}: delete one first")
    return int(version)


async def current_version(store: Store, kind: NamedKind, name: str) -> SavedVersion | None:
    """The current version of a name; None where there is none, or it was deleted."""
    raw = await store.redis.hget(store.key(kind), name)
    found = None if raw is None else _decode(raw)
    return None if found is None or found.is_deleted else found


async def current_versions(store: Store, kind: NamedKind) -> dict[str, SavedVersion]:
    """The current version of each name that was not deleted, by name."""
    stored = await store.redis.hgetall(store.key(kind))
    found = {name.decode(): _decode(raw) for name, raw in sorted(stored.items())}
    return {name: one for name, one in found.items() if not one.is_deleted}


async def all_versions(store: Store, kind: NamedKind, name: str) -> list[SavedVersion]:
    """The current version and those before it, the newest first; empty for an unknown name."""
    pipe = store.redis.pipeline(transaction=False)
    pipe.hget(store.key(kind), name)
    pipe.lrange(store.key(f"{kind}:old:{name}"), 0, -1)
    current, old = await pipe.execute()
    return [_decode(raw) for raw in ([] if current is None else [current, *old])]
