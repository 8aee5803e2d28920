"""Operations of personalize-events: events and metadata are sent to Kafka.

Actions are items of a state group of their own; see `models.action_groups`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from api.personalize.context import PersonalizeContext
from models import events
from models.action_groups import actions_group, is_actions_group
from models.errors import (
    InvalidEvent,
    InvalidInput,
    InvalidRecord,
    ResourceInUse,
    require_one_shard,
)
from models.metadata_records import RecordKind, validate_properties
from models.personalize.datasets.dataset_rows import record_in_schema
from models.personalize.datasets.dataset_schemas import Schema, parse_schema
from models.personalize.resources.resource_types import ResourcePath, path_of
from models.personalize.resources.statuses import ACTIVE
from models.state.users.action_features import action_event_type

KEPT_MEMBERS = ("eventId", "recommendationId", "impression", "properties")
"""Members of an interaction with an action that its event has under the same names."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


async def put_events(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Answer with nothing once Kafka has acknowledged all events."""
    services = context.services
    now_s, limit_s = services.clock(), services.settings.future_limit_s
    group = await context.tenants.group_of(request["trackingId"])
    if group is None or is_actions_group(group):
        raise InvalidInput(f"no event tracker has the tracking id {request['trackingId']!r}")
    try:
        message = events.parse(_encode(request), now_s=now_s, future_limit_s=limit_s)
        await services.publisher.publish(msgspec.structs.replace(message, accepted_at=now_s))
    except InvalidEvent as error:
        raise InvalidInput(str(error)) from error
    return {}


async def put_action_interactions(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """Answer with nothing once Kafka has acknowledged all interactions with actions.

    After an error some of them may have been accepted: sent again, they count once.
    """
    services = context.services
    now_s, limit_s = services.clock(), services.settings.future_limit_s
    tracking_id = request["trackingId"]
    group = await context.tenants.group_of(tracking_id)
    if group is None or not is_actions_group(group):
        raise InvalidInput(f"no dataset of action interactions has the tracking id {tracking_id!r}")
    sent: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for n, one in enumerate(request["actionInteractions"], 1):
        event_type = action_event_type(one["eventType"])
        if not event_type:
            raise InvalidInput(
                f"actionInteractions.{n}.member.eventType must be TAKEN, NOT_TAKEN or VIEWED, not "
                f"{one['eventType'][:60]!r}"
            )
        event = {
            "itemId": one["actionId"],
            "sentAt": one["timestamp"],
            "eventType": event_type,
            **{name: one[name] for name in KEPT_MEMBERS if name in one},
        }
        sent.setdefault((one["sessionId"], one.get("userId")), []).append(event)
    try:
        messages = [
            events.parse(
                _encode(
                    {
                        "trackingId": tracking_id,
                        "sessionId": session_id,
                        "userId": user_id,
                        "eventList": listed,
                    }
                ),
                now_s=now_s,
                future_limit_s=limit_s,
            )
            for (session_id, user_id), listed in sent.items()
        ]
        for message in messages:
            await services.publisher.publish(msgspec.structs.replace(message, accepted_at=now_s))
    except InvalidEvent as error:
        raise InvalidInput(str(error)) from error
    return {}


async def put_actions(context: PersonalizeContext, request: dict[str, Any]) -> dict[str, Any]:
    """Answer with nothing once Kafka has acknowledged the metadata of all actions."""
    await _put(context, "actions", request["datasetArn"], request["actions"], "actionId")
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
    dataset: Literal["items", "users", "actions"],
    arn: str,
    records: Sequence[Mapping[str, Any]],
    id_name: str,
) -> None:
    """Send records of a dataset; none of them if one is invalid."""
    group, schema = await _dataset(context, dataset, arn)
    kind: RecordKind = "users" if dataset == "users" else "items"
    if dataset == "actions":
        require_one_shard(context.services.settings.shards, "Metadata of actions")
        group = actions_group(group)
    put = []
    for n, record in enumerate(records, 1):
        path = f"{dataset}.{n}.member.properties"
        try:
            properties = _properties(record.get("properties", "{}"))
            if schema is not None:
                properties = record_in_schema(schema, dataset.upper(), properties)
            put.append(
                (record[id_name], dict(validate_properties(kind, record[id_name], properties)))
            )
        except InvalidRecord as error:
            raise InvalidInput(f"{error} - at {path}") from error
    await context.services.publisher.put(kind, group, put)


async def _dataset(context: PersonalizeContext, kind: str, arn: str) -> tuple[str, Schema | None]:
    """The dataset group of a dataset's ARN, and the dataset's schema.

    The group of the settings has its datasets built in, without schemas: None.
    """
    services = context.services
    path = ResourcePath.of(path_of(arn))
    if (path.kind, path.inner) != ("dataset", kind.upper()):
        raise InvalidInput(f"{arn} is not the ARN of a dataset of {kind}")
    if path.outer == services.settings.group and kind != "actions":
        return path.outer, None
    now_s = services.clock()
    found = await context.registry.recent(str(path), now_s=now_s)
    if found.status != ACTIVE:
        raise ResourceInUse(f"{arn} is {found.status}, not {ACTIVE}")
    schema = await context.registry.recent(found.links[1], now_s=now_s)
    return path.outer, parse_schema(schema.data["schema"])


def _properties(text: str) -> dict[str, Any]:
    """Properties of a record, which are JSON text within the JSON."""
    try:
        found = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRecord(f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidRecord("not a JSON object")
    return found
