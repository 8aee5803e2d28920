"""The atomic step that applies metadata in one shard of a group of several."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from models.settings import Settings
from models.state.catalogue.metadata import APPLY_RECORDS, RecordPart, record_limits
from models.state.clients.client import RedisClient
from models.state.messages import PartResult
from models.state.scripts.registered_scripts import run_step
from models.state.shards.shard_names import ShardKind, shard_prefix


async def apply_shard_records(
    client: RedisClient,
    settings: Settings,
    kind: ShardKind,
    shard: int,
    parts: Sequence[RecordPart],
) -> list[PartResult]:
    """Apply records of items in an item shard, or of users in a session shard.

    Records of items have the item's index; one without an index is refused with the status `full`.

    Raises
    ------
    redis.exceptions.ConnectionError, redis.exceptions.TimeoutError
        The step may or may not have happened; repeating it is harmless.
    """
    prefix = shard_prefix(settings.group, kind, shard, settings.generation)
    limits = record_limits(settings)
    limits["users"] = -(-limits["users"] // settings.shards)
    request = {
        "prefix": prefix,
        "limits": limits,
        "shard": shard,
        "shards": settings.shards,
        "parts": parts,
    }
    key = prefix + "watermarks"
    raw = await run_step(client, APPLY_RECORDS, [key], msgspec.msgpack.encode(request))
    return msgspec.msgpack.decode(raw, type=list[PartResult])
