"""Operations of personalize-events: events and metadata are sent to Kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from api.personalize.context import PersonalizeContext
from models import events
from models.errors import InvalidEvent, InvalidInput, InvalidRecord, ResourceInUse
from models.metadata_records import RecordKind, validate_properties
from models.personalize.resource_types import ResourcePath, path_of
from models.personalize.statuses import ACTIVE

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


async def put_events(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Answer with nothing once Kafka has acknowledged all events."""
    services = context.services
    now_s, limit_s = services.clock(), services.settings.future_limit_s
    if await context.tenants.group_of(request["trackingId"]) is None:
        raise InvalidInput(f"no event tracker has the tracking id {request['trackingId']!r}")
    try:
        message = events.parse(_encode(request), now_s=now_s, future_limit_s=limit_s)
        await services.publisher.publish(msgspec.structs.replace(message, accepted_at=now_s))
    except InvalidEvent as error:
        raise InvalidInput(str(error)) from error
    return {}


async def put_items(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Answer with nothing once Kafka has acknowledged the metadata of all items."""
    await _put(context, "items", request["datasetArn"], request["items"], "itemId")
    return {}


async def put_users(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Answer with nothing once Kafka has acknowledged the metadata of all users."""
    await _put(context, "users", request["datasetArn"], request["users"], "userId")
    return {}


async def _put(
    context: PersonalizeContext,
    kind: RecordKind,
    arn: str,
    records: Sequence[Mapping[str, Any]],
    id_name: str,
) -> None:
    """Send records of a dataset; none of them if one is invalid."""
    group = await _group_of(context, kind, arn)
    put = []
    for n, record in enumerate(records, 1):
        path = f"{kind}.{n}.member.properties"
        try:
            properties = _properties(record.get("properties", "{}"))
            put.append(
                (record[id_name], dict(validate_properties(kind, record[id_name], properties)))
            )
        except InvalidRecord as error:
            raise InvalidInput(f"{error} - at {path}") from error
    await context.services.publisher.put(kind, group, put)


async def _group_of(context: PersonalizeContext, kind: RecordKind, arn: str) -> str:
    """The dataset group of a dataset's ARN; the group of the settings has its datasets built in."""
    services = context.services
    path = ResourcePath.of(path_of(arn))
    if (path.kind, path.inner) != ("dataset", kind.upper()):
        raise InvalidInput(f"{arn} is not the ARN of a dataset of {kind}")
    if path.outer != services.settings.group:
        found = await context.registry.recent(str(path), now_s=services.clock())
        if found.status != ACTIVE:
            raise ResourceInUse(f"{arn} is {found.status}, not {ACTIVE}")
    return path.outer


def _properties(text: str) -> dict[str, Any]:
    """Properties of a record, which are JSON text within the JSON."""
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRecord(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidRecord("not a JSON object")
    return found
