"""Batched reads of a Redis Cluster, each at the node that holds its keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import redis.asyncio
import redis.exceptions

from models.state.channels import Listener, Unsubscribe
from models.state.clients.batched_reads import MgetBatcher
from models.state.clients.batched_requests import TRIES, Answers, Command, Values
from models.state.clients.redis_errors import AWAY_ERRORS
from models.waits import waits_s

LOG = logging.getLogger(__name__)

ABSENT_AFTER_S = 2.0
"""A node of a group of several shards that has not answered for so long is taken for absent."""

_ASK_AGAIN_S, _MOST_ASK_AGAIN_S = 0.05, 0.5
"""Pauses between two questions whether an absent node is back: the first, and the longest."""

_NO_ANSWER = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)

_REDIRECTED = (
    redis.exceptions.MovedError,
    redis.exceptions.AskError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.ConnectionError,
)
"""Errors after which another node may serve a slot."""


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
        for pause_s in waits_s(_ASK_AGAIN_S, _MOST_ASK_AGAIN_S):
            await asyncio.sleep(pause_s)
            try:
                async with asyncio.timeout(self._absent_after_s):
                    await self._client.nodes_manager.initialize()
                    node = self._client.nodes_manager.nodes_cache.get(name)
                    served = [one for one in self._slots.values() if one.node == name]
                    if node is not None and node.server_type == "primary" and served:
                        await served[0].batcher.run(("PING",))
            except AWAY_ERRORS as error:
                LOG.debug("Redis at %s is still absent: %r", name, error)
                continue
            except Exception:
                # It is asked again all the same: nobody else would find out that it is back.
                LOG.exception("a fault hides whether Redis at %s is back", name)
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
