"""Lists for a profile that nothing was co-visited with: its items' texts and categories."""

from __future__ import annotations

import numpy as np

from models.ranking.context_lift import rerank_by_lift
from models.retrieval.similar_texts import total_weights
from models.serving.answer_options import AnswerOptions
from models.serving.answers import Recommendation, scored_by_position
from models.serving.cached.cache import StateCache
from models.serving.chosen_items import first_of_a_product
from models.serving.general_lists import GeneralLists
from models.serving.sources import RequestSnapshot
from models.state.catalogue.metadata import same_category

MAX_CATEGORY_ITEMS = 3
"""Recent items whose categories supply candidates where nothing was co-visited."""


async def category_list(
    cache: StateCache,
    general: GeneralLists,
    snapshot: RequestSnapshot,
    k: int,
    options: AnswerOptions,
) -> list[Recommendation]:
    """Items with texts or categories of the recent ones, then items for everyone.

    The most similar texts first, then the newest items. Empty if anything was co-visited with the
    recent items, for then candidates are ranked, and where no item has anything in common with
    them. Reads the categories' items, and what `GeneralLists` needs.
    """
    if any(snapshot.evidence.neighbour_lists):
        return []
    recent = snapshot.profile.recent[:MAX_CATEGORY_ITEMS].tolist()
    taken_out = [*snapshot.purchased.tolist(), *snapshot.feedback.hidden.tolist()]
    similarity = total_weights(snapshot.evidence.similar_texts)
    in_category = await same_category(cache.store, recent, options.item_columns.uses)
    listed = np.array([*dict.fromkeys([*in_category, *similarity])], np.int64)
    left_out = {*recent, *taken_out}
    found = [one for one in snapshot.shared.shown(listed).tolist() if one not in left_out]
    if not found:
        return []
    found.sort(key=lambda one: -similarity.get(one, 0.0))
    ordered = np.array(rerank_by_lift(found, snapshot.context), np.int64)
    best = first_of_a_product(snapshot.shared, ordered, options)[:k].tolist()
    source = "category" if in_category else "text"
    same = scored_by_position(await cache.item_ids.of(best), source)
    shown = {one.item_id for one in same}
    shown.update(name for name in await cache.item_ids.of([*recent, *taken_out]) if name)
    everyone = await general.for_everyone(snapshot, k + len(shown), options)
    others = [one.item_id for one in everyone if one.item_id not in shown]
    if not options.keeps_variants:
        names = [one.item_id for one in same]
        others = await cache.shown_once(others, snapshot.now_s, beside=names)
    return [*same, *scored_by_position(others, "trending", after=len(same))][:k]
