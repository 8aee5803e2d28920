"""The best of scored items, by id: one variant of each product, ties in the order of ids."""

from __future__ import annotations

import numpy as np

from models.arrays import NO_ITEMS, Floats, Indexes
from models.ranking.explanations import Reason
from models.serving.answer_options import AnswerOptions
from models.serving.answers import Recommendation
from models.serving.cached.cache import StateCache
from models.serving.cached.shared_state import SharedState

RankedItem = tuple[int, str, float]
"""Index, id and score of an item."""


def one_of_a_product(
    shared: SharedState, items: Indexes, scores: Floats, options: AnswerOptions
) -> tuple[Indexes, Floats]:
    """Items and scores with the best variant of each product, unless all are to be kept."""
    return (items, scores) if options.keeps_variants else shared.one_of_a_product(items, scores)


def first_of_a_product(shared: SharedState, items: Indexes, options: AnswerOptions) -> Indexes:
    """Items in the order of an answer with the first variant of each product."""
    order = -np.arange(len(items), dtype=np.float64)
    return one_of_a_product(shared, items, order, options)[0]


async def recommendations(
    cache: StateCache,
    items: Indexes,
    scores: Floats,
    has_ties: bool,
    k: int,
    *,
    source: str | None = None,
    others: Indexes = NO_ITEMS,
) -> list[Recommendation]:
    """The k best items of `top_k`, all with the same reason if a source is given."""
    reasons = (Reason(source),) if source else ()
    ranked = await with_ids(cache, items, scores, has_ties, k, others=others)
    return [Recommendation(item_id, score, reasons) for _, item_id, score in ranked]


async def with_ids(
    cache: StateCache,
    items: Indexes,
    scores: Floats,
    has_ties: bool,
    k: int,
    *,
    others: Indexes = NO_ITEMS,
) -> list[RankedItem]:
    """Index, id and score of the k best items of `top_k`; ties by id.

    `others` are items whose ids are read along.
    """
    indexes = items.tolist()
    item_ids = await cache.item_ids.of(indexes, others)
    found = zip(scores.tolist(), item_ids, indexes, strict=True)
    if has_ties:
        ordered = sorted((-score, name, index) for score, name, index in found if name is not None)
        return [(index, name, -score) for score, name, index in ordered[:k]]
    return [(index, name, score) for score, name, index in found if name is not None][:k]
