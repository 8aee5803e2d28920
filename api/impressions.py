"""The log of served lists: what clicks are attributed to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from prometheus_client import Counter

from models.store import RETRY_ERRORS, Store

LOG = logging.getLogger(__name__)

FLUSH_EVERY_S = 0.05
MOST_WAITING = 10_000
"""Lists that wait to be written, at most; more are dropped and counted, for answers go first."""

IMPRESSIONS = Counter("recommender_impressions_total", "Served lists by outcome", ["outcome"])


class Impressions:
    """Writes served lists behind the answers, many in one round trip."""

    def __init__(self) -> None:
        self._waiting: dict[Store, dict[str, list[str]]] = {}
        self._tried: dict[Store, list[str]] = {}
        self._n_waiting = 0
        self._task: asyncio.Task[None] | None = None

    def log(
        self, store: Store, recommendation_id: str, item_ids: list[str], tried: Sequence[str] = ()
    ) -> None:
        """Remember to write a served list to its group's store; never blocks.

        `tried` items stand in it for exploration.
        """
        if self._n_waiting >= MOST_WAITING:
            IMPRESSIONS.labels("dropped").inc()
            return
        self._n_waiting += 1
        self._waiting.setdefault(store, {})[recommendation_id] = item_ids
        if tried:
            self._tried.setdefault(store, []).extend(tried)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while self._waiting:
            await asyncio.sleep(FLUSH_EVERY_S)
            waiting, self._waiting, self._n_waiting = self._waiting, {}, 0
            tried, self._tried = self._tried, {}
            for store, lists in waiting.items():
                try:
                    await store.log_served(lists, tried.get(store, ()))
                except RETRY_ERRORS as error:
                    IMPRESSIONS.labels("dropped").inc(len(lists))
                    LOG.warning("%d served lists were not logged: %s", len(lists), error)
                else:
                    IMPRESSIONS.labels("logged").inc(len(lists))

    async def close(self) -> None:
        """Write what waits."""
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
