"""Has an application answer from other shards once its group has moved there.

A request keeps the services that it began with; what the former shards hold stays for longer than a
request lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable

from api.dependencies import ReadinessCheck
from api.personalize.context import PersonalizeContext
from models.background_tasks import end_tasks
from models.errors import InvalidSetting
from models.personalize.resources.registry import Registry
from models.ranking.challengers import ServingChallengers
from models.serving.merchandising.experiments import ExperimentCache
from models.serving.merchandising.placements import PlacementCache
from models.serving.merchandising.segments import Segments
from models.serving.recommenders import Recommenders
from models.settings import Settings
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.shards.reached_marks import field_of_kind, reached_marks
from models.state.shards.sharded_store import store_of
from models.state.shards.stored_layout import LOOK_EVERY_S, ShardLayout, stored_layout
from models.state.tenants import Tenants

KEPT_S = 30.0
"""Time for which the caches of the former shards stay for requests that began with them."""

LOG = logging.getLogger(__name__)


def on_other_shards(
    before: PersonalizeContext, settings: Settings, challengers: ServingChallengers | None
) -> PersonalizeContext:
    """The context, with its services, for the layout that the settings say.

    What does not read the group's shards is shared by both: gates, publisher, saved filters.
    """
    services = before.services
    store = store_of(services.store.redis, settings)
    tenants = Tenants(store.redis, settings)
    recommenders = Recommenders(tenants, hears_changes=True, challengers=challengers)
    own = recommenders.of(settings.group)
    # These have tasks of their own, and people who wait there.
    services.live.read_from(store)
    services.read_your_writes.read_from(reached_marks(store), field_of_kind(store))
    after = dataclasses.replace(
        services,
        settings=settings,
        store=store,
        recommender=own,
        tenants=tenants,
        readiness=ReadinessCheck(services.publisher, store),
        placements=PlacementCache(store),
        segments=Segments(own),
        experiments=ExperimentCache(store),
    )
    return PersonalizeContext(Registry(store.redis, settings), tenants, recommenders, after)


@contextlib.asynccontextmanager
async def watching_layout(
    context: PersonalizeContext,
    use: Callable[[PersonalizeContext], None],
    challengers: ServingChallengers | None,
) -> AsyncIterator[None]:
    """Look at the stored layout within the block, and have other services used once it changes."""
    watching = asyncio.create_task(_watch(context, use, challengers))
    try:
        yield
    finally:
        await end_tasks(watching)


async def _watch(
    context: PersonalizeContext,
    use: Callable[[PersonalizeContext], None],
    challengers: ServingChallengers | None,
) -> None:
    closing: set[asyncio.Task[None]] = set()
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        settings = context.services.settings
        try:
            stored = await stored_layout(context.services.store.redis, settings.group)
        except AWAY_ERRORS as error:
            LOG.debug("the layout of shards is not known for now: %s", error)
            continue
        if stored is None or stored == ShardLayout(settings.shards, settings.generation):
            continue
        try:
            after = on_other_shards(context, settings.on_shards(*stored), challengers)
        except InvalidSetting as error:
            LOG.error(  # noqa: TRY400  its text says all
                "this process ends, as its group moved to %d shards: %s", stored.shards, error
            )
            os.kill(os.getpid(), signal.SIGTERM)
            return
        LOG.info("group %s is on %d shard(s) from now on", settings.group, stored.shards)
        former, context = context, after
        use(context)
        task = asyncio.create_task(_close(former.recommenders))
        closing.add(task)
        task.add_done_callback(closing.discard)


async def _close(recommenders: Recommenders) -> None:
    await asyncio.sleep(KEPT_S)
    await recommenders.close()
