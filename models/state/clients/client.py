"""The client of the Redis server that holds all state."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import redis.asyncio
from redis.backoff import NoBackoff

from models.servers.redis_options import redis_options
from models.settings import Settings
from models.state.clients.batched_reads import BatchingClient
from models.state.clients.cluster_client import ClusterClient
from models.state.clients.redis_errors import ClusterParser, Parser
from models.state.clients.replica_reads import ReplicaReads
from models.state.clients.retried_commands import LossRetry
from models.state.clients.sentinel_client import SentinelClient

REPLICA_TIMEOUT_S = 1.0
"""Longest wait for a replica, in whose stead the primary answers."""

MAX_CONNECTIONS = 1000
"""Of a process to a server, for commands that are under way at once: more than the requests that an
API lets wait. Of redis-py's own 100, the next command fails as if the server were away."""

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
    return cast(BatchingClient, BatchingClient.from_url(url, **_options(timeout_s)))


def client_of(
    settings: Settings, *, timeout_s: float = 5.0, reads_replica: bool = False
) -> RedisClient:
    """Client of the Redis that the settings name, as `connect` makes it.

    With Sentinels it is that of the primary: they are asked at each new connection. Of a cluster
    it finds the node of each key. With `reads_replica`, its `shared_reads` are at the replica that
    the settings name, if they do.

    Raises
    ------
    InvalidSetting
        A file of the settings cannot be used.
    """
    options = _options(timeout_s) | redis_options(settings)
    if settings.redis_cluster:
        return ClusterClient.of(settings, options | {"parser_class": ClusterParser})
    client: RedisClient = (
        SentinelClient.of(settings, options)
        if settings.redis_sentinel_master
        else BatchingClient.from_url(settings.redis, **options)
    )
    if reads_replica and settings.redis_replica:
        client.replica = ReplicaReads(_replica_pool(settings, client), client.reads)
    return client


def _replica_pool(settings: Settings, client: RedisClient) -> redis.asyncio.ConnectionPool:
    url = settings.redis_replica
    if url == "sentinel":
        found: redis.asyncio.ConnectionPool = client.replica_pool(REPLICA_TIMEOUT_S)
        return found
    options = _options(REPLICA_TIMEOUT_S) | redis_options(settings, url)
    return redis.asyncio.ConnectionPool.from_url(url, **options)


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": LossRetry(NoBackoff(), 1),
        "parser_class": Parser,
        "max_connections": MAX_CONNECTIONS,
    }
