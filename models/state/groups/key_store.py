"""API keys in Redis, for any number of processes at once.

    {recommender}:keys              hash    id -> `ApiKey` as JSON
    {recommender}:keys:version      string  random; another after each change
    {recommender}:keys:used:<day>   hash    id -> requests of the day, of keys with a daily quota

Every function raises the errors of redis-py.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import msgspec

from models.api_keys import PERSON, ApiKey
from models.errors import LimitExceeded
from models.state.clients.client import RedisClient
from models.state.scripts.registered_scripts import Script, run_script

KEYS = "{recommender}:keys"
VERSION = f"{KEYS}:version"
USED = f"{KEYS}:used"

MAX_KEYS = 1000
"""Keys that there may be; every API process holds all of them."""

MAX_SESSIONS = 16
"""Sessions of browsers that one key may have at once; a further one ends the oldest."""

MAX_PERSONS_SESSIONS = 1000
"""Sessions of all persons of the login's provider; a further one ends the oldest of them."""

USED_KEPT_S = 2 * 86400

# Sessions of a key, or of a person, beyond the bound go, oldest first, then those of all persons,
# and with them what has expired.
_ADD = Script.of(
    """
local key = cjson.decode(ARGV[2])
local stored = redis.call('HGETALL', KEYS[1])
local sessions, persons, n = {}, {}, 0
local person = ARGV[7]
local function is_of_person(parent) return string.sub(parent, 1, #person) == person end
local function end_oldest(list, most)
  table.sort(list, function(a, b) return a[1] < b[1] end)
  for at = 1, #list - most + 1 do redis.call('HDEL', KEYS[1], list[at][2]) end
end
for at = 1, #stored, 2 do
  local other = cjson.decode(stored[at + 1])
  local parent = other.parent or ''
  if parent ~= '' and other.expires_s <= tonumber(ARGV[4]) then
    redis.call('HDEL', KEYS[1], stored[at])
  elseif parent == '' then
    n = n + 1
  else
    if parent == key.parent then table.insert(sessions, {other.created_s, stored[at]}) end
    if is_of_person(parent) then table.insert(persons, {other.created_s, stored[at]}) end
  end
end
if key.parent == nil then
  if n >= tonumber(ARGV[3]) then return 0 end
else
  if is_of_person(key.parent) then
    end_oldest(persons, tonumber(ARGV[8]))
  elseif redis.call('HEXISTS', KEYS[1], key.parent) == 0 then
    return 0
  end
  end_oldest(sessions, tonumber(ARGV[5]))
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[6])
return 1
"""
)

_REMOVE = Script.of(
    """
local found = redis.call('HGET', KEYS[1], ARGV[1])
if not found then return false end
local stored = redis.call('HGETALL', KEYS[1])
for at = 1, #stored, 2 do
  if cjson.decode(stored[at + 1]).parent == ARGV[1] then redis.call('HDEL', KEYS[1], stored[at]) end
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
return found
"""
)

_COUNT = Script.of(
    """
local totals = {}
for at = 2, #ARGV, 2 do
  totals[at / 2] = redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return totals
"""
)


async def add_key(client: RedisClient, key: ApiKey, *, now_s: float) -> None:
    """Store a key.

    Raises
    ------
    LimitExceeded
        There are `MAX_KEYS` already; or it is a session, and its parent was revoked.
    """
    text = msgspec.json.encode(key)
    version = secrets.token_hex(16)
    bounds = (MAX_KEYS, now_s, MAX_SESSIONS, version, PERSON, MAX_PERSONS_SESSIONS)
    arguments = (key.id, text, *bounds)
    if not await run_script(client, _ADD, [KEYS, VERSION], *arguments):
        raise LimitExceeded(
            "its key was revoked" if key.parent else f"there are {MAX_KEYS} keys: revoke one first"
        )


async def remove_key(client: RedisClient, key_id: str) -> ApiKey | None:
    """Remove a key and its sessions; gives the key, or None if there is none."""
    arguments = (key_id, secrets.token_hex(16))
    found = await run_script(client, _REMOVE, [KEYS, VERSION], *arguments)
    return None if found is None else msgspec.json.decode(found, type=ApiKey)


async def stored_keys(client: RedisClient) -> list[ApiKey]:
    """All keys and sessions, oldest first."""
    texts = await client.hvals(KEYS)
    found = [msgspec.json.decode(text, type=ApiKey) for text in texts]
    return sorted(found, key=lambda key: (key.created_s, key.id))


async def has_keys(client: RedisClient) -> bool:
    """True if there is any key."""
    return bool(await client.hlen(KEYS))


async def keys_version(client: RedisClient) -> bytes:
    """A value that every change of the keys replaces; empty before the first."""
    return await client.get(VERSION) or b""


async def count_requests(
    client: RedisClient, requests: Mapping[str, int], *, day: int
) -> dict[str, int]:
    """Add requests to those of a day by key id; gives the totals of all processes.

    `day` counts from the epoch. A call that is sent again after a lost answer counts twice.
    """
    pairs = [part for pair in requests.items() for part in pair]
    totals = await run_script(client, _COUNT, [f"{USED}:{day}"], USED_KEPT_S, *pairs)
    return dict(zip(requests, map(int, totals), strict=True))
