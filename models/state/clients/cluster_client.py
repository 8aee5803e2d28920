"""A client of a Redis Cluster, with batched reads at the node that holds their keys.

A dataset group's keys are in one slot, for they begin with its name in braces; the registry's are
in another. So a group's step is one script on one node, as on a single server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple, Self

import redis.asyncio
import redis.asyncio.cluster
import redis.exceptions
from redis.asyncio.connection import Connection, SSLConnection, parse_url

from models.redis_urls import redis_hosts, speaks_tls, with_first_host
from models.settings import Settings
from models.state.channels import Listener, Unsubscribe
from models.state.clients.batched_reads import TRIES, Answers, Command, MgetBatcher, Values

_REDIRECTED = (
    redis.exceptions.MovedError,
    redis.exceptions.AskError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.ConnectionError,
)
"""Errors after which another node may serve a slot."""

# redis-py types its cluster in part.
_Cluster: Any = redis.asyncio.cluster.RedisCluster


class _Slot(NamedTuple):
    """The node that serves a slot, and the batcher of its reads."""

    node: str
    batcher: MgetBatcher
    pool: redis.asyncio.ConnectionPool


class ClusterReads:
    """Batched reads, each at the primary of its keys' slot; see `MgetBatcher`.

    A read that a node does not serve, or that dies with it, is repeated once, after the cluster was
    asked anew who serves what. All keys of a call are of one group.
    """

    def __init__(self, client: Any, options: dict[str, Any]) -> None:  # noqa: ANN401
        self._client = client
        self._options = options
        self._slots: dict[int, _Slot] = {}
        self._listeners: dict[str, Listener] = {}
        self._asking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, keys: list[str]) -> asyncio.Future[Values]:
        """The values of `keys`, absent ones as None; raises, when awaited, as `MgetBatcher`."""
        future: asyncio.Future[Values] = asyncio.get_running_loop().create_future()
        if keys:
            self._attempt(keys[0], lambda batcher: batcher.get(keys), future, 1)
        else:
            future.set_result([])
        return future

    def run(self, *commands: Command) -> asyncio.Future[Answers]:
        """Answers of commands that are sent in one piece; raises, when awaited, as `get`."""
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        if commands:
            key = str(commands[0][1])
            self._attempt(key, lambda batcher: batcher.run(*commands), future, 1)
        else:
            future.set_result([])
        return future

    def subscribe(self, channel: str, listener: Listener) -> Unsubscribe:
        """Tell a listener of a channel of a group, as `MgetBatcher` does, at the group's node."""
        self._listeners[channel] = listener
        known = self._slots.get(self._client.keyslot(channel))
        if known is not None:
            known.batcher.subscribe(channel, listener)

        def unsubscribe() -> None:
            if self._listeners.get(channel) is listener:
                del self._listeners[channel]
                known = self._slots.get(self._client.keyslot(channel))
                if known is not None:
                    known.batcher.subscribe(channel, listener)()

        return unsubscribe

    async def close(self) -> None:
        """Close the connections."""
        for task in self._tasks:
            task.cancel()
        slots, self._slots = self._slots, {}
        for one in slots.values():
            await one.pool.disconnect()

    def _attempt(
        self,
        key: str,
        ask: Callable[[MgetBatcher], asyncio.Future[Any]],
        future: asyncio.Future[Any],
        tries: int,
    ) -> None:
        batcher = self._batcher_of(key)
        if batcher is None:
            self._start(self._again(key, ask, future, tries, None))
            return

        def hand_on(asked: asyncio.Future[Any]) -> None:
            error = None if asked.cancelled() else asked.exception()
            if future.done():
                return
            if asked.cancelled():
                future.cancel()
            elif error is None:
                future.set_result(asked.result())
            elif tries < TRIES and isinstance(error, _REDIRECTED):
                self._start(self._again(key, ask, future, tries + 1, error))
            else:
                future.set_exception(error)

        ask(batcher).add_done_callback(hand_on)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _again(
        self,
        key: str,
        ask: Callable[[MgetBatcher], asyncio.Future[Any]],
        future: asyncio.Future[Any],
        tries: int,
        error: BaseException | None,
    ) -> None:
        """Ask who serves what, once for all reads that wait for it, and attempt again."""
        try:
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask_cluster(is_new=error is None))
            await asyncio.shield(self._asking)
        except Exception as failure:  # noqa: BLE001  handed to the waiting task
            if not future.done():
                future.set_exception(failure)
            return
        if future.done():
            return
        if self._batcher_of(key) is None:
            future.set_exception(redis.exceptions.ClusterDownError("no node serves the slot"))
        else:
            self._attempt(key, ask, future, tries)

    async def _ask_cluster(self, *, is_new: bool) -> None:
        try:
            if is_new:
                await self._client.initialize()
            else:
                await self._client.nodes_manager.initialize()
        finally:
            self._asking = None

    def _batcher_of(self, key: str) -> MgetBatcher | None:
        """The batcher of a key's slot, at the node that serves it; None if that is not known."""
        slot: int = self._client.keyslot(key)
        nodes = self._client.nodes_manager.slots_cache.get(slot)
        if not nodes:
            return None
        # The first node of a slot is its primary.
        node = nodes[0]
        known = self._slots.get(slot)
        if known is not None and known.node == node.name:
            return known.batcher
        pool = redis.asyncio.ConnectionPool(host=node.host, port=node.port, **self._options)
        batcher = MgetBatcher(pool)
        self._slots[slot] = _Slot(node.name, batcher, pool)
        if known is not None:
            self._start(known.pool.disconnect())
        for channel, listener in self._listeners.items():
            if self._client.keyslot(channel) == slot:
                if known is not None:
                    listener.lost()
                batcher.subscribe(channel, listener)
        return batcher


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
        )
        return client

    async def execute_command(self, *words: Any, **options: Any) -> Any:  # noqa: ANN401
        """Send a command to the node of its key.

        After an error of one command redis-py closes all connections, also under commands of other
        tasks, which then find none to write to: these are sent once more.
        """
        for _ in range(TRIES):
            try:
                return await super().execute_command(*words, **options)
            except AttributeError as error:
                if error.obj is not None:
                    raise
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
        """Close all connections."""
        if self.reads is not None:
            await self.reads.close()
        await super().aclose()
