"""Operations of personalize-runtime: recommendations, and the ranking of given items."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from api.personalize.context import PersonalizeContext
from api.personalize.dataset_columns import check_named_columns
from api.personalize.inference_request import ServedRecipe, get_filter, read_request
from api.served_log import ServedPlace
from models.errors import InvalidInput
from models.metadata_records import named_values
from models.personalize.recipe_answers import PERSONALIZED_LEVELS, answer, apply_filter, scores_of
from models.personalize.recipe_requests import RecipeRequest
from models.serving.answers import MAX_RESULTS, Answer
from models.serving.merchandising.rules import Asker
from models.state.catalogue.metadata import item_properties

MAX_COLUMNS = 10
MAX_RESULTS_WITH_METADATA = 50
MAX_VALUE_CHARACTERS = 20_000


async def get_recommendations(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """The items that a campaign or recommender recommends; a new user gets trending items.

    Filters and promotions choose among all candidates, before the list is cut to its length. With
    Redis away the answer holds the last known trending items.
    """
    services = context.services
    served, asked = await read_request(
        context, request, "USER_PERSONALIZATION", "RELATED_ITEMS", "POPULAR_ITEMS"
    )
    columns = metadata_columns(served, request.get("metadataColumns", {}), asked.length)
    # The shape of the request allows one at most.
    promotion = next(iter(request.get("promotions", [])), None)
    candidates, names = await answer(
        context.recommenders.of(served.group),
        asked,
        now_s=services.clock(),
        all_candidates=promotion is not None,
        cached_if_away=True,
    )
    recommendation_id = services.new_id()
    promoted: list[str] = []
    if promotion is not None:
        promoted = await _promoted(context, served, asked, promotion, candidates)
        chosen = frozenset(promoted)
        rest = [name for name in names if name not in chosen]
        # Seeded by the answer's id, so that the places can be computed again from it.
        names = mix_promoted(rest, promoted, asked.length, random.Random(recommendation_id))
    items = _predicted_items(names, candidates, served)
    if promotion is not None:
        _mark_promoted(items, frozenset(promoted), promotion, served)
    await _add_metadata(context, served, columns, items)
    store = context.tenants.store(served.group)
    services.record_served(
        recommendation_id,
        candidates,
        store,
        names,
        asker=Asker(asked.user_id, None, asked.item_id),
        place=_place(request),
    )
    return {"itemList": items, "recommendationId": recommendation_id}


async def get_personalized_ranking(
    context: PersonalizeContext, request: dict[str, Any]
) -> dict[str, Any]:
    """The given items, the likeliest for this user first, unknown items last.

    With Redis away they are in the order of the last known trending items.
    """
    services = context.services
    served, asked = await read_request(context, request, "PERSONALIZED_RANKING")
    columns = metadata_columns(served, request.get("metadataColumns", {}), asked.length)
    recommender = context.recommenders.of(served.group)
    ranked, names = await answer(recommender, asked, now_s=services.clock(), cached_if_away=True)
    items = _predicted_items(names, ranked, served)
    await _add_metadata(context, served, columns, items)
    recommendation_id = services.new_id()
    services.record_served(
        recommendation_id,
        ranked,
        recommender.store,
        asker=Asker(asked.user_id),
        place=_place(request),
    )
    return {"personalizedRanking": items, "recommendationId": recommendation_id}


def _place(request: Mapping[str, Any]) -> ServedPlace:
    """The campaign or recommender as a place: `campaign/<name>`."""
    arn: str = request.get("campaignArn") or request.get("recommenderArn", "")
    return ServedPlace(arn.rpartition(":")[2])


def mix_promoted(
    plain: Sequence[str], promoted: Sequence[str], k: int, rng: random.Random
) -> list[str]:
    """At most k items; promoted items take random places and keep their order.

    >>> mix_promoted(["a", "b", "c"], ["P", "Q"], 4, random.Random(1))
    ['a', 'P', 'Q', 'b']
    """
    length = min(k, len(plain) + len(promoted))
    places = frozenset(rng.sample(range(length), min(len(promoted), length)))
    left, right = iter(promoted), iter(plain)
    return [next(left) if place in places else next(right) for place in range(length)]


async def _promoted(
    context: PersonalizeContext,
    served: ServedRecipe,
    asked: RecipeRequest,
    promotion: Mapping[str, Any],
    candidates: Answer,
) -> list[str]:
    """The items to promote, best first: candidates of the answer, then popular items."""
    for name in ("filterArn", "percentPromotedItems"):
        if name not in promotion:
            raise InvalidInput(f"a promotion needs a {name}")
    by_promotion = dataclasses.replace(
        asked,
        filter=await get_filter(context, served, promotion),
        filter_values=promotion.get("filterValues", {}),
    )
    recommender = context.recommenders.of(served.group)
    now_s = context.services.clock()
    popular = await recommender.popular(k=MAX_RESULTS, now_s=now_s)
    known = dict.fromkeys(item.item_id for item in (*candidates.items, *popular.items))
    allowed = await apply_filter(recommender, by_promotion, list(known), now_s=now_s)
    return allowed[: math.ceil(asked.length * promotion["percentPromotedItems"] / 100)]


def _predicted_items(
    names: Sequence[str], candidates: Answer, served: ServedRecipe
) -> list[dict[str, Any]]:
    """The items in the shape `PredictedItem`, with scores and reasons where the recipe has them."""
    if not served.is_scored:
        return [{"itemId": name} for name in names]
    scores = scores_of(candidates)
    items: list[dict[str, Any]] = [
        {"itemId": name, "score": scores[name]} if name in scores else {"itemId": name}
        for name in names
    ]
    if served.has_reasons:
        explored = {item.item_id for item in candidates.items if item.is_exploration}
        for item in items:
            if item["itemId"] in explored:
                item["reason"] = ["Exploration"]
            elif candidates.level not in PERSONALIZED_LEVELS:
                item["reason"] = ["Popular item"]
    return items


def _mark_promoted(
    items: Sequence[dict[str, Any]],
    promoted: Collection[str],
    promotion: Mapping[str, Any],
    served: ServedRecipe,
) -> None:
    """Add the promotion's name, and the reason, to the promoted items of an answer."""
    for item in items:
        if item["itemId"] in promoted:
            if "name" in promotion:
                item["promotionName"] = promotion["name"]
            if served.has_reasons:
                item["reason"] = ["Promoted item"]


