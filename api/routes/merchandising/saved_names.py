"""Saves what an operator names, a placement or a segment, as a version that is in the audit log."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
from fastapi import Request

from api.dependencies import Services
from models.errors import InvalidRequest, LimitExceeded
from models.state.named_versions import save_version

SavedKind = Literal["placements", "segments"]


class Saving(NamedTuple):
    """A version that was saved, when and by whom; 0 where there was nothing to delete."""

    version: int
    saved_at: float
    saved_by: str


async def save_named(
    request: Request, kind: SavedKind, name: str, value: msgspec.Struct | None
) -> Saving:
    """Save a version of something, None to delete it.

    Raises
    ------
    InvalidRequest
        There are as many as there may be.
    Unavailable
        Kafka or Redis does not answer.
    """
    services: Services = request.app.state.services
    action = f"{'delete' if value is None else 'put'}_{kind.removesuffix('s')}"
    await services.audit(request.scope, action, [name], services.settings.group)
    saved_by, now_s = request.scope["caller"].name, services.clock()
    raw = None if value is None else msgspec.json.encode(value)
    with services.redis_gate:
        try:
            version = await save_version(
                services.store, kind, name, raw, saved_by=saved_by, now_s=now_s
            )
        except LimitExceeded as error:
            raise InvalidRequest(str(error)) from error
    return Saving(version, now_s, saved_by)
