"""Routes that show a user: metadata and the newest events, and the lists that were served."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Request, Response

from api.dependencies import Services
from api.openapi import documented
from api.request_params import UserParams, parse_query
from api.schemas import ServedItem, ServedListOfUser, User, UserEvent, UserLists, json_response
from models.audit_entries import pseudonym
from models.state import layout
from models.state.catalogue import metadata
from models.state.histories import effects, item_indexes
from models.state.outcomes.followed_lists import FollowedList, followed_lists
from models.state.users.user_data import linked_sessions

router = APIRouter()

MAX_SESSIONS = 50
"""Linked sessions whose lists are shown, those that were linked last."""

UserPath = Annotated[str, Path(min_length=1, max_length=256)]


@router.get("/users/{user_id}", **documented(User, "Show a user", query=UserParams))
async def user(request: Request, user_id: UserPath) -> Response:
    """Metadata and the newest events of a user; empty for an unknown one.

    With API keys the audit log has an entry of it.
    """
    services, asked = await _asked(request, user_id)
    store = services.store
    with services.redis_gate:
        snapshots = services.recommender.snapshots
        history = await snapshots.history(user_id, None, now_s=services.clock())
        properties = await metadata.user_properties(store, user_id)
        # Of an undone event nothing is left to show but when it was.
        newest = np.flatnonzero(effects(history) != layout.UNDONE)[::-1][: asked.num_results]
        items = item_indexes(history)[newest].tolist()
        names = dict(zip(items, await store.item_ids(items), strict=True))
        types = await store.event_types()
        sessions = await linked_sessions(store, user_id, now_s=services.clock())
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
            sessions,
        )
    )


@router.get(
    "/users/{user_id}/lists", **documented(UserLists, "Lists shown to a user", query=UserParams)
)
async def user_lists(request: Request, user_id: UserPath) -> Response:
    """Lists that were served to a user and to linked sessions lately, with why and what came of it.

    Of each the last 20 of `RECOMMENDER_OUTCOME_WINDOW_S` at least; the newest `num_results` of all.
    With API keys the audit log has an entry of it.
    """
    services, asked = await _asked(request, user_id)
    store = services.store
    with services.redis_gate:
        sessions = await linked_sessions(store, user_id, now_s=services.clock())
        owners = [f"u:{user_id}", *(f"s:{name}" for name in sessions[-MAX_SESSIONS:])]
        found = await followed_lists(store, owners, newest=asked.num_results)
    return json_response(UserLists(user_id, [_shown(one) for one in reversed(found)]))


async def _asked(request: Request, user_id: str) -> tuple[Services, UserParams]:
    """Parameters of a question about a user, once the audit log has it and `after` is in effect."""
    services: Services = request.app.state.services
    asked = parse_query(request.scope["query_string"], UserParams)
    group = services.settings.group
    await services.audit_reading(request.scope, "show_user", [pseudonym(group, user_id)], group)
    await services.await_effect(asked, request.receive)
    return services, asked


def _shown(one: FollowedList) -> ServedListOfUser:
    session_id = one.owner[2:] if one.owner.startswith("s:") else None
    items = [ServedItem(*item) for item in one.items]
    return ServedListOfUser(
        one.recommendation_id, one.served_at, session_id, one.placement, one.arm, one.recipe, items
    )
