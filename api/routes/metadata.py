"""Routes of metadata: records of items and users are put, and items are shown."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, HTTPException, Path, Request, Response
from msgspec import Meta

from api.dependencies import Services
from api.openapi import SERVER_ERRORS, documented
from api.request_params import AfterParams, ItemsParams, parse_query
from api.schemas import AcceptedRecords, Item, Items, ListedItem, json_response
from models.audit_entries import pseudonym
from models.errors import InvalidRecord, InvalidRequest
from models.events import Id
from models.metadata_records import (
    HIDDEN,
    MAX_CHARACTERS,
    Properties,
    RecordKind,
    Value,
    is_hidden,
    validate_properties,
)
from models.state.catalogue import metadata
from models.state.catalogue.item_listing import matching_items, newest_items

MAX_RECORDS = 10
MAX_BODY_BYTES = MAX_RECORDS * 12 * (max(MAX_CHARACTERS.values()) + 300)
"""Size of the largest valid body: the most records, of the greatest length, all escaped."""

PROPERTIES = (
    "Texts, numbers and truth values; | separates several words. At most {} characters as JSON."
)
ItemProperties = Annotated[
    dict[str, Value], Meta(description=PROPERTIES.format(MAX_CHARACTERS["items"]))
]
UserProperties = Annotated[
    dict[str, Value], Meta(description=PROPERTIES.format(MAX_CHARACTERS["users"]))
]

router = APIRouter()


class ItemRecord(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Metadata of one item."""

    item_id: Id
    properties: ItemProperties


class UserRecord(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Metadata of one user."""

    user_id: Id
    properties: UserProperties


class PutItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One to ten items."""

    items: Annotated[list[ItemRecord], msgspec.Meta(min_length=1, max_length=MAX_RECORDS)]


class PutUsers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One to ten users."""

    users: Annotated[list[UserRecord], msgspec.Meta(min_length=1, max_length=MAX_RECORDS)]


@router.put(
    "/items",
    **documented(
        AcceptedRecords,
        "Put metadata of 1 to 10 items",
        status=202,
        errors=SERVER_ERRORS,
        body=PutItems,
        example={"items": [{"itemId": "i9", "properties": {"GENRES": "horror|space"}}]},
    ),
)
async def put_items(request: Request) -> Response:
    """Answers once Kafka has acknowledged the records; each replaces an older one."""
    body = await _decoded(request, PutItems)
    return await _put(request, "items", [(one.item_id, one.properties) for one in body.items])


@router.put(
    "/users",
    **documented(
        AcceptedRecords,
        "Put metadata of 1 to 10 users",
        status=202,
        errors=SERVER_ERRORS,
        body=PutUsers,
        example={"users": [{"userId": "u9", "properties": {"AGE": 36}}]},
    ),
)
async def put_users(request: Request) -> Response:
    """Answers once Kafka has acknowledged the records; each replaces an older one."""
    body = await _decoded(request, PutUsers)
    return await _put(request, "users", [(one.user_id, one.properties) for one in body.users])


@router.get(
    "/items",
    **documented(
        Items,
        "Items with their metadata, by pages",
        query=ItemsParams,
        errors=SERVER_ERRORS,
    ),
)
async def list_items(request: Request) -> Response:
    """Items with metadata: all, those that hold words, or those created last.

    A page looks through a bounded number of records, so with a query it may be empty and still
    name a cursor: go on until there is none.
    """
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], ItemsParams)
    is_newest, n = asked.order == "newest", asked.num_results
    if is_newest and (asked.query or asked.cursor):
        raise InvalidRequest("order=newest goes without query and cursor")
    await services.await_effect(asked, request.receive)
    cursor = None
    with services.redis_gate:
        if is_newest:
            found = await newest_items(services.store, n)
        else:
            found, cursor = await matching_items(
                services.store, asked.query, cursor=asked.cursor, n=n
            )
    listed = [
        ListedItem(
            one.item_id,
            dict(one.properties),
            one.created_at,
            one.updated_at,
            is_hidden(one.properties, services.clock()),
        )
        for one in found
    ]
    return json_response(Items(listed, cursor))


@router.get(
    "/items/{item_id}",
    **documented(
        Item,
        "Metadata and counts of an item",
        query=AfterParams,
        errors=SERVER_ERRORS | {404: "No record or event names this item."},
    ),
)
async def item(
    request: Request, item_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Properties of an item, and counts of its events."""
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], AfterParams)
    await services.await_effect(asked, request.receive)
    with services.redis_gate:
        found = await metadata.item(services.store, item_id, now_s=services.clock())
    if found is None:
        raise HTTPException(404, f"nothing is known of item {item_id!r}")
    return json_response(
        Item(
            found.item_id,
            None if found.properties is None else dict(found.properties),
            found.created_at or None,
            found.updated_at or None,
            is_hidden(found.properties or {}, services.clock()),
            found.events,
            found.purchases,
            found.first_event_at or None,
            found.last_event_at or None,
            dict(found.rates),
        )
    )


@router.delete(
    "/items/{item_id}",
    **documented(
        AcceptedRecords,
        "Delete an item",
        status=202,
        errors=SERVER_ERRORS | {404: "No record or event names this item."},
    ),
)
async def delete_item(
    request: Request, item_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Removes the properties of an item and hides it: no answer holds it any more.

    Its events stay, and count for others; a later record of it brings it back.
    """
    services: Services = request.app.state.services
    with services.redis_gate:
        (index,) = await services.store.item_indexes([item_id])
    if not index:
        raise HTTPException(404, f"nothing is known of item {item_id!r}")
    group = services.settings.group
    await services.audit(request.scope, "delete_item", [item_id], group)
    # A record and no message without a value: that would be gone from a compacted topic one day,
    # and the item, which its events make known, would be shown again after a rebuild.
    after = await services.publisher.put("items", group, [(item_id, {HIDDEN: True})])
    return json_response(AcceptedRecords(1, after), 202)


Body = TypeVar("Body", PutItems, PutUsers)


async def _decoded(request: Request, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(str(error)) from error


async def _put(
    request: Request, kind: RecordKind, records: list[tuple[str, Properties]]
) -> Response:
    services: Services = request.app.state.services
    for n, (name, properties) in enumerate(records):
        try:
            validate_properties(kind, name, properties)
        except InvalidRecord as error:
            raise InvalidRecord(f"{error} - at `$.{kind}[{n}]`") from error
    group = services.settings.group
    names = [name if kind == "items" else pseudonym(group, name) for name, _ in records]
    await services.audit(request.scope, f"put_{kind}", names, group)
    after = await services.publisher.put(kind, group, records)
    return json_response(AcceptedRecords(len(records), after), 202)
