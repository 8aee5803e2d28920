"""Routes of segments: named sets of users, by a rule or by affinity."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Request, Response
from msgspec import Meta

from api.dependencies import Services
from api.openapi import INVALID_REQUEST_ERROR, SERVER_ERRORS, documented
from api.request_params import AfterParams, parse_body, parse_query
from api.routes.merchandising.saved_names import save_named
from api.schemas import ResponseBody, json_response
from models.errors import InvalidInput, InvalidRequest
from models.serving.answers import MAX_RESULTS
from models.serving.merchandising.named_things import check_unnamed
from models.serving.merchandising.segments import Segment, check_segment, decoded_segment
from models.state.named_versions import NAME_PATTERN, SavedVersion, current_versions

router = APIRouter()

SegmentPath = Annotated[str, Path(min_length=1, max_length=64, pattern=NAME_PATTERN)]

ERRORS = INVALID_REQUEST_ERROR | SERVER_ERRORS | {404: "There is no segment of that name."}

EXAMPLE = {"rule": 'INCLUDE UserID WHERE Users.TIER IN ("gold")'}


class SavedSegment(ResponseBody, frozen=True):
    """A segment as it was saved."""

    name: str
    version: Annotated[int, Meta(description="Counts the times that it was saved.")]
    saved_at: Annotated[float, Meta(description="Unix seconds.")]
    saved_by: Annotated[str, Meta(description="Name of the API key.")]
    segment: Annotated[Segment | None, Meta(description="null where this version deleted it.")]


class SavedSegments(ResponseBody, frozen=True):
    """All segments."""

    segments: list[SavedSegment]


class SegmentUsersParams(AfterParams, frozen=True, kw_only=True):
    """Query parameters of /segments/{name}/users."""

    cursor: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9]{1,19}$")] | None,
        Meta(description="Of the page before."),
    ] = None
    num_results: Annotated[int, Meta(ge=1, le=MAX_RESULTS, description="Users wanted.")] = 25


class SegmentUsers(ResponseBody, frozen=True):
    """A page of the users of a segment."""

    user_ids: list[str]
    cursor: Annotated[str | None, Meta(description="For the next page; null if there is none.")]


@router.get("/segments", **documented(SavedSegments, "All segments"))
async def list_segments(request: Request) -> Response:
    """The current version of each segment, by name."""
    services: Services = request.app.state.services
    with services.redis_gate:
        found = await current_versions(services.store, "segments")
    return json_response(SavedSegments([_saved(name, one) for name, one in found.items()]))


@router.get(
    "/segments/{name}/users",
    **documented(
        SegmentUsers, "Users of a segment, by pages", query=SegmentUsersParams, errors=ERRORS
    ),
)
async def segment_users(request: Request, name: SegmentPath) -> Response:
    """By affinity the highest first; by a rule, users with metadata that meet it, in no order.

    A page by a rule looks through a bounded number of users, so it may be empty and still name a
    cursor: go on until there is none. With API keys the audit log has an entry of it.
    """
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], SegmentUsersParams)
    await services.audit_reading(request.scope, "show_segment", [name], services.settings.group)
    await services.await_effect(asked, request.receive)
    now_s = services.clock()
    with services.redis_gate:
        segment = await services.segments.get(name, now_s)
        if segment is None:
            raise HTTPException(404, f"there is no segment {name!r}")
        try:
            page = await services.segments.users(
                segment, now_s, cursor=int(asked.cursor or 0), n=asked.num_results
            )
        except InvalidInput as error:
            raise InvalidRequest(str(error)) from error
    return json_response(SegmentUsers(page.user_ids, page.cursor))


@router.put(
    "/segments/{name}",
    **documented(SavedSegment, "Save a segment", body=Segment, example=EXAMPLE),
)
async def put_segment(request: Request, name: SegmentPath) -> Response:
    """Checks and saves a segment; placements that name it follow within a second."""
    segment = parse_body(await request.body(), Segment)
    check_segment(segment)
    return json_response(await _save(request, name, segment))


@router.delete("/segments/{name}", **documented(SavedSegment, "Delete a segment", errors=ERRORS))
async def delete_segment(request: Request, name: SegmentPath) -> Response:
    """Deletes a segment that no rule of a placement or a running experiment names."""
    services: Services = request.app.state.services
    with services.redis_gate:
        await check_unnamed(services.store, "segment", name, services.clock())
    saved = await _save(request, name, None)
    if not saved.version:
        raise HTTPException(404, f"there is no segment {name!r}")
    return json_response(saved)


async def _save(request: Request, name: str, segment: Segment | None) -> SavedSegment:
    """Save a version, None to delete; its number is 0 where there is nothing to delete."""
    services: Services = request.app.state.services
    saving = await save_named(request, "segments", name, segment)
    services.segments.drop(name)
    return SavedSegment(name, *saving, segment)


def _saved(name: str, found: SavedVersion) -> SavedSegment:
    segment = decoded_segment(bytes(found.value))
    return SavedSegment(name, found.version, found.saved_at, found.saved_by, segment)
