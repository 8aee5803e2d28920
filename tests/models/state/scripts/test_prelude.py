"""What the scripts share."""

from __future__ import annotations

import msgspec
import redis

from models.state.scripts.lua_source import read_lua

LATE = """
local opened, written = 0, 0

local function open(one, other)
  opened = opened + 1
  return {
    sum = function() return one + other end,
    write = function() written = written + 1 end,
  }
end

local unused, used = opened_late(open, 1, 2), opened_late(open, 20, 3)
local opened_before = opened
local sums = {used.sum(), used.sum()}
write_if_opened(unused)
write_if_opened(used)
return {opened_before, sums[1], sums[2], opened, written}
"""


def test_functions_are_made_by_their_first_use(redis_url: str) -> None:
    """Once; those that are not used are neither made nor written."""
    request = msgspec.msgpack.encode({"limits": {}})
    with redis.Redis.from_url(redis_url) as client:
        answer = client.eval(read_lua("prelude") + LATE, 0, request)
    assert answer == [0, 23, 23, 1, 1]
