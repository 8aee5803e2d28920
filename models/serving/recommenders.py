"""Recommenders by dataset group: one for each group that a process answers or learns for."""

from __future__ import annotations

from collections import OrderedDict

from models.ranking.challengers import ServingChallengers
from models.serving.cached.cache import StateCache
from models.serving.recommender import Recommender
from models.state.shards.partial_store import store_for_answers
from models.state.tenants import Tenants

MAX_OPEN_RECOMMENDERS = 32
"""Most recommenders of registered groups in a process; the least recently used make room."""

REGISTERED_CACHE_SHARE = 8
"""Sizes of a registered group's cache are those of the settings' group divided by this."""


class Recommenders:
    """The recommenders of a service's groups; safe for many tasks of one event loop.

    A group that `tenants` erases is forgotten: what its recommender has cached never changes only
    as long as the group exists. `hears_changes` and, for the settings' group, `challengers` as in
    `StateCache`.
    """

    def __init__(
        self,
        tenants: Tenants,
        *,
        hears_changes: bool = False,
        challengers: ServingChallengers | None = None,
    ) -> None:
        self.tenants = tenants
        self._hears_changes = hears_changes
        store = store_for_answers(tenants.store(tenants.settings.group))
        cache = StateCache(store, hears_changes=hears_changes, challengers=challengers)
        self._own = Recommender(store, cache)
        self._others: OrderedDict[str, Recommender] = OrderedDict()
        tenants.on_erased(self._forget)

    def of(self, group: str) -> Recommender:
        """Recommender of a group, with a state cache that all callers share."""
        if group == self.tenants.settings.group:
            return self._own
        recommender = self._others.get(group)
        if recommender is None:
            store = self.tenants.store(group)
            cache = StateCache(
                store, share=REGISTERED_CACHE_SHARE, hears_changes=self._hears_changes
            )
            recommender = self._others[group] = Recommender(store, cache)
            if len(self._others) > MAX_OPEN_RECOMMENDERS:
                self._forget(next(iter(self._others)))
        self._others.move_to_end(group)
        return recommender

    async def close(self) -> None:
        """End background reads."""
        for recommender in (self._own, *self._others.values()):
            await recommender.cache.close()

    def _forget(self, group: str) -> None:
        recommender = self._others.pop(group, None)
        if recommender is not None:
            # Requests under way may use its cache still: lists age there.
            recommender.cache.unsubscribe()
