"""The route that exports what is held about a user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse

from api.dependencies import Services
from api.openapi import SERVER_ERRORS, documented
from api.request_params import AfterParams, parse_query
from models.action_groups import actions_group
from models.audit_entries import pseudonym
from models.state.users.user_exports import UserExport, export_user

router = APIRouter()


@router.get(
    "/users/{user_id}/export",
    **documented(
        UserExport,
        "Export of what is held about a user",
        query=AfterParams,
        errors=SERVER_ERRORS,
    ),
)
async def export(
    request: Request, user_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Everything that the state holds about a user of the group; empty for an unknown one."""
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], AfterParams)
    group = services.settings.group
    await services.audit_reading(request.scope, "export_user", [pseudonym(group, user_id)], group)
    await services.await_effect(asked, request.receive)
    actions = services.tenants.store(actions_group(group))
    pieces = export_user(services.store, actions, user_id, now_s=services.clock())
    with services.redis_gate:
        # Before the answer begins: if Redis is away, its status still tells.
        first = await anext(pieces)
    return StreamingResponse(_all(first, pieces), media_type="application/json")


async def _all(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece
