"""Answers of recipes, with their filter: the same for the API and for batch jobs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np

from models.arrays import NO_ITEMS
from models.personalize.recipe_requests import RecipeRequest
from models.personalize.recipes import Recipe
from models.serving.answer_options import AnswerOptions
from models.serving.answers import MAX_RESULTS, Answer, Recommendation
from models.serving.enough_items import (
    first_length,
    note_most,
    others_allowed,
    until_enough,
    within_known,
)
from models.serving.item_filters import ItemFilter
from models.serving.merchandising.ruled_answers import EXPLORED_AT_ONCE
from models.serving.recommender import Recommender
from models.state.clients.redis_errors import AWAY_ERRORS
from models.state.histories import History, last_item

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


FILLED_FROM = 100
"""Answers of more items than these are filled up with the rest of the catalogue."""

MAX_FILLING = 2 * MAX_RESULTS
"""Items of the catalogue that are looked at for it, beside the top lists."""


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
    left, others are looked for (`others_allowed`). For a ranking the filter comes first, so that
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
    history: History | None = None
    is_cached = False
    may_lose = request.filter is not None
    request = _with_variants(request)

    async def ask(k: int) -> Answer:
        nonlocal history, is_cached
        try:
            if request.reads_history and history is None:
                history = await recommender.snapshots.history(request.user_id, None, now_s=now_s)
            return await _candidates(recommender, request, k, now_s, history, explores=not may_lose)
        except AWAY_ERRORS:
            cached = recommender.from_cache(k=k, now_s=now_s) if cached_if_away else None
            if cached is None:
                raise
            is_cached = True
            return cached

    async def kept_of(items: Sequence[str], beside: Sequence[str] = ()) -> list[str]:
        allowed = await apply_filter(recommender, request, items, now_s=now_s, history=history)
        if is_cached:
            return allowed
        return await recommender.cache.shown_once(allowed, now_s, beside=beside)

    search = await within_known(recommender, request.search, now_s)
    candidates, left = await until_enough(
        recommender,
        search,
        _lengths(request, all_candidates=all_candidates, may_lose=may_lose),
        ask,
        kept_of,
        now_s=now_s,
    )
    if len(left) < search.k:
        more = await _more(recommender, request, candidates, left, now_s, history)
        await note_most(recommender, search, now_s)
        left += await recommender.cache.shown_once(more, now_s, beside=left)
    left = left[: request.length]
    wanted = recommender.lists.exploration_slots(len(left), request.options)
    if candidates.to_explore and wanted:
        new = await _to_explore(candidates, left, kept_of, wanted)
        candidates, left = _explored(recommender, candidates, left, new, request.options)
    return RecipeAnswer(candidates, left)


def _with_variants(request: RecipeRequest) -> RecipeRequest:
    """The request with all variants of a product among its candidates, where some are taken out."""
    if request.filter is None and request.trained is None:
        return request
    return replace(request, options=msgspec.structs.replace(request.options, keeps_variants=True))


async def _to_explore(
    candidates: Answer,
    left: Sequence[str],
    kept_of: Callable[[Sequence[str], Sequence[str]], Awaitable[list[str]]],
    wanted: int,
) -> dict[str, float]:
    """New items for exploration slots that are kept beside the items of the answer, weighted."""
    known, new = frozenset(left), list[str]()
    others = (name for name in candidates.to_explore if name not in known)
    # Mostly the first ones will do.
    while len(new) < wanted and (some := [*itertools.islice(others, EXPLORED_AT_ONCE)]):
        new += await kept_of(some, [*left, *new])
    return {name: candidates.to_explore[name] for name in new}


async def _more(
    recommender: Recommender,
    request: RecipeRequest,
    candidates: Answer,
    left: Sequence[str],
    now_s: float,
    history: History | None,
) -> list[str]:
    """Items beside those of an answer with too few: what a filter allows, or of the catalogue."""
    if request.item_filter is not None:
        return await _others(recommender, request, request.item_filter, candidates, now_s, history)
    if request.length > FILLED_FROM:
        return await _catalogue(recommender, request, left, candidates, now_s)
    return []


async def _catalogue(
    recommender: Recommender,
    request: RecipeRequest,
    left: Sequence[str],
    answered: Answer,
    now_s: float,
) -> list[str]:
    """Items of the group beside those of a long answer, the popular and then the new ones first.

    Without the item being looked at, and the user's last. Three round trips.
    """
    if answered.level == "cached" or request.trained is not None:
        return []
    cache = recommender.cache
    shared = await cache.refresh(now_s)
    history = await recommender.snapshots.history(request.user_id, None, now_s=now_s)
    known = np.array(await recommender.store.some_items(MAX_FILLING), np.int64)
    tops = [shared.top_lists.get(name, NO_ITEMS) for name in ("month", "all", "fresh")]
    items = np.array([*dict.fromkeys(np.concatenate([*tops, known]).tolist())], np.int64)
    items = shared.shown(items[~np.isin(items, last_item(history))])
    taken = {*left, *answered.disliked, request.item_id}
    names = await cache.item_ids.of(items.tolist())
    return [name for name in names if name is not None and name not in taken]


def _explored(
    recommender: Recommender,
    candidates: Answer,
    left: Sequence[str],
    new: Mapping[str, float],
    options: AnswerOptions,
) -> tuple[Answer, list[str]]:
    """The candidates and the answer with new items in exploration slots of the answer."""
    by_id = {item.item_id: item for item in candidates.items}
    listed = [by_id.get(name) or Recommendation(name, 0.0) for name in left]
    shown, exploration = recommender.lists.explored(listed, [new], options)
    explored = {item.item_id: item for item in shown if item.is_exploration}
    others = [item for item in candidates.items if item.item_id not in explored]
    candidates = msgspec.structs.replace(
        candidates,
        items=[*others, *explored.values()],
        to_explore={},
        exploration=exploration,
    )
    return candidates, [item.item_id for item in shown]


def _lengths(request: RecipeRequest, *, all_candidates: bool, may_lose: bool) -> tuple[int, ...]:
    """Candidates to generate, one number after another until enough of them are left."""
    if all_candidates or request.trained is not None:
        return (MAX_RESULTS,)
    if not may_lose:
        return (request.length,)
    return (min(MAX_RESULTS, first_length(request.length)), MAX_RESULTS)


async def _candidates(
    recommender: Recommender,
    request: RecipeRequest,
    k: int,
    now_s: float,
    history: History | None,
    *,
    explores: bool,
) -> Answer:
    if request.recipe.type == "USER_PERSONALIZATION":
        return await recommender.recommend(
            user_id=request.user_id,
            item_id=request.item_id,
            k=k,
            now_s=now_s,
            context=request.context,
            history=history,
            explores=explores,
            options=request.options,
        )
    options = request.options
    if request.recipe.type == "RELATED_ITEMS" and request.item_id is not None:
        found = await recommender.similar(request.item_id, k=k, now_s=now_s, options=options)
    elif request.recipe.name.endswith("trending-now"):
        found = await recommender.trending(k=k, now_s=now_s, options=options)
    else:
        found = await recommender.popular(k=k, now_s=now_s, options=options)
        if request.trained is not None:
            return _by_weight(found, request.trained)
    if request.trained is None:
        return found
    among = [one for one in found.items if one.item_id in request.trained]
    return msgspec.structs.replace(found, items=among)


def _by_weight(popular: Answer, trained: Mapping[str, float]) -> Answer:
    """The items that a version was trained on, by their weights, in place of the popular ones."""
    items = sorted(trained.items(), key=lambda pair: (-pair[1], pair[0]))
    return msgspec.structs.replace(
        popular, items=[Recommendation(item_id, weight) for item_id, weight in items]
    )


async def _rank(
    recommender: Recommender, request: RecipeRequest, now_s: float, *, cached_if_away: bool
) -> RecipeAnswer:
    item_ids = list(dict.fromkeys(request.item_ids))
    item_ids = await apply_filter(recommender, request, item_ids, now_s=now_s)
    try:
        ranked = await recommender.rank(
            item_ids,
            user_id=request.user_id,
            now_s=now_s,
            context=request.context,
            options=request.options,
        )
    except AWAY_ERRORS:
        cached = recommender.from_cache(k=sys.maxsize, now_s=now_s) if cached_if_away else None
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
    recommender: Recommender,
    request: RecipeRequest,
    items: Sequence[str],
    *,
    now_s: float,
    history: History | None = None,
) -> list[str]:
    """The items that the request's filter allows, in their order; all without a filter.

    `history` as in `ItemFilter.allowed`.

    Raises
    ------
    InvalidInput
        The filter needs an id or a value that the request lacks.
    """
    asked = request.item_filter
    if asked is None:
        return list(items)
    return await asked.allowed(recommender, items, now_s=now_s, history=history)


async def _others(
    recommender: Recommender,
    request: RecipeRequest,
    asked: ItemFilter,
    answered: Answer,
    now_s: float,
    history: History | None,
) -> list[str]:
    """Items that the filter allows beside those of an answer.

    A recipe of type USER_PERSONALIZATION ranks them for the user.
    """
    if history is None:
        history = await recommender.snapshots.history(request.user_id, None, now_s=now_s)
    others = await others_allowed(
        recommender, [asked], answered, most=MAX_RESULTS, now_s=now_s, history=history
    )
    others = others[:MAX_RESULTS]
    if request.user_id is not None and request.recipe.type == "USER_PERSONALIZATION":
        ranked = await recommender.rank(
            others,
            user_id=request.user_id,
            now_s=now_s,
            context=request.context,
            history=history,
            options=request.options,
        )
        others = [item.item_id for item in ranked.items]
    return others
