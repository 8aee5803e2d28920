"""Answers of recipes, with their filter: the same for the API and for batch jobs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.arrays import NO_ITEMS
from models.errors import InvalidInput
from models.filters.filter import Filter, ReadPart, seen_types
from models.metadata_records import Properties, normalized
from models.personalize.recipes import Recipe
from models.serving.answers import MAX_RESULTS, Answer, Recommendation
from models.serving.recommender import Recommender
from models.state.metadata import of_categories, user_properties
from models.state.redis_errors import AWAY_ERRORS

NEEDS: Mapping[ReadPart, str] = {
    "interactions": "userId",
    "user": "userId",
    "current_item": "itemId",
}
"""Id that a request must carry for each part of the state that a filter reads."""

SCORE_DIGITS = 7
PERSONALIZED_LEVELS = ("ranked", "retrieved")
"""Levels of answers made from the user's events; the others hold popular items."""


def is_scored(recipe: Recipe) -> bool:
    """True if Personalize gives a score with each item: recipes for one user, of no domain.

    >>> from models.personalize.recipes import RECIPES
    >>> [is_scored(RECIPES[f"aws-{name}"]) for name in ("hrnn", "sims")]
    [True, False]
    """
    return recipe.type in {"USER_PERSONALIZATION", "PERSONALIZED_RANKING"} and recipe.domain is None


def scores_of(answer: Answer) -> dict[str, float]:
    """The score of each item of an answer, as Personalize scales them."""
    # Scores of popular items are relative to the first; those of a user's candidates are shares.
    is_found = answer.level in PERSONALIZED_LEVELS
    total = 1.0 if is_found else sum(item.score for item in answer.items) or 1.0
    return {item.item_id: round(item.score / total, SCORE_DIGITS) for item in answer.items}


@dataclass(frozen=True)
class RecipeRequest:
    """A request for the answer of a recipe.

    Attributes
    ----------
    length
        Items wanted, at most; a ranking holds all that are given and allowed.
    item_ids
        Items to rank, for a recipe of type PERSONALIZED_RANKING.
    context
        Values of contextual columns; they count in answers for one user.
    filter
        Decides which items the answer may hold; None allows all.
    filter_values
        Values of the filter's placeholders.
    """

    recipe: Recipe
    user_id: str | None
    item_id: str | None
    length: int
    item_ids: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    filter: Filter | None = None
    filter_values: Mapping[str, str] = field(default_factory=dict)


class RecipeAnswer(NamedTuple):
    """The answer of a recipe.

    Attributes
    ----------
    candidates
        All candidates with their scores, before the filter.
    item_ids
        The items that answer, best first.
    """

    candidates: Answer
    item_ids: list[str]


async def answer(
    recommender: Recommender,
    request: RecipeRequest,
    *,
    now_s: float,
    all_candidates: bool = False,
    cached_if_away: bool = False,
) -> RecipeAnswer:
    """The answer of a recipe, filtered; a new user gets trending items.

    A filter chooses among all candidates, before the answer is cut to its length; if too few are
    left, others are looked for (`filter_and_refill`). For a ranking the filter comes first, so that
    the scores of the remaining items add up to one.

    Parameters
    ----------
    all_candidates
        Generate `MAX_RESULTS` candidates without a filter too.
    cached_if_away
        Answer from the last known trends if the store is away; without them, its error is raised.

    Raises
    ------
    InvalidInput
        The filter needs an id or a value that the request lacks.
    """
    if request.recipe.type == "PERSONALIZED_RANKING":
        return await _rank(recommender, request, now_s, cached_if_away=cached_if_away)
    is_cut = request.filter is None and not all_candidates
    k = request.length if is_cut else MAX_RESULTS
    try:
        candidates = await _candidates(recommender, request, k, now_s)
    except AWAY_ERRORS:
        cached = recommender.from_cache(k=k) if cached_if_away else None
        if cached is None:
            raise
        candidates = cached
    item_ids = [item.item_id for item in candidates.items]
    return RecipeAnswer(
        candidates, await filter_and_refill(recommender, request, item_ids, now_s=now_s)
    )


async def _candidates(
    recommender: Recommender, request: RecipeRequest, k: int, now_s: float
) -> Answer:
    if request.recipe.type == "USER_PERSONALIZATION":
        return await recommender.recommend(
            user_id=request.user_id,
            item_id=request.item_id,
            k=k,
            now_s=now_s,
            context=request.context,
        )
    if request.recipe.type == "RELATED_ITEMS" and request.item_id is not None:
        return await recommender.similar(request.item_id, k=k, now_s=now_s)
    if request.recipe.name.endswith("trending-now"):
        return await recommender.trending(k=k, now_s=now_s)
    return await recommender.popular(k=k, now_s=now_s)


async def _rank(
    recommender: Recommender, request: RecipeRequest, now_s: float, *, cached_if_away: bool
) -> RecipeAnswer:
    item_ids = list(dict.fromkeys(request.item_ids))
    item_ids = await apply_filter(recommender, request, item_ids, now_s=now_s)
    try:
        ranked = await recommender.rank(
            item_ids, user_id=request.user_id, now_s=now_s, context=request.context
        )
    except AWAY_ERRORS:
        cached = recommender.from_cache(k=sys.maxsize) if cached_if_away else None
        if cached is None:
            raise
        ranked = _restricted(cached, item_ids)
    return RecipeAnswer(ranked, [item.item_id for item in ranked.items])


