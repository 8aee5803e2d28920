"""Permissions of Personalize's operations: the role, in each dataset group that is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.access.callers import Caller
from api.access.roles import OPERATIONS, SHARED
from api.personalize.context import PersonalizeContext
from models.action_groups import dataset_group
from models.api_keys import Role
from models.errors import Forbidden, InvalidInput, ResourceNotFound
from models.personalize.resources.resource_types import ResourcePath, path_of

OF_NO_GROUP = frozenset(("schema", "recipe", "algorithm", "feature-transformation"))
"""Types of resources that belong to no dataset group."""


def check_role(operation: str, caller: Caller) -> None:
    """Raise `Forbidden` unless a caller has the role of an operation."""
    role = OPERATIONS.get(operation)
    if role not in caller.roles:
        raise Forbidden(f"{caller.name} may not call {operation}: it needs the role {role}")


async def check_groups(
    context: PersonalizeContext, operation: str, request: dict[str, Any], caller: Caller
) -> None:
    """Raise `Forbidden` unless a caller's roles are for every dataset group that a request names.

    A request that names none, such as ListDatasetGroups, is about all groups; those in `SHARED` are
    about none. Reads the resources whose ARNs are in the request, from a cache.
    """
    if caller.is_of_all_groups or operation in SHARED:
        return
    denied = Forbidden(f"{caller.name} may not call {operation} for this dataset group")
    groups = await _named_groups(context, request)
    if not groups or any(group is None or group not in caller.groups for group in groups):
        raise denied


def is_change(operation: str) -> bool:
    """True if an operation of the role manage may change something, for the audit log."""
    reads = ("Describe", "List", "Get")
    return OPERATIONS.get(operation) is Role.MANAGE and not operation.startswith(reads)


def targets(request: dict[str, Any]) -> list[str]:
    """Targets of a request, for the audit log: names and ARNs, and no ids of users."""
    name = request.get("name")
    items = [
        one[name]
        for member, name in (("items", "itemId"), ("actions", "actionId"))
        for one in request.get(member, ())
        if name in one
    ]
    return [*([name] if isinstance(name, str) else []), *_arns(request), *items]


async def _named_groups(context: PersonalizeContext, request: dict[str, Any]) -> set[str | None]:
    """Groups of the resources and the tracking id in a request; None stands for an unknown one."""
    groups: set[str | None] = set()
    if "trackingId" in request:
        found = await context.tenants.group_of(request["trackingId"])
        groups.add(None if found is None else dataset_group(found))
    for arn in _arns(request):
        try:
            path = path_of(arn)
        except InvalidInput:
            groups.add(None)
            continue
        if ResourcePath.of(path).kind not in OF_NO_GROUP:
            groups.add(await _group_at(context, path))
    return groups


async def _group_at(context: PersonalizeContext, text: str) -> str | None:
    """The group of the resource at a path; None if there is none."""
    path, settings = ResourcePath.of(text), context.registry.settings
    if path.kind == "dataset-group":
        return path.name
    if path.kind == "dataset":
        return path.outer
    if path.kind == "campaign" and path.name in settings.campaigns:
        return settings.group
    try:
        found = await context.registry.recent(text, now_s=context.services.clock())
    except ResourceNotFound:
        return None
    kinds = (ResourcePath.of(link) for link in found.links)
    return next((link.name for link in kinds if link.kind == "dataset-group"), None)


def _arns(value: object) -> Iterator[str]:
    """ARNs of Personalize in a request: members whose names end with Arn."""
    if isinstance(value, dict):
        for name, member in value.items():
            if isinstance(member, str):
                if name.endswith("Arn") and name not in {"roleArn", "kmsKeyArn"}:
                    yield member
            else:
                yield from _arns(member)
    elif isinstance(value, list):
        for member in value:
            yield from _arns(member)
