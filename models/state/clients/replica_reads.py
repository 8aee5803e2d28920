"""Reads of what all users share, at a replica; at the primary while the replica is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import redis.asyncio

from models.state.channels import Listener, Unsubscribe
from models.state.clients.batched_reads import MgetBatcher
from models.state.clients.batched_requests import Answers, Command, Values

LOG = logging.getLogger(__name__)

REST_S = 5.0
"""Time for which a replica that has failed is not asked."""


class ReplicaReads:
    """Batched reads as of `MgetBatcher`, at a replica.

    A read that the replica does not answer is asked of the primary, and so are all others for
    `REST_S`.

    Parameters
    ----------
    pool
        Connections to the replica.
    primary
        Reads at the primary.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool, primary: MgetBatcher) -> None:
        self.pool = pool
        self._replica = MgetBatcher(pool)
        self._primary = primary
        self._rest_until_s = 0.0

    def get(self, keys: list[str]) -> asyncio.Future[Values]:
        """The values of `keys`, absent ones as None; raises, when awaited, as at the primary."""
        return self._ask(lambda reads: reads.get(keys))

    def run(self, *commands: Command) -> asyncio.Future[Answers]:
        """Answers of commands that are sent in one piece; raises, when awaited, as `get`."""
        return self._ask(lambda reads: reads.run(*commands))

    def subscribe(self, channel: str, listener: Listener) -> Unsubscribe:
        """Tell a listener of a channel, in the order of the replica's answers."""
        return self._replica.subscribe(channel, listener)

    def _ask(self, ask: Callable[[MgetBatcher], asyncio.Future[Any]]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        if loop.time() < self._rest_until_s:
            return ask(self._primary)
        future: asyncio.Future[Any] = loop.create_future()

        def hand_on(asked: asyncio.Future[Any]) -> None:
            error = asked.exception()
            if future.done():
                return
            if error is None:
                future.set_result(asked.result())
            else:
                future.set_exception(error)

        def replica_answered(asked: asyncio.Future[Any]) -> None:
            error = asked.exception()
            if error is None:
                hand_on(asked)
                return
            if loop.time() >= self._rest_until_s:
                LOG.warning("the replica of Redis does not answer, the primary does: %s", error)
            self._rest_until_s = loop.time() + REST_S
            ask(self._primary).add_done_callback(hand_on)

        ask(self._replica).add_done_callback(replica_answered)
        return future
