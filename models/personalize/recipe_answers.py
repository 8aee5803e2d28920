"""Answers of recipes, with their filter: the same for the API and for batch jobs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from models.filters.filter import Filter
from models.personalize.recipes import Recipe
from models.serving.answers import MAX_RESULTS, Answer, Recommendation
from models.serving.item_filters import ItemFilter, first_length, until_enough
from models.serving.recommender import Recommender
from models.state.histories import History
from models.state.redis_errors import AWAY_ERRORS

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

    @property
    def item_filter(self) -> ItemFilter | None:
        """The filter with what it needs of the request; None without one."""
        if self.filter is None:
            return None
        return ItemFilter(self.filter, self.filter_values, self.user_id, None, self.item_id)

    @property
    def reads_history(self) -> bool:
        """True if the filter looks at the user's events, which the candidates may come from too."""
        found = self.filter
        return found is not None and self.user_id is not None and "interactions" in found.reads


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
    left, others are looked for (`ItemFilter.others`). For a ranking the filter comes first, so that
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

    async def ask(k: int) -> Answer:
        nonlocal history
        try:
            if request.reads_history and history is None:
                history = await recommender.snapshots.history(request.user_id, None, now_s=now_s)
            return await _candidates(recommender, request, k, now_s, history)
        except AWAY_ERRORS:
            cached = recommender.from_cache(k=k) if cached_if_away else None
            if cached is None:
                raise
            return cached

    candidates, left = await until_enough(
        _lengths(request, all_candidates=all_candidates),
        ask,
        lambda items: apply_filter(recommender, request, items, now_s=now_s, history=history),
        k=request.length,
    )
    if len(left) < request.length and request.item_filter is not None:
        left += await _others(recommender, request, request.item_filter, candidates, now_s, history)
    return RecipeAnswer(candidates, left[: request.length])


def _lengths(request: RecipeRequest, *, all_candidates: bool) -> tuple[int, ...]:
    """Candidates to generate, one number after another until a filter leaves enough of them."""
    if all_candidates:
        return (MAX_RESULTS,)
    if request.filter is None:
        return (request.length,)
    return (min(MAX_RESULTS, first_length(request.length)), MAX_RESULTS)


async def _candidates(
    recommender: Recommender,
    request: RecipeRequest,
    k: int,
    now_s: float,
    history: History | None,
) -> Answer:
    if request.recipe.type == "USER_PERSONALIZATION":
        return await recommender.recommend(
            user_id=request.user_id,
            item_id=request.item_id,
            k=k,
            now_s=now_s,
            context=request.context,
            history=history,
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
    others = await asked.others(recommender, answered, now_s=now_s, history=history)
    if request.user_id is not None and request.recipe.type == "USER_PERSONALIZATION":
        ranked = await recommender.rank(
            others, user_id=request.user_id, now_s=now_s, context=request.context
        )
        others = [item.item_id for item in ranked.items]
    return others
