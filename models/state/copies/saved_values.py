"""Values of keys in a form of their own, which any version of Redis or Valkey takes back.

The payload of Redis' own DUMP names the version that made it, and an older server, or one of the
other family, refuses it. Here a value is its members as bytes, by type; a large one has pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

MOST_MEMBERS = 10_000
"""Members that are read or written at once: a few milliseconds of the server's time."""

MOST_ARGUMENTS = 1_000
"""Members in one command."""

WriteCommand = tuple[str | bytes | int, ...]

READ_KEYS = """
-- Of each key: its type, when it expires (Unix milliseconds; -1: never), its members. Of one that
-- has more than ARGV[1] there are none, nor of a type without a reader here.
local SIZES = {hash = 'HLEN', set = 'SCARD', zset = 'ZCARD'}
local READERS = {
  string = {'GET'}, hash = {'HGETALL'}, set = {'SMEMBERS'}, list = {'LRANGE', 0, -1},
  zset = {'ZRANGE', 0, -1, 'WITHSCORES'},
}

local function members(key, kind)
  local size, reader = SIZES[kind], READERS[kind]
  if not reader or size and redis.call(size, key) > tonumber(ARGV[1]) then return false end
  local found = redis.call(reader[1], key, unpack(reader, 2))
  return kind == 'string' and {found} or found
end

local answer = {}
for n, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then
    answer[n] = {'gone', -1, {}}
  else
    answer[n] = {kind, redis.call('PEXPIRETIME', key), members(key, kind)}
  end
end
return answer
"""

READ_MEMBERS = """
-- Members of a large key from a cursor on, as READ_KEYS does, and the next cursor; 0: the end.
local SCANS = {hash = 'HSCAN', set = 'SSCAN', zset = 'ZSCAN'}
local kind = redis.call('TYPE', KEYS[1]).ok
if not SCANS[kind] then return {'gone', -1, {}, '0'} end
local found = redis.call(SCANS[kind], KEYS[1], ARGV[2], 'COUNT', ARGV[1])
return {kind, redis.call('PEXPIRETIME', KEYS[1]), found[2], found[1]}
"""

KINDS = ("string", "hash", "set", "zset", "list")
"""Types of keys; of streams and of modules there are none."""


class SavedValue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Value of a key as it was read, or a piece of it.

    Attributes
    ----------
    kind
        Its type; `gone` where there was no such key.
    expires_at_ms
        Unix milliseconds; -1: never.
    members
        The one value of a string; fields, each with its value behind it, of a hash; members, each
        with its score behind it, of a sorted set.
    is_continued
        True if it adds to the value before, which is of the same key.
    """

    key: bytes
    kind: Literal["gone", "string", "hash", "set", "zset", "list"]
    expires_at_ms: int
    members: list[bytes]
    is_continued: bool = False


def writing(value: SavedValue) -> Iterator[WriteCommand]:
    """Commands that give a key this value, whatever it held before.

    >>> list(writing(SavedValue(b"k", "string", 5, [b"v"])))
    [('DEL', b'k'), ('SET', b'k', b'v'), ('PEXPIREAT', b'k', 5)]
    >>> list(writing(SavedValue(b"k", "zset", -1, [b"a", b"1.5"], is_continued=True)))
    [('ZADD', b'k', b'1.5', b'a')]
    """
    if not value.is_continued:
        yield "DEL", value.key
    name, arguments = _added(value)
    for at in range(0, len(arguments), MOST_ARGUMENTS):
        yield name, value.key, *arguments[at : at + MOST_ARGUMENTS]
    if value.expires_at_ms >= 0:
        yield "PEXPIREAT", value.key, value.expires_at_ms


def _added(value: SavedValue) -> tuple[str, Sequence[bytes]]:
    """The command that adds members, and its arguments."""
    if value.kind == "zset":
        pairs = zip(value.members[1::2], value.members[::2], strict=True)
        return "ZADD", [each for pair in pairs for each in pair]
    names = {"string": "SET", "hash": "HSET", "set": "SADD", "list": "RPUSH", "gone": ""}
    return names[value.kind], value.members