def _restricted(cached: Answer, item_ids: Sequence[str]) -> Answer:
    """The given items in the order of a cached answer; others last, by id."""
    among = frozenset(item_ids)
    items = [item for item in cached.items if item.item_id in among]
    others = sorted(among - {item.item_id for item in items})
    return msgspec.structs.replace(
        cached, items=[*items, *(Recommendation(item_id, 0.0) for item_id in others)]
    )


async def apply_filter(
    recommender: Recommender, request: RecipeRequest, items: Sequence[str], *, now_s: float
) -> list[str]:
    """The items that the request's filter allows, in their order; all without a filter.

    Reads the current state: a purchase counts in the next answer.

    Raises
    ------
    InvalidInput
        The filter needs an id or a value that the request lacks.
    """
    found = request.filter
    if found is None:
        return list(items)
    ids = {"userId": request.user_id, "itemId": request.item_id}
    for part, name in NEEDS.items():
        if part in found.reads and ids[name] is None:
            raise InvalidInput(f"the filter needs a {name}")
    reads: dict[str, Any] = {}
    if "properties" in found.reads:
        reads["properties"] = await _properties(recommender, items, now_s)
    if "interactions" in found.reads:
        reads["interactions"] = await _interactions(recommender, request.user_id, now_s)
    if "user" in found.reads and request.user_id is not None:
        reads["user"] = await user_properties(recommender.store, request.user_id)
    if "current_item" in found.reads and request.item_id is not None:
        (reads["current_item"],) = await _properties(recommender, [request.item_id], now_s)
    allowed = found.allowed(items, values=request.filter_values, **reads)
    return [item for item, is_allowed in zip(items, allowed.tolist(), strict=True) if is_allowed]


async def filter_and_refill(
    recommender: Recommender, request: RecipeRequest, items: Sequence[str], *, now_s: float
) -> list[str]:
    """The allowed items among an answer's candidates, then other allowed items, up to the length.

    Others are looked for if too few are left: the last changed items of each category that the
    filter's INCLUDEs name, and the top lists, some thousands in all; that takes four round trips.
    A recipe of type USER_PERSONALIZATION ranks them for the user.
    """
    left = await apply_filter(recommender, request, items, now_s=now_s)
    if request.filter is None or len(left) >= request.length:
        return left[: request.length]
    history = await recommender.snapshots.history(request.user_id, None, now_s=now_s)
    last = await recommender.cache.item_ids.of(history.items[-1:].tolist())
    known = {*items, *(last if request.item_id is None else [request.item_id])}
    named = await _named_by(recommender, request.filter, request.filter_values, now_s)
    others = await apply_filter(
        recommender, request, [name for name in named if name not in known], now_s=now_s
    )
    if request.user_id is not None and request.recipe.type == "USER_PERSONALIZATION":
        ranked = await recommender.rank(
            others, user_id=request.user_id, now_s=now_s, context=request.context
        )
        others = [item.item_id for item in ranked.items]
    return [*left, *others][: request.length]


async def _named_by(
    recommender: Recommender, found: Filter, values: Mapping[str, str], now_s: float
) -> list[str]:
    """Distinct items of the categories that a filter asks for, then of the top lists."""
    cache = recommender.cache
    shared = await cache.refresh(now_s)
    top_items = list(dict.fromkeys(np.concatenate([NO_ITEMS, *shared.top_lists.values()]).tolist()))
    rows = await cache.properties(top_items, now_s)
    spelled = {(normalized(column), column) for row in rows if row for column in row}
    categories = {
        f"{column}={text}"
        for field, text in found.categories(values)
        for folded, column in spelled
        if folded == field
    }
    listed = await of_categories(recommender.store, categories)
    names = await cache.item_ids.of(list(dict.fromkeys([*listed, *top_items])))
    return [name for name in names if name is not None]


async def _properties(
    recommender: Recommender, items: Sequence[str], now_s: float
) -> list[Properties | None]:
    indexes = await recommender.store.item_indexes(items)
    known = await recommender.cache.properties([n for n in indexes if n], now_s)
    by_index = dict(zip((n for n in indexes if n), known, strict=True))
    return [by_index.get(index) for index in indexes]


async def _interactions(
    recommender: Recommender, user_id: str | None, now_s: float
) -> dict[str, set[str]]:
    """Types of the user's events by item; see `models.filters.filter.seen_types`."""
    history = await recommender.snapshots.history(user_id, None, now_s=now_s)
    types = (await recommender.cache.with_types(history.types, now_s)).event_types
    is_item = history.items > 0
    items, codes = (part[is_item][::-1].tolist() for part in (history.items, history.types))
    names = await recommender.cache.item_ids.of(items)
    return seen_types(
        (name, types[code])
        for name, code in zip(names, codes, strict=True)
        if name is not None and code in types
    )
