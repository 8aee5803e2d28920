"""Routes of placements: they are saved, tried on a user before, and rolled back."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, HTTPException, Path, Request, Response

from api.dependencies import Services
from api.openapi import INVALID_REQUEST_ERROR, SERVER_ERRORS, documented
from api.request_params import ContextParam, PropertyNames, parse_body
from api.routes.merchandising.saved_names import save_named
from api.schemas import ResponseBody, json_response
from models.audit_entries import pseudonym
from models.errors import InvalidRequest
from models.serving.answers import Recommendation
from models.serving.item_values import with_properties
from models.serving.merchandising.experiments import check_free
from models.serving.merchandising.named_things import warnings_of
from models.serving.merchandising.placements import (
    Configuration,
    ZonedTime,
    configuration_for,
    placement_of,
)
from models.serving.merchandising.questions import Question, answer_question
from models.serving.merchandising.rule_members import IdParam
from models.serving.merchandising.rules import Asker
from models.state.named_versions import (
    NAME_PATTERN,
    SavedVersion,
    all_versions,
    current_version,
    current_versions,
)

router = APIRouter()

NamePath = Annotated[str, Path(min_length=1, max_length=64, pattern=NAME_PATTERN)]

ERRORS = INVALID_REQUEST_ERROR | SERVER_ERRORS
UNKNOWN = {404: "There is no placement, or no version, of that name."}

RULE = {"name": "spring", "until": "2030-04-01T00:00:00Z", "filter": "brand!:acme"}
EXAMPLE = {"num_results": 10, "caption": "For you", "rules": [RULE]}


class SavedPlacement(ResponseBody, frozen=True):
    """A placement as it was saved."""

    name: str
    version: Annotated[int, msgspec.Meta(description="Counts the times that it was saved.")]
    saved_at: Annotated[float, msgspec.Meta(description="Unix seconds.")]
    saved_by: Annotated[str, msgspec.Meta(description="Name of the API key.")]
    configuration: Annotated[
        Configuration | None, msgspec.Meta(description="null where this version deleted it.")
    ]
    warnings: Annotated[
        list[str],
        msgspec.Meta(description="When it is saved: what may be a mistake, with its place."),
    ] = msgspec.field(default_factory=list)


class SavedPlacements(ResponseBody, frozen=True):
    """Placements, or versions of one."""

    placements: list[SavedPlacement]


class Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The version whose configuration is saved again."""

    version: Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class PreviewRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A draft of a placement, and a user or session to try it on."""

    configuration: Configuration
    placement: Annotated[
        Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)] | None,
        msgspec.Meta(description="The saved placement to compare with; without, no rules."),
    ] = None
    user_id: IdParam | None = None
    session_id: IdParam | None = None
    item_id: IdParam | None = None
    context: ContextParam = {}
    properties: PropertyNames = ()
    at: Annotated[
        ZonedTime | None, msgspec.Meta(description="ZonedTime for scheduled rules; now without.")
    ] = None


class Preview(ResponseBody, frozen=True):
    """The lists before and after a draft would be saved; nothing is."""

    before: list[Recommendation]
    after: list[Recommendation]
    warnings: Annotated[
        list[str], msgspec.Meta(description="What of the draft may be a mistake, with its place.")
    ]


@router.get("/placements", **documented(SavedPlacements, "All placements"))
async def list_placements(request: Request) -> Response:
    """The current version of each placement, by name."""
    services: Services = request.app.state.services
    with services.redis_gate:
        found = await current_versions(services.store, "placements")
    return json_response(SavedPlacements([_saved(name, one) for name, one in found.items()]))


@router.post(
    "/placements/preview",
    **documented(
        Preview,
        "Try a draft of a placement on a user",
        body=PreviewRequest,
        example={"configuration": EXAMPLE, "user_id": "u7"},
    ),
)
async def preview(request: Request) -> Response:
    """The lists of a user before and after; the draft is checked, and nothing is saved.

    With API keys the audit log has an entry of it, for it shows what a user would see.
    """
    services: Services = request.app.state.services
    asked = parse_body(await request.body(), PreviewRequest)
    draft = await services.checked(asked.configuration)
    group, user = services.settings.group, asked.user_id or asked.session_id
    named = [] if user is None else [pseudonym(group, user)]
    await services.audit_reading(request.scope, "preview_placement", named, group)
    recommender, now_s = services.recommender, services.clock()
    at_s = now_s if asked.at is None else asked.at.timestamp()
    asker = Asker(asked.user_id, asked.session_id, asked.item_id)
    # Exploration is drawn anew each time, which no draft has changed.
    question = Question(asker, now_s, reasons=True, context=asked.context, explores=False)
    with services.redis_gate:
        if asked.placement is None:
            before = msgspec.structs.replace(draft, rules=())
        else:
            placement = await services.placements.get(asked.placement, now_s)
            before = await services.with_filters_of(configuration_for(placement, user, at_s))
        question = await services.with_segments(question, before, draft)
        lists = []
        for one in (before, draft):
            answer = await answer_question(
                recommender, question, one, None, k=one.num_results, rules_at_s=at_s
            )
            shown = await with_properties(recommender, answer, asked.properties, now_s=now_s)
            lists.append(shown.items)
        warnings = await warnings_of(recommender, draft, now_s)
    return json_response(Preview(lists[0], lists[1], warnings))


@router.get(
    "/placements/{name}", **documented(SavedPlacement, "A placement", errors=ERRORS | UNKNOWN)
)
async def placement(request: Request, name: NamePath) -> Response:
    """The current version of a placement."""
    services: Services = request.app.state.services
    with services.redis_gate:
        found = await current_version(services.store, "placements", name)
    if found is None:
        raise HTTPException(404, f"there is no placement {name!r}")
    return json_response(_saved(name, found))


@router.put(
    "/placements/{name}",
    **documented(SavedPlacement, "Save a placement", body=Configuration, example=EXAMPLE),
)
async def put_placement(request: Request, name: NamePath) -> Response:
    """Checks and saves a placement; it is in effect within a second, in every process."""
    configuration = parse_body(await request.body(), Configuration)
    return json_response(await _save_checked(request, name, configuration))


@router.delete(
    "/placements/{name}",
    **documented(SavedPlacement, "Delete a placement", errors=ERRORS | UNKNOWN),
)
async def delete_placement(request: Request, name: NamePath) -> Response:
    """Deletes a placement; its versions are kept, so that it can be rolled back.

    Not while an experiment is running there.
    """
    services: Services = request.app.state.services
    with services.redis_gate:
        await check_free(services.store, name, services.clock())
    saved = await _save(request, name, None)
    if not saved.version:
        raise HTTPException(404, f"there is no placement {name!r}")
    return json_response(saved)


@router.get(
    "/placements/{name}/history",
    **documented(SavedPlacements, "Versions of a placement", errors=ERRORS | UNKNOWN),
)
async def placement_history(request: Request, name: NamePath) -> Response:
    """The versions of a placement, the newest first, deletions included."""
    services: Services = request.app.state.services
    with services.redis_gate:
        found = await all_versions(services.store, "placements", name)
    if not found:
        raise HTTPException(404, f"there is no placement {name!r}")
    return json_response(SavedPlacements([_saved(name, one) for one in found]))


@router.post(
    "/placements/{name}/rollback",
    **documented(
        SavedPlacement,
        "Save an earlier version of a placement again",
        body=Rollback,
        example={"version": 1},
        errors=ERRORS | UNKNOWN,
    ),
)
async def roll_back_placement(request: Request, name: NamePath) -> Response:
    """Saves what an earlier version was as a new one; a deleted placement is there again."""
    services: Services = request.app.state.services
    wanted = parse_body(await request.body(), Rollback)
    with services.redis_gate:
        versions = await all_versions(services.store, "placements", name)
    found = next((one for one in versions if one.version == wanted.version), None)
    if found is None:
        raise HTTPException(404, f"placement {name!r} has no version {wanted.version}")
    if found.is_deleted:
        raise InvalidRequest(f"version {wanted.version} deleted the placement: nothing is in it")
    configuration = placement_of(name, found).configuration
    return json_response(await _save_checked(request, name, configuration))


async def _save_checked(
    request: Request, name: str, configuration: Configuration
) -> SavedPlacement:
    """Save a configuration in which nothing is wrong, with warnings of what is not there yet."""
    services: Services = request.app.state.services
    checked = await services.checked(configuration)
    saved = await _save(request, name, configuration)
    with services.redis_gate:
        warnings = await warnings_of(services.recommender, checked, services.clock())
    return msgspec.structs.replace(saved, warnings=warnings)


async def _save(request: Request, name: str, configuration: Configuration | None) -> SavedPlacement:
    """Save a version, None to delete; its number is 0 where there is nothing to delete."""
    services: Services = request.app.state.services
    saving = await save_named(request, "placements", name, configuration)
    services.placements.drop(name)
    return SavedPlacement(name, *saving, configuration)


def _saved(name: str, found: SavedVersion) -> SavedPlacement:
    configuration = None if found.is_deleted else placement_of(name, found).configuration
    return SavedPlacement(name, found.version, found.saved_at, found.saved_by, configuration)
