"""On how many shards a group is, as stored with it; and the move to another number of them.

All processes go by what is stored, and look at it all the time: `recommender reshard` copies the
state to shards of another generation, whose keys have other names, and then changes what is stored.

    {group}:shards    hash    shards, generation of the layout; `last` generation that was given
    {group}:reshard   string  a `Move` as JSON: somebody moves the group; gone by itself
    {group}:frozen    string  who moves the group: no step changes the keys of this slot
    {group}:copied    string  the same, behind all that was copied to this slot
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from models.settings import Settings
from models.state.clients.client import RedisClient
from models.state.scripts.registered_scripts import Script, run_script
from models.state.shards.at_once import at_once
from models.state.shards.shard_names import ShardKind, shard_prefix

LOOK_EVERY_S = 0.5
"""Time between two looks of a process at the layout."""

LEASE_S = 15.0
"""Time for which a move goes on being one without a sign of life."""

FROZEN_S = 60.0
"""Time for which shards stay frozen without one: longer than any step was under way."""


class ShardLayout(NamedTuple):
    """A number of shards, and the number of the layout; 0 is the group's first."""

    shards: int
    generation: int = 0

    def prefixes(self, group: str, kind: ShardKind) -> list[str]:
        """Prefixes of the keys of each shard of a kind.

        >>> ShardLayout(2, 1).prefixes("shop", "i"), ShardLayout(1, 2).prefixes("shop", "i")
        (['{shop/i00.1}:', '{shop/i01.1}:'], ['{shop}:'])
        """
        if self.shards == 1:
            return [f"{{{group}}}:"]
        return [shard_prefix(group, kind, n, self.generation) for n in range(self.shards)]

    def all_prefixes(self, group: str) -> list[str]:
        """Those of all shards, each once."""
        return list(dict.fromkeys([*self.prefixes(group, "u"), *self.prefixes(group, "i")]))


class Move(msgspec.Struct, frozen=True):
    """A move of a group to other shards, as it is reported.

    Attributes
    ----------
    token
        Who moves it.
    is_holding
        True: workers apply no events.
    doing, share
        What it does now, and how much of that is done, 0 to 1.
    """

    token: str
    layout: ShardLayout
    is_holding: bool
    doing: str
    share: float


async def stored_layout(client: RedisClient, group: str) -> ShardLayout | None:
    """The group's layout; None for the first one of one shard, or without state."""
    return _layout(*await client.hmget(_key(group, "shards"), "shards", "generation"))


async def layout_and_move(
    client: RedisClient, group: str
) -> tuple[ShardLayout | None, Move | None]:
    """The layout, and the move to another one that is under way; one round trip."""
    stored, move = await client.reads.run(
        ("HMGET", _key(group, "shards"), "shards", "generation"), ("GET", _key(group, "reshard"))
    )
    return _layout(*stored), None if move is None else msgspec.json.decode(move, type=Move)


async def settings_on_stored_shards(client: RedisClient, settings: Settings) -> Settings:
    """The settings for the layout that the group has by now.

    Raises
    ------
    InvalidSetting
        Something else that they say does not go with it.
    """
    stored = await stored_layout(client, settings.group)
    return settings if stored is None else settings.on_shards(*stored)


def _layout(shards: bytes | None, generation: bytes | None) -> ShardLayout | None:
    return None if shards is None else ShardLayout(int(shards), int(generation or 0))


def _key(group: str, name: str) -> str:
    return f"{{{group}}}:{name}"


async def fix_layout(client: RedisClient, group: str, shards: int) -> ShardLayout:
    """Store the layout of a group that has none yet; returns what is stored then."""
    await client.hsetnx(_key(group, "shards"), "shards", shards)
    return await stored_layout(client, group) or ShardLayout(shards)


# Moves --------------------------------------------------------------------------------------------

_RENEW = Script.of("""
local stored = redis.call('GET', KEYS[1])
if stored and cjson.decode(stored).token ~= ARGV[1] then return 0 end
if not stored and ARGV[4] ~= 'begin' then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")

_END = Script.of("""
local stored = redis.call('GET', KEYS[1])
if stored and cjson.decode(stored).token == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")

_FREEZE = Script.of("""
if ARGV[3] ~= 'begin' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], ARGV[1]) return 1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")

_THAW = Script.of("""
if ARGV[1] == '' or redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")

_SWITCH = Script.of("""
local stored = redis.call('GET', KEYS[2])
if not stored or cjson.decode(stored).token ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'shards', ARGV[2], 'generation', ARGV[3])
return 1
""")


async def report_move(client: RedisClient, group: str, move: Move, *, begins: bool = False) -> bool:
    """Say that a move goes on, for `LEASE_S`; False if it is somebody else's, or has expired."""
    arguments = (
        move.token, msgspec.json.encode(move), round(LEASE_S * 1000), "begin" if begins else "",
    )  # fmt: skip
    return bool(await run_script(client, _RENEW, [_key(group, "reshard")], *arguments))


async def move_text(client: RedisClient, settings: Settings) -> str:
    """Progress of a move of the group to other shards, in words; empty without one."""
    _, move = await layout_and_move(client, settings.group)
    if move is not None:
        done = f" ({move.share:.0%})".replace("%", " %") if move.share else ""
        return f"it moves to {move.layout.shards} shard(s): {move.doing}{done}"
    layout = ShardLayout(settings.shards, settings.generation)
    first = layout.prefixes(settings.group, "u")[0]
    if await client.exists(first + "frozen"):
        return "a move to other shards was killed (run `recommender reshard` again)"
    return ""


async def end_move(client: RedisClient, group: str, token: str) -> None:
    """Say that a move is over, if it is this one."""
    await run_script(client, _END, [_key(group, "reshard")], token)


async def next_generation(client: RedisClient, group: str) -> int:
    """Number for a new layout; no two get the same."""
    return int(await client.hincrby(_key(group, "shards"), "last", 1))


async def freeze(
    client: RedisClient,
    prefixes: Sequence[str],
    token: str,
    *,
    begins: bool,
    for_ever: bool = False,
) -> bool:
    """Freeze shards, or go on to; then False if one was thawed meanwhile, or by somebody else.

    Whoever goes on knows that nothing has changed since the beginning: a server that fell back to
    an earlier state has either this key and all before it, or not this key.
    """
    how = "0" if for_ever else str(round(FROZEN_S * 1000)), "begin" if begins else ""
    done = await at_once(
        run_script(client, _FREEZE, [prefix + "frozen"], token, *how) for prefix in prefixes
    )
    return all(done)


async def thaw(client: RedisClient, prefixes: Sequence[str], token: str = "") -> None:
    """End this move's freezing; without a token, that of a move that is no more."""
    await at_once(run_script(client, _THAW, [prefix + "frozen"], token) for prefix in prefixes)


async def switch_layout(client: RedisClient, group: str, layout: ShardLayout, token: str) -> bool:
    """Store another layout, which all processes go by; False if the move has expired."""
    keys = [_key(group, "shards"), _key(group, "reshard")]
    return bool(await run_script(client, _SWITCH, keys, token, *layout))
