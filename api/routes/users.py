"""The route that shows a user: metadata, and the newest events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api.dependencies import Services
from api.openapi import documented
from api.request_params import UserParams, parse_query
from api.schemas import User, UserEvent, json_response
from models.audit_entries import pseudonym
from models.state import metadata

router = APIRouter()


@router.get("/users/{user_id}", **documented(User, "Show a user", query=UserParams))
async def user(
    request: Request, user_id: Annotated[str, Path(min_length=1, max_length=256)]
) -> Response:
    """Metadata and the newest events of a user; empty for an unknown one.

    With API keys the audit log has an entry of it.
    """
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], UserParams)
    store, group = services.store, services.settings.group
    await services.audit(request.scope, "show_user", [pseudonym(group, user_id)], group)
    await services.await_effect(asked, request.receive)
    with services.redis_gate:
        snapshots = services.recommender.snapshots
        history = await snapshots.history(user_id, None, now_s=services.clock())
        properties = await metadata.user_properties(store, user_id)
        newest = slice(None, -asked.num_results - 1, -1)
        items = history.items[newest].tolist()
        names = dict(zip(items, await store.item_ids(items), strict=True))
        types = await store.event_types()
    events = [
        UserEvent(names[item], types.get(code), float(time))
        for item, code, time in zip(
            items, history.types[newest].tolist(), history.times[newest].tolist(), strict=True
        )
    ]
    return json_response(
        User(
            user_id,
            None if properties is None else dict(properties),
            history.count,
            history.accepted_at or None,
            events,
        )
    )
