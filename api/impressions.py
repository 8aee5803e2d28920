"""The log of impressions: served lists, to which clicks are attributed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Counter

from models.serving.answers import Answer
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.outcomes.served_lists import log_served
from models.state.store import Store

LOG = logging.getLogger(__name__)

FLUSH_EVERY_S = 0.05
MAX_WAITING = 10_000
"""Bound on the lists that wait to be written; more are dropped and counted, answers go first."""

IMPRESSIONS = Counter("recommender_impressions_total", "Served lists by outcome", ["outcome"])


class ImpressionLog:
    """Writes served lists in the background, many in one round trip."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._is_failing = False
        self._waiting: dict[Store, dict[str, tuple[Answer, Sequence[str] | None]]] = {}
        self._n_waiting = 0
        self._task: asyncio.Task[None] | None = None

    def log(
        self,
        store: Store,
        recommendation_id: str,
        answer: Answer,
        item_ids: Sequence[str] | None = None,
    ) -> None:
        """Queue a served list for its group's store; never blocks.

        `item_ids` are the served items; by default all items of the answer.
        """
        if self._n_waiting >= MAX_WAITING:
            IMPRESSIONS.labels("dropped").inc()
            return
        self._n_waiting += 1
        self._waiting.setdefault(store, {})[recommendation_id] = answer, item_ids
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while self._waiting:
            await asyncio.sleep(FLUSH_EVERY_S)
            waiting, self._waiting, self._n_waiting = self._waiting, {}, 0
            for store, served in waiting.items():
                lists, tried = _written(served)
                kept = 0
                try:
                    kept = await log_served(store, lists, tried, now_s=self._clock())
                except AWAY_ERRORS as error:
                    if not self._is_failing:  # once, not for every answer
                        LOG.warning("impressions are dropped: %s", error)
                    self._is_failing = True
                else:
                    self._is_failing = False
                IMPRESSIONS.labels("logged").inc(kept)
                IMPRESSIONS.labels("dropped").inc(len(lists) - kept)

    async def close(self) -> None:
        """Write the queued lists."""
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def _written(
    served: Mapping[str, tuple[Answer, Sequence[str] | None]],
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """Item ids by recommendationId, and the item ids served for exploration."""
    lists: dict[str, Sequence[str]] = {}
    tried: list[str] = []
    for recommendation_id, (answer, item_ids) in served.items():
        all_items = [item.item_id for item in answer.items]
        lists[recommendation_id] = all_items if item_ids is None else item_ids
        tried += [item.item_id for item in answer.items if item.is_exploration]
    return lists, tried
