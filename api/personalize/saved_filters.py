"""The filters of the settings' group by name: native questions use those of boto3 and save own."""

from __future__ import annotations

import msgspec

from api.dependencies import SavedFilter
from api.personalize.context import PersonalizeContext
from api.personalize.control.filters import check_fields, create_filter
from models.errors import (
    InvalidInput,
    InvalidRequest,
    LimitExceeded,
    ResourceAlreadyExists,
    ResourceNotFound,
)
from models.filters.filter import parse_filter_expression
from models.personalize.resources.resource import Resource
from models.personalize.resources.resource_types import path_of
from models.personalize.resources.statuses import ACTIVE

ONE_GROUP = "a filter of another dataset group has this name"

MAX_LISTED = 1000


class RegistryFilters:
    """`api.dependencies.SavedFilters` in the registry of resources."""

    def __init__(self, group: str) -> None:
        self._group = f"dataset-group/{group}"
        self._known_context: PersonalizeContext | None = None

    def work_in(self, context: PersonalizeContext) -> None:
        """Work in a context, whose services hold this: it comes before any request."""
        self._known_context = context

    @property
    def _context(self) -> PersonalizeContext:
        if self._known_context is None:
            raise RuntimeError("no context yet")
        return self._known_context

    async def expression(self, name: str) -> str:
        """The expression of a filter of items, at most `cache_s` old; see `SavedFilters`."""
        registry, now_s = self._context.registry, self._context.services.clock()
        try:
            stored = await registry.recent(f"filter/{name}", now_s=now_s)
        except ResourceNotFound as error:
            raise InvalidRequest(f"there is no filter {name!r}") from error
        if stored.status != ACTIVE or not self._is_own(stored):
            raise InvalidRequest(f"there is no filter {name!r} in this dataset group")
        return str(stored.data["filterExpression"])

    async def all(self) -> list[SavedFilter]:
        """All filters of the group, in the order of their creation."""
        found = await self._context.registry.page("filter", self._group, limit=MAX_LISTED)
        return [_saved(one) for one in found]

    async def put(self, name: str, expression: str) -> SavedFilter:
        """Create or replace a filter."""
        context = self._context
        registry, now_s = context.registry, context.services.clock()
        request = {
            "name": name,
            "datasetGroupArn": registry.arn(self._group),
            "filterExpression": expression,
        }
        try:
            try:
                await create_filter(context, request)
            except ResourceAlreadyExists:
                await check_fields(
                    context, self._group, parse_filter_expression(expression).fields, but=name
                )
                await registry.change(
                    f"filter/{name}", lambda one: self._edit(one, expression, now_s)
                )
            return _saved(await registry.get(f"filter/{name}"))
        except (InvalidInput, LimitExceeded) as error:
            raise InvalidRequest(str(error)) from error

    async def delete(self, name: str) -> bool:
        """Delete a filter; False if there is none."""
        registry = self._context.registry
        try:
            stored = await registry.get(f"filter/{name}")
            if not self._is_own(stored):
                raise InvalidRequest(ONE_GROUP)
            await registry.remove(f"filter/{name}")
        except ResourceNotFound:
            return False
        return True

    def _edit(self, old: Resource, expression: str, now_s: float) -> Resource:
        if not self._is_own(old):
            raise InvalidRequest(ONE_GROUP)
        data = {**old.data, "filterExpression": expression}
        return msgspec.structs.replace(old, data=data, updated_s=now_s)

    def _is_own(self, stored: Resource) -> bool:
        return path_of(stored.data["datasetGroupArn"]) == self._group


def _saved(stored: Resource) -> SavedFilter:
    return SavedFilter(
        stored.data["name"], stored.data["filterExpression"], stored.created_s, stored.updated_s
    )
