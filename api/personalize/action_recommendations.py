"""The operation of personalize-runtime that recommends actions."""

from __future__ import annotations

from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.inference_request import get_filter, resolve
from models.action_groups import actions_group
from models.errors import InvalidInput
from models.filters.filter import check_value_names
from models.serving.item_filters import ItemFilter
from models.serving.next_actions import ActionRequest, next_actions

DEFAULT_ACTIONS, MAX_ACTIONS = 5, 100


async def get_action_recommendations(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """The actions that a user is likeliest to take, with the propensity to take each."""
    services = context.services
    if "campaignArn" not in request:
        raise InvalidInput("give a campaignArn")
    served = await resolve(context, request["campaignArn"], "PERSONALIZED_ACTIONS")
    length = request.get("numResults") or DEFAULT_ACTIONS
    if length > MAX_ACTIONS:
        raise InvalidInput(f"numResults is at most {MAX_ACTIONS}, not {length}")
    user_id = request.get("userId") or None
    found = await get_filter(context, served, request, target="ActionID")
    items = context.tenants.store(served.group)
    item_filter = None
    values = request.get("filterValues", {})
    check_value_names(values, () if found is None else (found,))
    if found is not None:
        item_filter = ItemFilter(found, values, user_id, users=items)
    answered = await next_actions(
        items,
        context.recommenders.of(actions_group(served.group)),
        ActionRequest(user_id, length, item_filter, frozenset(served.scored_actions)),
        now_s=services.clock(),
    )
    return {
        "actionList": [{"actionId": one.action_id, "score": one.score} for one in answered],
        "recommendationId": services.new_id(),
    }
