"""The client of the Redis server that holds all state."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from models.state.batched_reads import BatchingClient
from models.state.redis_errors import Parser

RedisClient: TypeAlias = Any
"""A client as `connect` makes it, for commands.

Typed as Any here and nowhere else: redis-py types an answer as bytes or str, awaitable or not, and
this client gives bytes to await.
"""


def connect(url: str, *, timeout_s: float = 5.0) -> BatchingClient:
    """Client of the Redis server at `url`; connects at its first command.

    A command is sent once more on a new connection: the one it was on may have died unused. State
    is written by scripts that may be repeated; only counters that inform (tries, calls) may then
    count twice. More retries are up to the caller.
    """
    client = BatchingClient.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
        parser_class=Parser,
    )
    return cast(BatchingClient, client)
