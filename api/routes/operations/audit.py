"""The route that shows the newest entries of the audit log."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.access.callers import Caller
from api.dependencies import Services
from api.openapi import documented
from api.schemas import ResponseBody, json_response
from models.api_keys import ALL_GROUPS, Role
from models.audit_entries import AuditEntry

MAX_ENTRIES = 200
"""Entries that are shown."""

MAX_READ = 1000
"""Newest entries among which those of the caller's groups are looked for."""

router = APIRouter()


class AuditEntries(ResponseBody, frozen=True):
    """The newest entries of the audit log, newest first."""

    entries: list[AuditEntry]


@router.get("/audit", **documented(AuditEntries, "Show the newest entries of the audit log"))
async def audit(request: Request) -> Response:
    """Entries of the caller's dataset groups; those of none or several need all groups.

    At most 200, among the newest 1,000; `recommender audit` shows all.
    """
    services: Services = request.app.state.services
    caller: Caller = request.scope["caller"]
    newest = await services.publisher.audit_entries(MAX_READ)
    seen = [one for one in newest if caller.may(Role.OPERATE, one.group or ALL_GROUPS)]
    return json_response(AuditEntries(seen[: -MAX_ENTRIES - 1 : -1]))
