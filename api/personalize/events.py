"""Events and metadata in: the operations of personalize-events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from api.personalize.context import Context
from api.personalize.targets import split_arn
from api.services import Kind, Services
from models import events
from models.errors import InvalidEvent, InvalidInput, ResourceInUse

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


async def put_events(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Nothing, once Kafka has acknowledged all of the events."""
    services: Services = context.services
    now_s, limit_s = services.clock(), services.settings.future_limit_s
    if await context.tenants.group_of(request["trackingId"]) is None:
        raise InvalidInput(f"no event tracker has the tracking id {request['trackingId']!r}")
    try:
        message = events.parse(_encode(request), now_s=now_s, future_limit_s=limit_s)
        await services.kafka.publish(msgspec.structs.replace(message, accepted_at=now_s))
    except InvalidEvent as error:
        raise InvalidInput(str(error)) from error
    return {}


async def put_items(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Nothing, once Kafka has acknowledged the metadata of all items."""
    await _put(context, "items", request["datasetArn"], request["items"], "itemId")
    return {}


async def put_users(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Nothing, once Kafka has acknowledged the metadata of all users."""
    await _put(context, "users", request["datasetArn"], request["users"], "userId")
    return {}


async def _put(
    context: Context, kind: Kind, arn: str, records: Sequence[Mapping[str, Any]], id_name: str
) -> None:
    group = await _group_of(context, kind, arn)
    put = [
        (record[id_name], _properties(record.get("properties"), f"{kind}.{n}.member.properties"))
        for n, record in enumerate(records, 1)
    ]
    await context.services.kafka.put(kind, group, put)


async def _group_of(context: Context, kind: Kind, arn: str) -> str:
    """The group of a dataset; the one of the settings has its datasets from the start."""
    found, group, dataset = split_arn(arn)
    if (found, dataset) != ("dataset", kind.upper()):
        raise InvalidInput(f"not a dataset of {kind}: {arn}")
    if group != context.services.settings.group:
        status = (await context.resources.get(arn))["status"]
        if status != "ACTIVE":
            raise ResourceInUse(f"{arn} is not active: {status}")
    return group


def _properties(text: str | None, path: str) -> dict[str, Any]:
    """A record's properties, which are JSON text within the JSON."""
    if text is None:
        return {}
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} is not a JSON object")
    return found
