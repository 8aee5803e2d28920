"""Dataset groups as tenants: whose events a tracking id marks, and each group's state and answers.

One group stands in the settings and is always there; others are registered while the service runs
(`models.state.groups`).

All groups of a service live in one Redis: events of several take effect in one atomic step.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Literal

from models.errors import InvalidInput, LimitExceeded, ResourceAlreadyExists, ResourceInUse
from models.metadata_records import GROUP
from models.serving.cache import StateCache
from models.serving.recommender import Recommender
from models.settings import Settings
from models.state import groups
from models.state.client import RedisClient
from models.state.store import Store

RESERVED = "recommender"
"""A group of this name would have these very keys."""

MAX_TRACKERS = 2000
MAX_OPEN_RECOMMENDERS = 32
"""Registered groups whose recommenders a process keeps, at most; the least used make room."""

REGISTERED_CACHE_SHARE = 8
"""A registered group's cache may hold one in so many of what that of the settings' group may."""


class Tenants:
    """The groups of a service; safe for many tasks of one event loop.

    Parameters
    ----------
    client
        A client of the Redis server that holds all groups.
    settings
        Name the group that is always there; of the others, all but group and tracking id.
    clock
        Seconds that only go forward, for the age of what is cached.
    """

    def __init__(
        self,
        client: RedisClient,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.redis = client
        self.settings = settings
        self._clock = clock
        self._known: dict[str, tuple[float, str]] = {}
        self._own = Recommender(Store(client, settings))
        self._others: OrderedDict[str, Recommender] = OrderedDict()

    async def group_of(self, tracking_id: str) -> str | None:
        """The group whose events carry this tracking id; None if it is nobody's.

        A new one is known at once; one that was removed may be known for `cache_s` more.
        """
        if tracking_id == self.settings.tracking_id:
            return self.settings.group
        now_s = self._clock()
        known = self._known.get(tracking_id)
        if known is not None and now_s - known[0] <= self.settings.cache_s:
            return known[1]
        group = await groups.registered_group(self.redis, tracking_id)
        if group is None:
            self._known.pop(tracking_id, None)
            return None
        if len(self._known) >= MAX_TRACKERS:
            self._known.clear()
        self._known[tracking_id] = (now_s, group)
        return group

    def forget(self) -> None:
        """Ask the store again whose tracking ids are."""
        self._known.clear()

    async def groups(self) -> frozenset[str]:
        """Every group that there is, as the store has it now."""
        return await groups.registered_groups(self.redis) | {self.settings.group}

    async def create(self, group: str) -> None:
        """From now on there is a group of this name; one that is there stays as it is.

        Raises
        ------
        InvalidInput
            A group cannot have this name.
        """
        _check_name(group)
        if group != self.settings.group:
            await groups.add_group(self.redis, group)

    async def register(self, tracking_id: str, group: str) -> None:
        """From now on events with this tracking id are the group's, which there is then.

        Registering again changes nothing.

        Raises
        ------
        InvalidInput
            The tracking id or the group cannot have this name.
        ResourceAlreadyExists
            The tracking id is another group's.
        LimitExceeded
            There are `MAX_TRACKERS` already.
        """
        if not 1 <= len(tracking_id) <= 256:
            raise InvalidInput("a tracking id has 1 to 256 characters")
        _check_name(group)
        holder = await self._holder(tracking_id, group)
        if holder is None:
            raise LimitExceeded(f"there are {MAX_TRACKERS} tracking ids already")
        if holder != group:
            raise ResourceAlreadyExists(f"tracking id {tracking_id!r} is another group's")

    async def _holder(self, tracking_id: str, group: str) -> str | None:
        if tracking_id == self.settings.tracking_id:
            return self.settings.group
        return await groups.register_tracker(
            self.redis, tracking_id, group, settings_group=self.settings.group, most=MAX_TRACKERS
        )

    async def name_columns(self, group: str, columns: Collection[str]) -> None:
        """From now on these are the group's contextual columns; see `models.state.context_columns`.

        What was counted of others stays, without effect. Nothing is stored of a group that is gone.
        """
        await groups.set_context_columns(
            self.redis, group, columns, settings_group=self.settings.group
        )

    async def remove(self, tracking_id: str) -> None:
        """Let the tracking id lead nowhere; one that does not exist is no error.

        The group stays. Another process may take its events for as long as `cache_s`.
        """
        self._known.pop(tracking_id, None)
        await groups.remove_tracker(self.redis, tracking_id)

    async def erase(self, group: str) -> None:
        """Remove a group, its tracking ids and all that is stored of it; O(keys of all groups).

        What is under way to it takes no effect any more, and what has been removed stays so.

        Raises
        ------
        ResourceInUse
            The group stands in the settings.
        """
        if group == self.settings.group:
            raise ResourceInUse(f"group {group!r} stands in the settings")
        await groups.erase_group(self.redis, group)
        self._known.clear()
        self._others.pop(group, None)

    async def lower_watermarks(self, field: str, offset: int) -> Literal[True]:
        """Take every group's watermark of a partition back to an offset, if it lies beyond.

        Of the settings' group last: until then nothing tells that it was done.
        """
        for group in sorted(await self.groups() - {self.settings.group}):
            await self.store(group).lower_watermark(field, offset)
        await self._own.store.lower_watermark(field, offset)
        return True

    async def forget_partitions(self, incarnations: Collection[str]) -> None:
        """Have every group keep the places in partitions of these topics, if it has too many.

        No group has more than that of the settings, which has those of all: it alone is asked each
        time.
        """
        if await self._own.store.forget_partitions(incarnations):
            for group in await self.groups() - {self.settings.group}:
                await self.store(group).forget_partitions(incarnations)

    def store(self, group: str) -> Store:
        """The group's state."""
        return self.recommender(group).store

    def recommender(self, group: str) -> Recommender:
        """The group's recommender, with a cache that its callers share."""
        if group == self.settings.group:
            return self._own
        recommender = self._others.get(group)
        if recommender is None:
            store = Store(self.redis, self.settings.model_copy(update={"group": group}))
            recommender = Recommender(store, StateCache(store, share=REGISTERED_CACHE_SHARE))
            self._others[group] = recommender
            if len(self._others) > MAX_OPEN_RECOMMENDERS:
                self._others.popitem(last=False)
        self._others.move_to_end(group)
        return recommender

    async def close(self) -> None:
        """Let reads that are under way end."""
        for recommender in (self._own, *self._others.values()):
            await recommender.cache.close()


def _check_name(group: str) -> None:
    if not re.fullmatch(GROUP, group) or group == RESERVED:
        raise InvalidInput(
            f"not a group's name: {group!r}; it has 1 to 63 letters, digits, _ and -, "
            f"and is not {RESERVED!r}"
        )
