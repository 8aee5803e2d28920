"""Tags: keys and values attached to resources."""

from __future__ import annotations

from typing import Any

import msgspec

from api.personalize.context import PersonalizeContext
from api.personalize.control.crud import check_tag_count, get_resource, validated_tags
from api.personalize.protocol import Operation
from models.errors import InvalidInput, TooManyTagKeys
from models.personalize.resources.resource import Resource
from models.personalize.resources.resource_types import path_of, resource_type_of

UNTAGGED = frozenset({"schema", "metric-attribution"})
"""Resource types that cannot have tags."""


async def tag_resource(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Add tags; an existing key gets the new value."""
    resource = await _tagged(context, request["resourceArn"])
    added = validated_tags(context, request["tags"])

    def tagged(old: Resource) -> Resource:
        tags = {**old.tags, **added}
        check_tag_count(context, tags)
        return msgspec.structs.replace(old, tags=tags)

    await context.registry.change(resource.path, tagged)
    return {}


async def untag_resource(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Remove the tags with these keys, if present."""
    resource = await _tagged(context, request["resourceArn"])
    keys = frozenset(request["tagKeys"])
    most = context.registry.settings.personalize_quotas["tags"]
    if len(keys) > most:
        raise TooManyTagKeys(f"a resource has {most} tags at most; these are {len(keys)} keys")

    def untagged(old: Resource) -> Resource:
        tags = {key: tag for key, tag in old.tags.items() if key not in keys}
        return msgspec.structs.replace(old, tags=tags)

    await context.registry.change(resource.path, untagged)
    return {}


async def list_tags_for_resource(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """List all tags of a resource by key."""
    resource = await _tagged(context, request["resourceArn"])
    return {
        "tags": [{"tagKey": key, "tagValue": tag} for key, tag in sorted(resource.tags.items())]
    }


async def _tagged(context: PersonalizeContext, arn: str) -> Resource:
    kind = resource_type_of(path_of(arn))
    if kind is None or kind.name in UNTAGGED:
        raise InvalidInput(f"{arn} is not the ARN of a resource that can have tags")
    return await get_resource(context, arn, kind.name)


OPERATIONS: dict[str, Operation] = {
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "ListTagsForResource": list_tags_for_resource,
}
