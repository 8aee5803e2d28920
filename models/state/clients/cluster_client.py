"""A client of a Redis Cluster; `models.state.clients.cluster_reads` has its batched reads.

A dataset group's keys are in one slot, for they begin with its name in braces; the registry's are
in another. So a group's step is one script on one node, as on a single server.
"""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator
from typing import Any, Self

import redis.asyncio
import redis.asyncio.cluster
import redis.exceptions
from redis.asyncio.connection import Connection, SSLConnection, parse_url

from models.settings import Settings
from models.settings.redis_urls import redis_hosts, speaks_tls, with_first_host
from models.state.clients.batched_requests import TRIES
from models.state.clients.cluster_reads import ABSENT_AFTER_S, ClusterReads
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.clients.retried_commands import heeding_cancellation

_IN_COMMAND = contextvars.ContextVar("_IN_COMMAND", default=False)

_ON_OWN_CONNECTIONS = frozenset(("EVALSHA", "EVAL", "HGETALL", "HMGET", "HLEN", "LRANGE"))
"""Commands that go to a shard by `ClusterReads`."""

# redis-py types its cluster in part.
_Cluster: Any = redis.asyncio.cluster.RedisCluster
_CommandsParser: Any = redis._parsers.AsyncCommandsParser  # noqa: SLF001  not exported elsewhere


class _Commands(_CommandsParser):  # type: ignore[misc]
    """Commands that there are, by whichever node answers: redis-py asks one that may be away."""

    def __init__(self, client: ClusterClient) -> None:
        super().__init__()
        self._client = client

    async def initialize(self, node: Any = None) -> None:  # noqa: ANN401  redis-py's, not typed there
        first = node or self.node
        others = [one for one in self._client.nodes_manager.nodes_cache.values() if one != first]
        while True:
            try:
                await super().initialize(first)
            except AWAY_ERRORS:
                if not others:
                    raise
                first = others.pop()
            else:
                return


class ClusterClient(_Cluster):  # type: ignore[misc]
    """A client of a cluster; commands about a server go to the one that holds the group.

    Attributes
    ----------
    reads
        Batched reads.
    """

    reads: ClusterReads
    _home: str

    @classmethod
    def of(cls, settings: Settings, options: dict[str, Any]) -> Self:
        """A client with these options; it connects at its first command."""
        parse: Any = parse_url
        in_url = parse(with_first_host(settings.redis))
        kept = {name: in_url[name] for name in ("username", "password") if name in in_url}
        options = options | kept
        is_tls = speaks_tls(settings.redis)
        # It does not take these, but its nodes do.
        of_nodes: dict[str, Any] = {
            name: options.pop(name) for name in ("parser_class", "ssl_password") if name in options
        }
        nodes = [
            redis.asyncio.cluster.ClusterNode(host, port)
            for host, port in redis_hosts(settings.redis)
        ]
        client: Self = cls(startup_nodes=nodes, ssl=is_tls, **options)
        client.connection_kwargs.update(of_nodes)
        client.commands_parser = _Commands(client)
        for node in client.nodes_manager.startup_nodes.values():
            node.connection_kwargs.update(of_nodes)
        client._home = f"{{{settings.group}}}:"
        client.reads = ClusterReads(
            client,
            {
                "connection_class": SSLConnection if is_tls else Connection,
                **options,
                **of_nodes,
            },
            ABSENT_AFTER_S if settings.shards > 1 else None,
        )
        return client

    async def execute_command(self, *words: Any, **options: Any) -> Any:  # noqa: ANN401
        """Send a command to the node of its key.

        After an error of one command redis-py closes all connections, also under commands of other
        tasks, which then find none to write to: these are sent once more. Those of steps of shards
        go on a connection of their shard instead, for one shard must not hold up others.
        """
        is_of_shard = words[0] in _ON_OWN_CONNECTIONS and "target_nodes" not in options
        if is_of_shard and self.reads.tells_absence:
            (answer,) = await self.reads.run(words)
            is_flat = words[0] == "HGETALL" and isinstance(answer, list)
            return dict(zip(answer[::2], answer[1::2], strict=True)) if is_flat else answer
        within = _IN_COMMAND.set(True)
        try:
            for _ in range(TRIES):
                try:
                    return await heeding_cancellation(super().execute_command(*words, **options))
                except AttributeError as error:
                    if error.obj is not None:
                        raise
        finally:
            _IN_COMMAND.reset(within)
        raise redis.exceptions.ConnectionError("closed under a command by that of another task")

    @property
    def shared_reads(self) -> ClusterReads:
        """Batched reads of what all users share."""
        return self.reads

    async def server_of(self, key: str) -> dict[str, Any]:
        """Keyword arguments that send a command without keys to the server of this key."""
        await self.initialize()
        return {"target_nodes": self.get_node_from_key(key)}

    async def info(self, section: str | None = None, **options: Any) -> Any:  # noqa: ANN401
        """State of the server that holds the group, or of another."""
        target = options or await self.server_of(self._home)
        return await super().info(section, **target)

    async def scan(self, cursor: int = 0, *, count: int | None = None) -> tuple[int, list[bytes]]:
        """The next keys of the server that holds the group, and where to go on."""
        target = await self.server_of(self._home)
        cursors, keys = await super().scan(cursor, count=count, **target)
        return next(iter(cursors.values())), keys

    async def found_keys(self, match: str, *, count: int = 1000) -> AsyncIterator[list[bytes]]:
        """Keys of all primaries that match a pattern, some at a time; a key may come twice."""
        await self.initialize()
        for node in self.get_primaries():
            cursor = 0
            while True:
                cursors, keys = await super().scan(
                    cursor, match=match, count=count, target_nodes=node
                )
                if keys:
                    yield keys
                cursor = next(iter(cursors.values()))
                if not cursor:
                    break

    async def dbsize(self) -> int:
        """Number of keys of the server that holds the group."""
        return int(await super().dbsize(**await self.server_of(self._home)))

    async def ping(self) -> bool:
        """True once the server that holds the group has answered."""
        return bool(await super().ping(**await self.server_of(self._home)))

    async def aclose(self, *_: object) -> None:
        """Close all connections; not those of reads where redis-py does so after an error."""
        if self.reads is not None and not _IN_COMMAND.get():
            await self.reads.close()
        await super().aclose()
