"""The log of served lists: what clicks are attributed to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import Counter

from models.serving.answers import Answer
from models.state.redis_errors import AWAY_ERRORS
from models.state.served_lists import log_served
from models.state.store import Store

LOG = logging.getLogger(__name__)

FLUSH_EVERY_S = 0.05
MOST_WAITING = 10_000
"""Lists that wait to be written, at most; more are dropped and counted, for answers go first."""

IMPRESSIONS = Counter("recommender_impressions_total", "Served lists by outcome", ["outcome"])


class ImpressionLog:
    """Writes served lists behind the answers, many in one round trip."""

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
        """Remember to write a served list to its group's store; never blocks.

        `item_ids` are what was served, if not given all items of the answer.
        """
        if self._n_waiting >= MOST_WAITING:
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
                        LOG.warning("served lists are not kept: %s", error)
                    self._is_failing = True
                else:
                    self._is_failing = False
                IMPRESSIONS.labels("logged").inc(kept)
                IMPRESSIONS.labels("dropped").inc(len(lists) - kept)

    async def close(self) -> None:
        """Write what waits."""
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def _written(
    served: Mapping[str, tuple[Answer, Sequence[str] | None]],
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """Item ids by recommendationId, and those that stood in an answer for exploration."""
    lists: dict[str, Sequence[str]] = {}
    tried: list[str] = []
    for recommendation_id, (answer, item_ids) in served.items():
        all_items = [item.item_id for item in answer.items]
        lists[recommendation_id] = all_items if item_ids is None else item_ids
        tried += [item.item_id for item in answer.items if item.is_exploration]
    return lists, tried
