"""Dataset groups as tenants: the group of each tracking id, and its state.

The group of the settings always exists; others are registered while the service runs
(`models.state.groups.group_registry`).

All groups of a service are in one Redis: events of several take effect in one atomic step.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Collection
from typing import Literal

from models.action_groups import actions_group, dataset_group
from models.errors import InvalidInput, LimitExceeded, ResourceAlreadyExists, ResourceInUse
from models.metadata_records import GROUP
from models.settings import Settings
from models.state.clients.client import RedisClient
from models.state.groups import group_registry as groups
from models.state.shards.sharded_store import store_of
from models.state.store import Store
from models.state.timed_cache import TimedCache
from models.state.users.action_features import COLUMNS

RESERVED = "recommender"
"""A group of this name would have the keys of the registry."""

MAX_TRACKERS = 2000
CLOCKS_S = 5.0
"""Difference of the clocks of two machines that is allowed for."""

MAX_STORES = 64
"""Most stores of registered groups that are kept; they hold nothing, but take time to make."""


class Tenants:
    """The groups of a service; safe for many tasks of one event loop.

    Parameters
    ----------
    client
        Client of the Redis server with all groups.
    settings
        Of the group that always exists; of the others, all but group and tracking id.
    clock
        Monotonic seconds, for the age of cached tracking ids.
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
        self._groups = TimedCache[str, str](size=MAX_TRACKERS, max_age_s=settings.cache_s)
        self._own = store_of(client, settings)
        self._other = functools.lru_cache(MAX_STORES)(self._new_store)
        self._on_erased: list[Callable[[str], None]] = []

    async def group_of(self, tracking_id: str) -> str | None:
        """Group of a tracking id; None if it is not registered.

        A new tracking id is found at once; a removed one is found for up to `cache_s`.
        """
        if tracking_id == self.settings.tracking_id:
            return self.settings.group
        (group,) = await self._groups.read([tracking_id], self._clock(), self._registered)
        return group

    async def group_when_sent(self, tracking_id: str, sent_at_s: float) -> str | None:
        """Group of a tracking id when a message with it was sent to Kafka; None for an unknown one.

        A tracking id that was removed later still leads to its group: what was accepted counts,
        whether it is read late or once more when the state is rebuilt.
        """
        group = await self.group_of(tracking_id)
        if group is not None:
            return group
        former = await groups.former_group(self.redis, tracking_id)
        if former is None:
            return None
        group, removed_s = former
        return group if sent_at_s <= removed_s + self.settings.cache_s + CLOCKS_S else None

    async def _registered(self, tracking_ids: list[str]) -> list[str | None]:
        return [await groups.registered_group(self.redis, each) for each in tracking_ids]

    def forget(self) -> None:
        """Read the groups of tracking ids again."""
        self._groups.clear()

    async def groups(self) -> frozenset[str]:
        """All groups, as stored now."""
        return await groups.registered_groups(self.redis) | {self.settings.group}

    async def create(self, group: str) -> None:
        """Create a group, unless it exists.

        Raises
        ------
        InvalidInput
            The name is not allowed for a group, or the groups would not be on one node.
        """
        self._check(group)
        if group != self.settings.group:
            await groups.add_group(self.redis, group)

    async def create_actions(self, group: str) -> str:
        """Create the state group of a group's actions, unless it exists; returns its name.

        Raises
        ------
        InvalidInput
            As `create`.
        """
        name = actions_group(group)
        if self.settings.has_one_group:
            raise InvalidInput(
                "on a Redis Cluster, and with RECOMMENDER_SHARDS, there are no actions: one step "
                "would span two of its nodes"
            )
        self._check(group)
        await groups.add_group(self.redis, name)
        await groups.copy_tombstones(self.redis, group, name)
        await self.name_columns(name, COLUMNS)
        return name

    async def register(self, tracking_id: str, group: str) -> None:
        """Register a tracking id for a group, which is created unless it exists.

        Registering again changes nothing.

        Raises
        ------
        InvalidInput
            The tracking id or the group name is not allowed.
        ResourceAlreadyExists
            The tracking id belongs to another group.
        LimitExceeded
            `MAX_TRACKERS` tracking ids are registered.
        """
        if not 1 <= len(tracking_id) <= 256:
            raise InvalidInput("a tracking id has 1 to 256 characters")
        self._check(dataset_group(group))
        holder = await self._holder(tracking_id, group)
        if holder is None:
            raise LimitExceeded(f"there are {MAX_TRACKERS} tracking ids already")
        if holder != group:
            raise ResourceAlreadyExists(f"tracking id {tracking_id!r} is another group's")

    def _check(self, group: str) -> None:
        _check_name(group)
        if self.settings.has_one_group and group != self.settings.group:
            # One step applies the events of all groups: docs/decisions/0007-tenants-in-one-step.md.
            where = "with RECOMMENDER_SHARDS" if self.settings.shards > 1 else "on a Redis Cluster"
            raise InvalidInput(
                f"{where} there is no group but {self.settings.group!r}, that of the settings"
            )

    async def _holder(self, tracking_id: str, group: str) -> str | None:
        if tracking_id == self.settings.tracking_id:
            return self.settings.group
        return await groups.register_tracker(
            self.redis, tracking_id, group, settings_group=self.settings.group, most=MAX_TRACKERS
        )

    async def name_columns(self, group: str, columns: Collection[str]) -> None:
        """Set the group's contextual columns; see `models.state.context_columns`.

        Counts of former columns stay, without effect. Nothing is stored for a removed group.

        Raises
        ------
        InvalidInput
            There are any, of a group of several shards: their counts do not know shards.
        """
        if columns and self.settings.shards > 1:
            raise InvalidInput(
                "with RECOMMENDER_SHARDS there are no contextual columns: counts of their values "
                "do not know shards"
            )
        await groups.set_context_columns(
            self.redis, group, columns, settings_group=self.settings.group
        )

    async def remove(self, tracking_id: str, *, now_s: float) -> None:
        """Remove a tracking id, if it exists; the group stays, and events sent before as well.

        Another process may accept its events for up to `cache_s`.
        """
        self._groups.drop(tracking_id)
        await groups.remove_tracker(self.redis, tracking_id, now_s=now_s)

    async def erase(self, group: str) -> None:
        """Remove a group, its actions, tracking ids and all state; O(keys of all groups).

        Messages on their way to the group take no effect, so removed state does not come back.

        Raises
        ------
        ResourceInUse
            The group is that of the settings.
        """
        if group == self.settings.group:
            raise ResourceInUse(f"group {group!r} stands in the settings")
        registered = await groups.registered_groups(self.redis)
        for name in (group, *({actions_group(group)} & registered)):
            await groups.erase_group(self.redis, name)
            for forget in self._on_erased:
                forget(name)
        self._groups.clear()

    def on_erased(self, forget: Callable[[str], None]) -> None:
        """Call `forget` with each group that this object erases from now on.

        A new group of the same name has none of its state: what is cached of it must go.
        """
        self._on_erased.append(forget)

    async def lower_watermarks(
        self, field: str, offset: int, witness: tuple[int, int, int] | None = None
    ) -> Literal[True]:
        """Lower the watermark of a partition to an offset in all groups, where it is higher.

        In the settings' group last: its watermark tells that all are done, and only there is the
        message at the watermark kept.
        """
        for group in sorted(await self.groups() - {self.settings.group}):
            await self.store(group).lower_watermark(field, offset)
        await self._own.lower_watermark(field, offset, witness)
        return True

    async def forget_partitions(self, incarnations: Collection[str]) -> None:
        """Forget partitions of other topics than these in all groups, if there are too many.

        The settings' group has the partitions of all groups, so only it is checked each time.
        """
        if await self._own.forget_partitions(incarnations):
            for group in await self.groups() - {self.settings.group}:
                await self.store(group).forget_partitions(incarnations)

    def store(self, group: str) -> Store:
        """State of a group."""
        return self._own if group == self.settings.group else self._other(group)

    def _new_store(self, group: str) -> Store:
        changes = {"group": group, **self.settings.event_types_of(group)}
        return Store(self.redis, self.settings.model_copy(update=changes))


def _check_name(group: str) -> None:
    if not re.fullmatch(GROUP, group) or group == RESERVED:
        raise InvalidInput(
            f"not a group's name: {group!r}; it has 1 to 63 letters, digits, _ and -, "
            f"and is not {RESERVED!r}"
        )
