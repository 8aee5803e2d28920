"""Answers: recommended items, best first, and how they came about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from models.ranking.explanations import Reason

RecipeName = Literal["user-personalization", "similar-items", "popularity-count", "trending-now"]
ServingLevel = Literal["ranked", "retrieved", "trending", "cached"]

MAX_RESULTS = 500


class Recommendation(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """One item of an answer; `score` in [0, 1], comparable within the answer only.

    One that is there for exploration stands where chance put it, whatever its score.
    """

    item_id: str
    score: float
    reasons: tuple[Reason, ...] = ()
    is_exploration: bool = False


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Recommendations, best first, and how they came about.

    Attributes
    ----------
    level
        Which rung of the ladder answered: ranked, retrieved (unlearned order), trending, or cached
        (trending as last known: the store is away).
    user_accepted_at, newest_accepted_at
        When the newest event in effect was accepted, of this user and overall; 0: none yet.
    """

    items: list[Recommendation]
    recipe: str
    level: ServingLevel
    user_accepted_at: float = 0.0
    newest_accepted_at: float = 0.0


def scored_by_position(
    names: Iterable[str | None], source: str, *, after: int = 0
) -> list[Recommendation]:
    """Items in an order that has no scores of its own, behind so many others.

    >>> [one.score for one in scored_by_position(["tent", "stove"], "fresh")]
    [1.0, 0.5]
    """
    return [
        Recommendation(name, 1.0 / place, (Reason(source),))
        for place, name in enumerate((name for name in names if name is not None), after + 1)
    ]
