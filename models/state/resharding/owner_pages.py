"""Pages of owners name every history: a move finds histories by them.

Where the time for which histories are kept was made longer, a page may have gone before a history
of it: it is written again, from the history itself, while everything goes on.
"""

from __future__ import annotations

from models.settings import Settings
from models.state import layout
from models.state.clients.client import RedisClient
from models.state.resharding.copied_keys import pieces
from models.state.scripts.registered_scripts import Script, run_script
from models.state.shards.stored_layout import ShardLayout

HISTORIES_AT_ONCE = 200

_MEND = Script.of("""
local per_page, ttl, n = tonumber(ARGV[1]), tonumber(ARGV[2]), 0
for _, key in ipairs(KEYS) do
  local head = redis.call('GETRANGE', key, 0, 15)
  if #head == 16 then
    local _, number = struct.unpack('<II', head)
    local at = string.find(key, '}:history:', 1, true)
    local owner = string.sub(key, at + 10)
    local page = string.sub(key, 1, at + 1) .. 'owners:' .. math.floor(number / per_page)
    if redis.call('HGET', page, number % per_page) ~= owner then
      redis.call('HSET', page, number % per_page, owner)
      if redis.call('TTL', page) < ttl then redis.call('EXPIRE', page, ttl) end
      n = n + 1
    end
  end
end
return n
""")


async def mend_owner_pages(
    client: RedisClient, settings: Settings, current: ShardLayout
) -> tuple[int, int]:
    """Write what pages lack; returns the number of histories, and of those that were missing.

    A key that is scanned twice counts twice.
    """
    prefixes = {prefix.encode() for prefix in current.prefixes(settings.group, "u")}
    ttl_s = 2 * max(settings.user_ttl_s, settings.session_ttl_s)
    n_histories = n_missing = 0
    async for keys in client.found_keys(f"{{{settings.group}*}}:history:*"):
        by_prefix: dict[bytes, list[str]] = {}
        for key in keys:
            prefix = key[: key.index(b"}:") + 2]
            if prefix in prefixes:
                by_prefix.setdefault(prefix, []).append(key.decode())
        for own in by_prefix.values():
            n_histories += len(own)
            for some in pieces(own, HISTORIES_AT_ONCE):
                n_missing += int(
                    await run_script(client, _MEND, some, layout.OWNERS_PER_PAGE, ttl_s)
                )
    return n_histories, n_missing
