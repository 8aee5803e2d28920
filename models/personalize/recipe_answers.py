"""What a recipe's question is answered with, and which items a filter lets through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.arrays import NO_ITEMS
from models.errors import InvalidInput
from models.filters.filter import Filter, ReadPart, seen_types
from models.metadata_records import Properties, normalized
from models.personalize.recipes import Recipe
from models.serving.answers import Answer
from models.serving.recommender import Recommender
from models.state.metadata import of_categories, user_properties

NEEDS: Mapping[ReadPart, str] = {
    "interactions": "userId",
    "user": "userId",
    "current_item": "itemId",
}
"""The id in a question without which a filter cannot be what it says."""

SCORE_DIGITS = 7
PERSONALIZED_LEVELS = ("ranked", "retrieved")
"""Levels of answers that follow from what a user did; the others show what is popular."""


def is_scored(recipe: Recipe) -> bool:
    """Whether Personalize gives a score with each item: by recipes for one user, of no domain.

    >>> from models.personalize.recipes import RECIPES
    >>> [is_scored(RECIPES[f"aws-{name}"]) for name in ("hrnn", "sims")]
    [True, False]
    """
    return recipe.type in {"USER_PERSONALIZATION", "PERSONALIZED_RANKING"} and recipe.domain is None


def scores_of(answer: Answer) -> dict[str, float]:
    """The score of each item of an answer, as Personalize scales them."""
    # Scores of what is popular are relative to the first; those of a user's candidates are shares.
    is_found = answer.level in PERSONALIZED_LEVELS
    total = 1.0 if is_found else sum(item.score for item in answer.items) or 1.0
    return {item.item_id: round(item.score / total, SCORE_DIGITS) for item in answer.items}


async def answer_recipe(
    recommender: Recommender,
    recipe: Recipe,
    *,
    user_id: str | None,
    item_id: str | None,
    k: int,
    now_s: float,
    circumstances: Mapping[str, str] | None = None,
) -> Answer:
    """The answer to a recipe's question for items; someone unknown gets what is trending.

    `circumstances` count in those for one user.
    """
    if recipe.type == "USER_PERSONALIZATION":
        return await recommender.recommend(
            user_id=user_id, item_id=item_id, k=k, now_s=now_s, circumstances=circumstances
        )
    if recipe.type == "RELATED_ITEMS" and item_id is not None:
        return await recommender.similar(item_id, k=k, now_s=now_s)
    if recipe.name.endswith("trending-now"):
        return await recommender.trending(k=k, now_s=now_s)
    return await recommender.popular(k=k, now_s=now_s)


async def apply_filter(
    recommender: Recommender,
    found: Filter,
    items: Sequence[str],
    *,
    user_id: str | None,
    item_id: str | None,
    values: Mapping[str, str],
    now_s: float,
) -> list[str]:
    """The items that a filter lets through, in their order.

    Reads what has taken effect until now: a purchase counts in the next answer.

    Raises
    ------
    InvalidInput
        The filter lacks an id or a value that it needs.
    """
    ids = {"userId": user_id, "itemId": item_id}
    for part, name in NEEDS.items():
        if part in found.reads and ids[name] is None:
            raise InvalidInput(f"the filter needs a {name}")
    reads: dict[str, Any] = {}
    if "properties" in found.reads:
        reads["properties"] = await _properties(recommender, items, now_s)
    if "interactions" in found.reads:
        reads["interactions"] = await _interactions(recommender, user_id, now_s)
    if "user" in found.reads and user_id is not None:
        reads["user"] = await user_properties(recommender.store, user_id)
    if "current_item" in found.reads and item_id is not None:
        (reads["current_item"],) = await _properties(recommender, [item_id], now_s)
    allowed = found.allowed(items, values=values, **reads)
    return [item for item, is_allowed in zip(items, allowed.tolist(), strict=True) if is_allowed]


async def filter_and_refill(
    recommender: Recommender,
    recipe: Recipe,
    found: Filter,
    items: Sequence[str],
    k: int,
    *,
    user_id: str | None,
    item_id: str | None,
    values: Mapping[str, str],
    now_s: float,
    circumstances: Mapping[str, str] | None = None,
) -> list[str]:
    """At most k items that a filter lets through: of an answer's candidates, then of all others.

    Others are looked for where too few are left: those last touched of each category that its
    INCLUDEs name, and the top lists, some thousands in all; that takes four round trips. A recipe
    for users puts them in the user's order.
    """

    async def let(some: Sequence[str]) -> list[str]:
        return await apply_filter(
            recommender, found, some, user_id=user_id, item_id=item_id, values=values, now_s=now_s
        )

    left = await let(items)
    if len(left) >= k:
        return left[:k]
    history = await recommender.situations.history(user_id, None, now_s=now_s)
    last = await recommender.catalogue.names.of(history.items[-1:].tolist())
    known = {*items, *(last if item_id is None else [item_id])}
    named = await _named_by(recommender, found, values, now_s)
    others = await let([name for name in named if name not in known])
    if user_id is not None and recipe.type == "USER_PERSONALIZATION":
        ranked = await recommender.rank(
            others, user_id=user_id, now_s=now_s, circumstances=circumstances
        )
        others = [item.item_id for item in ranked.items]
    return [*left, *others][:k]


async def _named_by(
    recommender: Recommender, found: Filter, values: Mapping[str, str], now_s: float
) -> list[str]:
    """Items of the categories that a filter asks for, and then of the top lists; each once."""
    catalogue = recommender.catalogue
    overview = await catalogue.refresh(now_s)
    heads = list(dict.fromkeys(np.concatenate([NO_ITEMS, *overview.tops.values()]).tolist()))
    rows = await catalogue.properties(heads, now_s)
    spelled = {(normalized(column), column) for row in rows if row for column in row}
    categories = {
        f"{column}={text}"
        for field, text in found.categories(values)
        for folded, column in spelled
        if folded == field
    }
    listed = await of_categories(recommender.store, categories)
    names = await catalogue.names.of(list(dict.fromkeys([*listed, *heads])))
    return [name for name in names if name is not None]


async def _properties(
    recommender: Recommender, items: Sequence[str], now_s: float
) -> list[Properties | None]:
    indexes = await recommender.store.item_indexes(items)
    known = await recommender.catalogue.properties([n for n in indexes if n], now_s)
    by_index = dict(zip((n for n in indexes if n), known, strict=True))
    return [by_index.get(index) for index in indexes]


async def _interactions(
    recommender: Recommender, user_id: str | None, now_s: float
) -> dict[str, set[str]]:
    """Types of the user's events by item; see `models.filters.filter.seen_types`."""
    history = await recommender.situations.history(user_id, None, now_s=now_s)
    types = (await recommender.catalogue.knowing(history.types, now_s)).types
    is_item = history.items > 0
    items, codes = (part[is_item][::-1].tolist() for part in (history.items, history.types))
    names = await recommender.catalogue.names.of(items)
    return seen_types(
        (name, types[code])
        for name, code in zip(names, codes, strict=True)
        if name is not None and code in types
    )
