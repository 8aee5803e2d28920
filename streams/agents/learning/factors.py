"""Factors of items, kept up by the worker that learns: of each group, out of its histories.

They are learned again as a group grows (`models.serving.factor_renewal`), in pieces on the event
loop and the computing in a thread, while no events are late. What a killed worker has begun, the
next one begins anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from prometheus_client import Gauge

from models.action_groups import is_actions_group
from models.serving.factor_renewal import is_due, renew_factors
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.stored_factors import read_factors_head
from models.state.tenants import Tenants
from streams.agents.learning.rests import Rests

LOG = logging.getLogger(__name__)

CHECK_EVERY_S = 10.0

LEARNED_AT = Gauge(
    "recommender_factors_timestamp_seconds", "When the items' factors were last learned", ["group"]
)
ITEMS = Gauge("recommender_factors_items", "Items that have factors", ["group"])


class FactorUpkeep:
    """Renews the factors of all groups; one for each worker.

    Parameters
    ----------
    clock
        The present in Unix seconds.
    is_late
        True while events wait, and this must.

    Attributes
    ----------
    is_learner
        Whether this worker has the partition of examples: one at a time learns factors.
    """

    def __init__(
        self, tenants: Tenants, *, clock: Callable[[], float], is_late: Callable[[], bool]
    ) -> None:
        self.is_learner = False
        self._tenants = tenants
        self._clock = clock
        self._is_late = is_late
        self._rests = Rests(tenants.settings.catch_up_share, is_late)
        tenants.on_erased(_forget)

    async def run(self) -> None:
        """Renew what is due, for ever; a group of several shards has no factors."""
        settings = self._tenants.settings
        while settings.factor_events and settings.shards == 1:
            await asyncio.sleep(CHECK_EVERY_S)
            if self.is_learner and not self._is_late():
                await self.check()

    async def check(self) -> None:
        """Renew the factors of all groups that are due, one after the other."""
        try:
            for group in sorted(await self._tenants.groups()):
                if not is_actions_group(group):
                    await self._check(group)
        except AWAY_ERRORS as error:
            LOG.warning("no factors are learned, Redis is away: %s", error)

    async def _check(self, group: str) -> None:
        store, now_s = self._tenants.store(group), self._clock()
        n_events = int((await store.counts()).get("events", 0))
        head = await read_factors_head(store)
        if is_due(n_events, head, now_s=now_s):
            self._rests.begin()
            head = await renew_factors(
                store,
                n_events,
                most_events=self._tenants.settings.factor_events,
                now_s=now_s,
                pause=self._rests.pause,
                in_thread=True,
            )
            LOG.info("factors of %d items of group %s learned", head.n_items, group)
        if head.learned_at_s:
            LEARNED_AT.labels(group).set(head.learned_at_s)
            ITEMS.labels(group).set(head.n_items)


def _forget(group: str) -> None:
    for gauge in (LEARNED_AT, ITEMS):
        # A group that had no factors has no value here.
        with contextlib.suppress(KeyError):
            gauge.remove(group)
