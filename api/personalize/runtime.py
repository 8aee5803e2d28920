"""Recommendations out: the operations of personalize-runtime."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from api.dependencies import Services
from api.personalize.context import PersonalizeContext
from api.personalize.inference_request import InferenceQuery, InferenceTarget
from api.personalize.metadata_columns import columns_of, values_of
from api.personalize.runtime_filters import filled_up, filter_answer
from models.errors import InvalidInput
from models.personalize.recipe_answers import PERSONALIZED_LEVELS, answer_recipe, scores_of
from models.serving.answers import MAX_RESULTS, Answer, Recommendation
from models.serving.recommender import Recommender
from models.state.redis_errors import AWAY_ERRORS

DEFAULT_RESULTS = 25
MAX_RANKED = 500


async def get_recommendations(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """What the campaign or recommender recommends; someone unknown gets what is trending.

    Filters and promotions choose among all candidates, before the list is cut to its length; a
    filter that leaves too few of them looks further, as `recipe_answers.filtered` does.
    """
    services: Services = context.services
    asked = await InferenceQuery.of(
        context, request, "USER_PERSONALIZATION", "RELATED_ITEMS", "POPULAR_ITEMS"
    )
    k = _length(request)
    columns = columns_of(asked.target, request.get("metadataColumns", {}), k)
    promotions = request.get("promotions", [])
    is_plain = not promotions and "filterArn" not in request
    answer = await _answer(context, asked, k if is_plain else MAX_RESULTS)
    names = [item.item_id for item in answer.items]
    recommendation_id = services.new_id()
    promoted: list[str] = []
    for promotion in promotions:
        promoted = await _promoted(context, asked, promotion, names, k)
    if not is_plain:
        chosen = frozenset(promoted)
        rest = [name for name in names if name not in chosen]
        rest = await filled_up(context, asked, request, rest, k)
        # Seeded by what is new in every answer, and known to who hands out the ids.
        names = mixed(rest, promoted, k, random.Random(recommendation_id))
    items = _items(names, answer, asked.target)
    for promotion in promotions:
        _promote(items, frozenset(promoted), promotion, asked.target)
    await _add_metadata(context, asked, columns, items)
    services.serve(recommendation_id, answer, context.tenants.store(asked.target.group), names)
    return {"itemList": items, "recommendationId": recommendation_id}


async def get_personalized_ranking(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """The given items in the order this user is most likely to want them, unknown ones last.

    A filter leaves items out before they are ranked, so that scores add up to one. While the store
    is away the order is that of what trended last.
    """
    services: Services = context.services
    asked = await InferenceQuery.of(context, request, "PERSONALIZED_RANKING")
    wanted = list(dict.fromkeys(request["inputList"]))
    if not 1 <= len(wanted) <= MAX_RANKED:
        raise InvalidInput(f"inputList takes 1 to {MAX_RANKED} items, not {len(wanted)}")
    columns = columns_of(asked.target, request.get("metadataColumns", {}), len(wanted))
    wanted = await filter_answer(context, asked, request, wanted)
    recommender: Recommender = context.tenants.recommender(asked.target.group)
    try:
        answer = await recommender.rank(
            wanted,
            user_id=asked.user_id,
            now_s=services.clock(),
            circumstances=asked.circumstances,
        )
    except AWAY_ERRORS:
        fallback = _as_known(recommender, wanted)
        if fallback is None:
            raise
        answer = fallback
    names = [item.item_id for item in answer.items]
    items = _items(names, answer, asked.target)
    await _add_metadata(context, asked, columns, items)
    recommendation_id = services.new_id()
    services.serve(recommendation_id, answer, recommender.store)
    return {"personalizedRanking": items, "recommendationId": recommendation_id}


def mixed(plain: Sequence[str], promoted: Sequence[str], k: int, rng: random.Random) -> list[str]:
    """At most k items, promoted ones at random places, and in order among themselves.

    >>> mixed(["a", "b", "c"], ["P", "Q"], 4, random.Random(1))
    ['a', 'P', 'Q', 'b']
    """
    length = min(k, len(plain) + len(promoted))
    places = frozenset(rng.sample(range(length), min(len(promoted), length)))
    left, right = iter(promoted), iter(plain)
    return [next(left) if place in places else next(right) for place in range(length)]


async def _answer(context: PersonalizeContext, asked: InferenceQuery, k: int) -> Answer:
    """The answer to the recipe's question; from the cache while the store is away."""
    recommender: Recommender = context.tenants.recommender(asked.target.group)
    now_s = context.services.clock()
    try:
        return await answer_recipe(
            recommender,
            asked.target.recipe,
            user_id=asked.user_id,
            item_id=asked.item_id,
            k=k,
            now_s=now_s,
            circumstances=asked.circumstances,
        )
    except AWAY_ERRORS:
        fallback = recommender.from_cache(k=k)
        if fallback is None:
            raise
        return fallback


