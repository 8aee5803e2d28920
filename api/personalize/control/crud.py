"""Operations common to all resource types (get, describe, list, delete), and their limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from botocore.model import ListShape, StructureShape

from api.personalize.context import PersonalizeContext
from api.personalize.control import builtin_resources
from api.personalize.control.pagination import DEFAULT_PAGE_LENGTH, make_token, read_token
from api.personalize.protocol import Operation
from api.personalize.service_model import service_operations
from models.errors import InvalidInput, LimitExceeded, TooManyTags
from models.personalize.resources.registry import IndexLimit
from models.personalize.resources.resource import Resource, index_name
from models.personalize.resources.resource_types import KINDS, path_of, resource_type_of
from models.personalize.resources.statuses import ACTIVE

ExtraMembers = Callable[[PersonalizeContext, Resource], Awaitable[dict[str, Any]]]

FOREIGN_ARNS = frozenset({"roleArn", "kmsKeyArn"})
"""Members that hold ARNs of other services."""

BUILT_IN = frozenset({"dataset-group", "event-tracker"})


async def get_resource(context: PersonalizeContext, arn: str, kind: str) -> Resource:
    """The resource with this ARN and type.

    Raises
    ------
    InvalidInput, ResourceNotFound
        The ARN is of another type, or no resource has it.
    """
    path = path_of(arn)
    if resource_type_of(path) is not KINDS[kind]:
        raise InvalidInput(f"{arn} is not the ARN of a {kind}")
    if kind in BUILT_IN:
        await builtin_resources.ensure_builtin(context)
    return builtin_resources.find_campaign(context, path) or await context.registry.get(path)


def new_resource(
    context: PersonalizeContext,
    path: str,
    request: Mapping[str, Any],
    *links: str,
    status: str = ACTIVE,
    **more: Any,  # noqa: ANN401  any JSON
) -> Resource:
    """The resource that a request describes, not stored yet.

    Parameters
    ----------
    more
        Members that are added to those of the request, or replace them.

    Raises
    ------
    InvalidInput, TooManyTags
        An ARN of the request is malformed, or its tags are not allowed.
    """
    now_s = context.services.clock()
    given = {name: member for name, member in request.items() if name != "tags"}
    data = {name: _canonical(context, name, member) for name, member in (given | more).items()}
    tags = validated_tags(context, request.get("tags", ()))
    return Resource(path, status, now_s, now_s, data, links, tags)


def validated_tags(
    context: PersonalizeContext, tags: list[dict[str, str]] | tuple[()]
) -> dict[str, str]:
    """Tags of a request by key; raises `InvalidInput` or `TooManyTags` if not allowed."""
    found = {tag["tagKey"]: tag["tagValue"] for tag in tags}
    if len(found) < len(tags):
        raise InvalidInput("tags: a key is repeated")
    reserved = next((key for key in found if key.lower().startswith("aws:")), None)
    if reserved is not None:
        raise InvalidInput(f"tags: {reserved!r} is reserved for Amazon")
    check_tag_count(context, found)
    return found


def check_tag_count(context: PersonalizeContext, tags: Mapping[str, str]) -> None:
    """Raise `TooManyTags` for more tags than the quota of a resource."""
    most = context.registry.settings.personalize_quotas["tags"]
    if len(tags) > most:
        raise TooManyTags(f"a resource may have {most} tags, not {len(tags)}")


def quota_limit(
    context: PersonalizeContext, kind: str, parent: str = "", *, extra: int = 0
) -> IndexLimit:
    """The quota of resources of a type, checked when one is created."""
    plural = KINDS[kind].plural
    most = context.registry.settings.personalize_quotas[plural]
    where = f" of {context.registry.arn(parent)}" if parent else ""
    error = LimitExceeded(f"there may be {most} {plural}{where}; RECOMMENDER_PERSONALIZE_QUOTAS")
    return IndexLimit(index_name(kind, parent), most + extra - 1, error)


def pending_limit(context: PersonalizeContext, kind: str, parent: str = "") -> IndexLimit:
    """The quota of unfinished jobs of a type, checked when one is created."""
    most = context.registry.settings.personalize_quotas[f"pending-{KINDS[kind].plural}"]
    error = LimitExceeded(f"More than {most} resources with PENDING or IN_PROGRESS status")
    return IndexLimit(index_name(kind, parent, only="unfinished"), most - 1, error)


def describe_operation(kind: str, more: ExtraMembers | None = None) -> Operation:
    """The operation that describes a resource of this type.

    Parameters
    ----------
    more
        Gives members that are not stored with it.
    """
    noun, arn_member = KINDS[kind].noun, KINDS[kind].arn_member

    async def describe(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
        resource = await get_resource(context, request[arn_member], kind)
        members = context.registry.to_api(resource)
        if more is not None:
            members |= await more(context, resource)
        return {
            name: select_members(shape, members)
            for name, shape in output_members(f"Describe{noun}").items()
        }

    return describe


def list_operation(kind: str, *, must_exist: bool = False) -> Operation:
    """The operation that lists resources of this type, a page at a time.

    Parameters
    ----------
    must_exist
        Raise `ResourceNotFound` for an unknown parent instead of listing nothing.
    """
    operation = f"List{KINDS[kind].noun}s"

    async def list_all(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
        if kind in BUILT_IN:
            await builtin_resources.ensure_builtin(context)
        parent = _parent(request)
        if must_exist and parent:
            await context.registry.get(parent)
        name, shape = _listed(operation)
        token_for = f"{kind} {parent}"
        after = read_token(token_for, request.get("nextToken"))
        length = request.get("maxResults", DEFAULT_PAGE_LENGTH)
        page = await context.registry.page(kind, parent, after=after, limit=length + 1)
        shown_ones = [select_members(shape, context.registry.to_api(one)) for one in page[:length]]
        answer: dict[str, Any] = {name: shown_ones}
        if len(page) > length:
            answer["nextToken"] = make_token(token_for, page[length - 1].number)
        return answer

    return list_all


def delete_operation(kind: str) -> Operation:
    """The operation that deletes a resource of this type at once."""
    arn_member = KINDS[kind].arn_member

    async def delete(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
        resource = await get_resource(context, request[arn_member], kind)
        await context.registry.remove(resource.path)
        return {}

    return delete


def select_members(shape: StructureShape, members: Mapping[str, Any]) -> dict[str, Any]:
    """The members that a shape has."""
    return {name: members[name] for name in shape.members if name in members}


def output_members(operation: str) -> Mapping[str, Any]:
    """Members of an operation's answer, with their shapes."""
    shape = service_operations()[operation].model.output_shape
    return {} if shape is None else shape.members


def _parent(request: Mapping[str, Any]) -> str:
    """Path of the parent whose resources are listed; empty for all."""
    for kind in KINDS.values():
        arn = request.get(kind.arn_member)
        if arn is not None:
            path = path_of(arn)
            if resource_type_of(path) is not kind:
                raise InvalidInput(f"{arn} is not the ARN of a {kind.name}")
            return path
    return ""


def _listed(operation: str) -> tuple[str, StructureShape]:
    """The member of an answer that holds the list, and the shape of its elements."""
    for name, shape in output_members(operation).items():
        if isinstance(shape, ListShape) and isinstance(shape.member, StructureShape):
            return name, shape.member
    raise LookupError(operation)


def _canonical(context: PersonalizeContext, name: str, member: Any) -> Any:  # noqa: ANN401  any JSON
    """A member of a request; ARNs with the region and account of this service."""
    if name.endswith("Arn") and name not in FOREIGN_ARNS:
        return context.registry.arn(path_of(member))
    return member
