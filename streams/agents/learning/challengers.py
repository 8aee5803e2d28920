"""Challengers in the worker that learns the ranker: it measures them, and decides which serve."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from prometheus_client import Gauge

from models.ranking.champions import (
    OBJECTIVES,
    Objective,
    challengers_field,
    stored_champions,
)
from models.state.store import Store
from models.state.stored_ranker import write_ranker_fields
from streams.agents.learning.running_challengers import Champions, RunningChallengers
from streams.retry_policy import retry_outages

LOG = logging.getLogger(__name__)

SERVING = Gauge(
    "recommender_challenger_serving", "1 for a challenger that serves", ["objective", "challenger"]
)


class WorkerChallengers:
    """Challengers of the settings, while this worker has the partition of the examples.

    Parameters
    ----------
    store
        That of the settings' group.
    champions
        Gives the names of the built-in rankers that would serve.
    """

    def __init__(self, store: Store, champions: Champions) -> None:
        self._store = store
        self._champions = champions
        self._has_any = bool(store.settings.challengers)
        self._running = RunningChallengers(store.settings)
        self._is_learner = False
        self._saved: Mapping[str, bytes] | None = None
        self._serving: dict[Objective, str] = {}

    def assign(self, *, is_learner: bool) -> None:
        """Begin or end, as this worker has the partition of the examples or not."""
        if self._is_learner == is_learner:
            return
        self._is_learner, self._saved, self._serving = is_learner, None, {}
        SERVING.clear()
        if is_learner and self._has_any:
            self._running.begin(self._champions)
        else:
            self._running.end()

    async def save(self) -> None:
        """Save the measures and which challengers serve, if they have changed.

        Without challengers in the settings, what an earlier start has saved is removed.
        """
        fields = self._running.fields()
        if not self._is_learner or fields == self._saved or (self._has_any and not fields):
            return
        none = dict.fromkeys(map(challengers_field, OBJECTIVES))
        await retry_outages(lambda: write_ranker_fields(self._store, {**none, **fields}))
        self._saved = fields
        for objective, champion in stored_champions(fields).items():
            self._tell(objective, champion.name if champion.is_challenger else "")

    @property
    def serving(self) -> Mapping[Objective, str]:
        """Names of the challengers that serve, as last saved by this worker."""
        return {objective: name for objective, name in self._serving.items() if name}

    def close(self) -> None:
        """End learning."""
        self._running.end()

    def _tell(self, objective: Objective, name: str) -> None:
        before = self._serving.get(objective, "")
        if name == before:
            return
        self._serving[objective] = name
        if before:
            SERVING.labels(objective, before).set(0)
        if name:
            SERVING.labels(objective, name).set(1)
        LOG.info("%s: %s serves", objective, name or "the built-in champion")
