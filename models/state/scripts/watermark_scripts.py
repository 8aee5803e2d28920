"""Scripts that move a watermark by hand, and only in the direction that is meant."""

from __future__ import annotations

from models.state.scripts.registered_scripts import Script

LOWER_WATERMARK = Script.of("""
local mark = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or nil)
if not mark or mark <= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], ARGV[3]) end
return 1
""")

RAISE_WATERMARK = Script.of("""
local mark = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or nil) or -1
if mark < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
""")
