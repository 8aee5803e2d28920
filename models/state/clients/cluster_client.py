"""A client of a Redis Cluster, with batched reads at the node that holds their keys.

A dataset group's keys are in one slot, for they begin with its name in braces; the registry's are
in another. So a group's step is one script on one node, as on a single server.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple, Self

import redis.asyncio
import redis.asyncio.cluster
import redis.exceptions
from redis.asyncio.connection import Connection, SSLConnection, parse_url

from models.redis_urls import redis_hosts, speaks_tls, with_first_host
from models.settings import Settings
from models.state.channels import Listener, Unsubscribe
from models.state.clients.batched_reads import MgetBatcher
from models.state.clients.batched_requests import TRIES, Answers, Command, Values
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.clients.retried_commands import heeding_cancellation

LOG = logging.getLogger(__name__)

ABSENT_AFTER_S = 2.0
"""A node of a group of several shards that has not answered for so long is taken for absent."""

_ASK_AGAIN_S, _MOST_ASK_AGAIN_S = 0.05, 0.5
"""Pauses between two questions whether an absent node is back: the first, and the longest."""

_NO_ANSWER = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)

_IN_COMMAND = contextvars.ContextVar("_IN_COMMAND", default=False)

_ON_OWN_CONNECTIONS = frozenset(("EVALSHA", "EVAL", "HGETALL", "HMGET", "HLEN", "LRANGE"))
"""Commands that go to a shard by `ClusterReads`."""

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
_CommandsParser: Any = redis._parsers.AsyncCommandsParser  # noqa: SLF001  not exported elsewhere


class _Slot(NamedTuple):
    """The node that serves a slot, and the batcher of its reads."""

    node: str
    batcher: MgetBatcher
    pool: redis.asyncio.ConnectionPool


class ClusterReads:
    """Batched reads, each at the primary of its keys' slot; see `MgetBatcher`.

    A read that a node does not serve, or that dies with it, is repeated once, after the cluster was
    asked anew who serves what. All keys of a call are of one group or shard.

    Parameters
    ----------
    absent_after_s
        Where a group has several shards: a node that has not answered for so long, or does not take
        connections, is absent. What it holds fails at once, so that nobody who asks several nodes
        waits for it, until it answers or another node has its slots. None for a group of one shard.
    """

    def __init__(
        self,
        client: Any,  # noqa: ANN401
        options: dict[str, Any],
        absent_after_s: float | None = None,
    ) -> None:
        self._client = client
        self._options = options
        self._absent_after_s = absent_after_s
        self._absent: set[str] = set()
        self._slots: dict[int, _Slot] = {}
        self._listeners: dict[str, Listener] = {}
        self._asking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, keys: list[str]) -> asyncio.Future[Values]:
        """The values of `keys`, absent ones as None; raises, when awaited, as `MgetBatcher`."""
        future: asyncio.Future[Values] = asyncio.get_running_loop().create_future()
        if keys:
            self._begin(keys[0], lambda batcher: batcher.get(keys), future)
        else:
            future.set_result([])
        return future

    def run(self, *commands: Command) -> asyncio.Future[Answers]:
        """Answers of commands that are sent in one piece; raises, when awaited, as `get`."""
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        if commands:
            self._begin(first_key(commands[0]), lambda batcher: batcher.run(*commands), future)
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

    @property
    def tells_absence(self) -> bool:
        """True if what an absent node holds fails at once."""
        return self._absent_after_s is not None

    def is_absent(self, key: str) -> bool:
        """True if the node that serves a key is absent; asks nothing."""
        node = self._node_of(key)
        return node is not None and node.name in self._absent

    async def close(self) -> None:
        """Close the connections."""
        for task in self._tasks:
            task.cancel()
        self._absent.clear()
        slots, self._slots = self._slots, {}
        for one in slots.values():
            await one.pool.disconnect()

    def _begin(
        self,
        key: str,
        ask: Callable[[MgetBatcher], asyncio.Future[Any]],
        future: asyncio.Future[Any],
    ) -> None:
        if self._absent_after_s is not None:
            if self.is_absent(key):
                future.set_exception(redis.exceptions.ConnectionError("its node is absent"))
                return
            loop = asyncio.get_running_loop()
            timer = loop.call_later(self._absent_after_s, self._give_up, key, future)
            future.add_done_callback(lambda _: timer.cancel())
        self._attempt(key, ask, future, 1)

    def _give_up(self, key: str, future: asyncio.Future[Any]) -> None:
        if not future.done():
            text = f"no answer within {self._absent_after_s} s"
            future.set_exception(redis.exceptions.TimeoutError(text))
            self._note_absence(key)

    def _note_absence(self, key: str) -> None:
        node = self._node_of(key)
        if node is not None and node.name not in self._absent:
            LOG.warning("Redis at %s does not answer: others go on without it", node.name)
            self._absent.add(node.name)
            self._start(self._until_back(node.name))

    async def _until_back(self, name: str) -> None:
        """Wait until an absent node answers, or has no slots any more."""
        pause_s = _ASK_AGAIN_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MOST_ASK_AGAIN_S)
            try:
                async with asyncio.timeout(self._absent_after_s):
                    await self._client.nodes_manager.initialize()
                    node = self._client.nodes_manager.nodes_cache.get(name)
                    served = [one for one in self._slots.values() if one.node == name]
                    if node is not None and node.server_type == "primary" and served:
                        await served[0].batcher.run(("PING",))
            except Exception as error:  # noqa: BLE001  of whatever kind, it is asked again
                LOG.debug("Redis at %s is still absent: %r", name, error)
                continue
            self._absent.discard(name)
            LOG.info("what Redis at %s held is served again", name)
            return

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
                if self.tells_absence and isinstance(error, _NO_ANSWER):
                    self._note_absence(key)

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

    def _node_of(self, key: str) -> Any:  # noqa: ANN401  redis-py's, not typed there
        nodes = self._client.nodes_manager.slots_cache.get(self._client.keyslot(key))
        # The first node of a slot is its primary.
        return nodes[0] if nodes else None

    def _batcher_of(self, key: str) -> MgetBatcher | None:
        """The batcher of a key's slot, at the node that serves it; None if that is not known."""
        node = self._node_of(key)
        if node is None:
            return None
        slot: int = self._client.keyslot(key)
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


def first_key(command: Command) -> str:
    """The first key that a command names.

    >>> first_key(("GET", "a")), first_key(("EVALSHA", "5f1c", 1, "b", "an argument"))
    ('a', 'b')
    """
    return str(command[3 if command[0] in {"EVALSHA", "EVAL"} else 1])


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