def metadata_columns(
    served: ServedRecipe, asked: Mapping[str, Sequence[str]], k: int
) -> Sequence[str]:
    """The metadata columns of items that a request for `k` items asks for.

    Raises
    ------
    InvalidInput
        The campaign does not give metadata, or there are too many columns or items, or the columns
        are not of items.
    """
    columns = [name for names in asked.values() for name in names]
    if not columns:
        return ()
    if not served.config.get("enableMetadataWithRecommendations"):
        raise InvalidInput(
            "metadataColumns need a campaign or recommender with enableMetadataWithRecommendations"
        )
    if {name.upper() for name in asked} != {"ITEMS"}:
        raise InvalidInput("metadataColumns are those of ITEMS")
    if len(columns) > MAX_COLUMNS:
        raise InvalidInput(f"metadataColumns are at most {MAX_COLUMNS}, not {len(columns)}")
    if k > MAX_RESULTS_WITH_METADATA:
        raise InvalidInput(
            f"with metadataColumns there are at most {MAX_RESULTS_WITH_METADATA} items, not {k}"
        )
    return columns


async def _add_metadata(
    context: PersonalizeContext,
    served: ServedRecipe,
    columns: Sequence[str],
    items: Sequence[dict[str, Any]],
) -> None:
    """Add the values of these columns to the items, as text; unknown values are left out.

    Raises
    ------
    InvalidInput
        The group's dataset has no such column.
    """
    if not columns:
        return
    store = context.tenants.store(served.group)
    known = await item_properties(store, [item["itemId"] for item in items])
    for item, properties in zip(items, known, strict=True):
        item["metadata"] = {
            column: _value_text(value)
            for column, value in named_values(properties, columns).items()
            if value is not None
        }
    # Only what no item has may be no column: others need no look at the schema.
    absent = [column for column in columns if not any(column in one["metadata"] for one in items)]
    if absent:
        group = f"dataset-group/{served.group}"
        await check_named_columns(context, group, "ITEMS", absent, "metadataColumns")


def _value_text(value: float | str) -> str:
    """The value as text; truth values as in JSON."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text[:MAX_VALUE_CHARACTERS]
