"""A client of the primary that Redis Sentinels name.

A failover ends the connections to the old primary: it has died, or the Sentinels close them when
they make it a replica. Each new connection, that of the batched reads included, asks the Sentinels
anew. Writes that the old primary acknowledged and had not yet handed to its replica are gone: the
worker notices that the store is behind what it applied, and applies them again.
"""

from __future__ import annotations

from typing import Any, Self

import redis.asyncio.sentinel
from redis.asyncio.connection import parse_url
from redis.backoff import NoBackoff

from models.servers.redis_options import sentinel_options
from models.settings import Settings
from models.settings.redis_urls import SENTINEL_PORT, redis_hosts, speaks_tls, with_first_host
from models.state.clients.batched_reads import BatchingClient
from models.state.clients.retried_commands import LossRetry


class SentinelClient(BatchingClient):
    """A client of the primary that Sentinels name, with batched reads.

    Attributes
    ----------
    sentinels
        The Sentinels, which are asked in turn.
    """

    sentinels: redis.asyncio.sentinel.Sentinel
    _to_replicas: dict[str, Any]
    _name: str

    @classmethod
    def of(cls, settings: Settings, options: dict[str, Any]) -> Self:
        """A client with these options; it connects at its first command."""
        in_url = parse_url(with_first_host(settings.redis))
        kept: dict[str, Any] = {
            name: value
            for name, value in in_url.items()
            if name not in {"host", "port", "connection_class"}
        }
        timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout")}
        make: Any = redis.asyncio.sentinel.Sentinel
        sentinels = make(
            redis_hosts(settings.redis, SENTINEL_PORT),
            # The next one is asked, instead of the same again.
            sentinel_kwargs={
                **timeouts,
                "retry": LossRetry(NoBackoff(), 0),
                **sentinel_options(settings),
            },
        )
        client: Self = sentinels.master_for(
            settings.redis_sentinel_master,
            redis_class=cls,
            ssl=speaks_tls(settings.redis),
            **options | kept,
        )
        client.sentinels = sentinels
        client._to_replicas = {"ssl": speaks_tls(settings.redis), **options, **kept}
        client._name = settings.redis_sentinel_master
        return client

    def replica_pool(self, timeout_s: float) -> redis.asyncio.ConnectionPool:
        """Connections to a replica; to the primary where there is none."""
        timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        make: Any = redis.asyncio.sentinel.SentinelConnectionPool
        found: redis.asyncio.ConnectionPool = make(
            self._name, self.sentinels, is_master=False, **self._to_replicas | timeouts
        )
        return found

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections, those to the Sentinels included."""
        await super().aclose(close_connection_pool)
        for sentinel in self.sentinels.sentinels:
            await sentinel.aclose()
