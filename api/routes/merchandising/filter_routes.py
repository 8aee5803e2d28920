"""Routes of saved filters, which boto3 and native questions use by name alike."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, HTTPException, Path, Request, Response

from api.dependencies import SavedFilter, Services
from api.openapi import INVALID_REQUEST_ERROR, SERVER_ERRORS, documented
from api.request_params import parse_body
from api.schemas import ResponseBody, json_response
from models.errors import InvalidInput, InvalidRequest
from models.filters.grammar import MAX_CHARACTERS
from models.filters.short_form import FILTER_NAME, parse_item_filter
from models.serving.merchandising.named_things import check_unnamed

router = APIRouter()

FilterPath = Annotated[str, Path(min_length=1, max_length=63, pattern=FILTER_NAME)]

ERRORS = INVALID_REQUEST_ERROR | SERVER_ERRORS
UNKNOWN = {404: "There is no filter of that name."}


class SavedFilters(ResponseBody, frozen=True):
    """All filters of the group."""

    filters: list[SavedFilter]


class PutFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A filter of items, in the short form or as an expression, which may have $PARAMETERS."""

    filter: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CHARACTERS)]


@router.get("/filters", **documented(SavedFilters, "All saved filters"))
async def list_filters(request: Request) -> Response:
    """Filters of the group, those that were created by CreateFilter too."""
    services: Services = request.app.state.services
    with services.redis_gate:
        return json_response(SavedFilters(await services.filters.all()))


@router.put(
    "/filters/{name}",
    **documented(
        SavedFilter, "Save a filter", body=PutFilter, example={"filter": "brand:acme;price<20"}
    ),
)
async def put_filter(request: Request, name: FilterPath) -> Response:
    """Creates or replaces a filter; `filter=name` uses it, as does Personalize's API."""
    services: Services = request.app.state.services
    wanted = parse_body(await request.body(), PutFilter)
    try:
        found = parse_item_filter(wanted.filter, takes_parameters=True)
    except InvalidInput as error:
        raise InvalidRequest(str(error)) from error
    if found.parameters:
        # Rules take filters without.
        with services.redis_gate:
            await check_unnamed(services.store, "filter", name, services.clock())
    await services.audit(request.scope, "put_filter", [name], services.settings.group)
    with services.redis_gate:
        return json_response(await services.filters.put(name, found.text))


@router.delete(
    "/filters/{name}",
    **documented(SavedFilter, "Delete a filter", errors=ERRORS | UNKNOWN),
)
async def delete_filter(request: Request, name: FilterPath) -> Response:
    """Deletes a filter that no rule of a placement or a running experiment names.

    Questions that name it are refused from then on.
    """
    services: Services = request.app.state.services
    with services.redis_gate:
        await check_unnamed(services.store, "filter", name, services.clock())
    await services.audit(request.scope, "delete_filter", [name], services.settings.group)
    with services.redis_gate:
        found = next((one for one in await services.filters.all() if one.name == name), None)
        if found is None or not await services.filters.delete(name):
            raise HTTPException(404, f"there is no filter {name!r}")
    return json_response(found)