def _as_known(recommender: Recommender, wanted: Sequence[str]) -> Answer | None:
    """The given items as they trended when the store last answered, others last; None if never."""
    known = recommender.from_cache(k=sys.maxsize)
    if known is None:
        return None
    among = frozenset(wanted)
    items = [item for item in known.items if item.item_id in among]
    others = sorted(among - {item.item_id for item in items})
    return msgspec.structs.replace(
        known, items=[*items, *(Recommendation(name, 0.0) for name in others)]
    )


async def _promoted(
    context: PersonalizeContext,
    asked: InferenceQuery,
    promotion: Mapping[str, Any],
    names: Sequence[str],
    k: int,
) -> list[str]:
    """The items to promote, best first: of the candidates, then of the popular items."""
    for name in ("filterArn", "percentPromotedItems"):
        if name not in promotion:
            raise InvalidInput(f"a promotion needs a {name}")
    recommender: Recommender = context.tenants.recommender(asked.target.group)
    popular = await recommender.popular(k=MAX_RESULTS, now_s=context.services.clock())
    known = dict.fromkeys([*names, *(item.item_id for item in popular.items)])
    allowed = await filter_answer(context, asked, promotion, list(known))
    return allowed[: math.ceil(k * promotion["percentPromotedItems"] / 100)]


def _length(request: Mapping[str, Any]) -> int:
    k: int = request.get("numResults") or DEFAULT_RESULTS
    if k > MAX_RESULTS:
        raise InvalidInput(f"numResults is at most {MAX_RESULTS}, not {k}")
    return k


def _items(names: Sequence[str], answer: Answer, target: InferenceTarget) -> list[dict[str, Any]]:
    """The items as `PredictedItem` describes them, with what their recipe tells of them."""
    if not target.is_scored:
        return [{"itemId": name} for name in names]
    scores = scores_of(answer)
    items: list[dict[str, Any]] = [
        {"itemId": name, "score": scores[name]} if name in scores else {"itemId": name}
        for name in names
    ]
    if target.has_reasons:
        tried = {item.item_id for item in answer.items if item.is_exploration}
        for item in items:
            if item["itemId"] in tried:
                item["reason"] = ["Exploration"]
            elif answer.level not in PERSONALIZED_LEVELS:
                item["reason"] = ["Popular item"]
    return items


def _promote(
    items: Sequence[dict[str, Any]],
    promoted: Collection[str],
    promotion: Mapping[str, Any],
    target: InferenceTarget,
) -> None:
    """Say of the items of an answer which were promoted."""
    for item in items:
        if item["itemId"] in promoted:
            if "name" in promotion:
                item["promotionName"] = promotion["name"]
            if target.has_reasons:
                item["reason"] = ["Promoted item"]


async def _add_metadata(
    context: PersonalizeContext,
    asked: InferenceQuery,
    columns: Sequence[str],
    items: Sequence[dict[str, Any]],
) -> None:
    if columns:
        names = [item["itemId"] for item in items]
        values = await values_of(context, asked.target.group, columns, names)
        for item, metadata in zip(items, values, strict=True):
            item["metadata"] = metadata
