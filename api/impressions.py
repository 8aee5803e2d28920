"""The log of impressions: served lists, to which clicks are attributed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Counter

from api.background_queue import BackgroundQueue
from models.serving.answers import Answer
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.outcomes.served_lists import log_served
from models.state.store import Store

LOG = logging.getLogger(__name__)

FLUSH_EVERY_S = 0.05
MAX_WAITING = 10_000
"""Bound on the lists that wait to be written; more are dropped and counted, answers go first."""

IMPRESSIONS = Counter("recommender_impressions_total", "Served lists by outcome", ["outcome"])


_Served = tuple[str, Answer, Sequence[str] | None]
"""The recommendationId of a list, its answer, and the items served; None: all of the answer."""


class ImpressionLog:
    """Writes served lists in the background, many in one round trip."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._is_failing = False
        self._queue: BackgroundQueue[Store, _Served] = BackgroundQueue(
            self._write, every_s=FLUSH_EVERY_S, max_waiting=MAX_WAITING
        )

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
        if not self._queue.put(store, (recommendation_id, answer, item_ids)):
            IMPRESSIONS.labels("dropped").inc()

    async def _write(self, waiting: Mapping[Store, Sequence[_Served]]) -> None:
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
        await self._queue.close()


def _written(served: Sequence[_Served]) -> tuple[dict[str, Sequence[str]], list[str]]:
    """Item ids by recommendationId, and the item ids served for exploration."""
    lists: dict[str, Sequence[str]] = {}
    tried: list[str] = []
    for recommendation_id, answer, item_ids in served:
        all_items = [item.item_id for item in answer.items]
        lists[recommendation_id] = all_items if item_ids is None else item_ids
        tried += [item.item_id for item in answer.items if item.is_exploration]
    return lists, tried
