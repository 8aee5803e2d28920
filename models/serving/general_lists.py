"""Lists that depend on no history: trending and popular items, and what strangers are shown."""

from __future__ import annotations

import numpy as np

from models.arrays import NO_ITEMS
from models.ranking.context_lift import popularity_with_lift
from models.ranking.selection import scaled_to_max, softmax_top_k, top_k, trend_scores
from models.serving.answer_options import NO_OPTIONS, AnswerOptions
from models.serving.answers import Answer, Recommendation, answer_of, scored_by_position
from models.serving.cached.cache import StateCache
from models.serving.cached.shared_state import SharedState
from models.serving.chosen_items import first_of_a_product, one_of_a_product, recommendations
from models.serving.influenced_scores import influenced_scores
from models.serving.sources import RequestSnapshot
from models.state import layout


class GeneralLists:
    """Answers that are the same for everybody, from the top lists of the shared state."""

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache

    async def trending(
        self, *, k: int = 25, now_s: float, options: AnswerOptions = NO_OPTIONS
    ) -> Answer:
        """Items whose rate of events grows most: in the last hour against the last day."""
        shared = await self._cache.refresh(now_s)
        items = await self._trending(shared, k, now_s, options)
        return answer_of(items, "trending-now", "trending", shared)

    async def popular(
        self, *, k: int = 25, now_s: float, options: AnswerOptions = NO_OPTIONS
    ) -> Answer:
        """Items with the most events of all time."""
        shared = await self._cache.refresh(now_s)
        items = shared.top_lists.get("all", NO_ITEMS)
        stats = await self._cache.stats(items, now_s)
        scores = stats["events"].astype(np.float64)
        scores = await influenced_scores(self._cache, shared, items, scores, options, now_s)
        items, scores = one_of_a_product(shared, items, scaled_to_max(scores), options)
        found = await recommendations(self._cache, *top_k(items, scores, k), k, source="popular")
        return answer_of(found, "popularity-count", "retrieved", shared)

    def from_cache(self, *, k: int, now_s: float) -> Answer | None:
        """Trending items as last read, if ever; for while the store is away. Reads nothing."""
        shared = self._cache.as_of(now_s)
        if shared.read_at < 0:
            return None
        top_lists = [shared.top_lists[name] for name in ("hour", "day", "week", "all")]
        listed = np.array([*dict.fromkeys(np.concatenate(top_lists).tolist())], np.int64)
        item_ids = self._cache.item_ids.known(
            first_of_a_product(shared, listed, NO_OPTIONS).tolist()
        )
        items = [
            Recommendation(item_id, 1.0 / place) for place, item_id in enumerate(item_ids[:k], 1)
        ]
        return answer_of(items, "trending-now", "cached", shared)

    async def cold_start(self, snapshot: RequestSnapshot, k: int, options: AnswerOptions) -> Answer:
        """Answer for a user without a history."""
        if not options.follows_trends and not snapshot.context.values:
            return await self.popular(k=k, now_s=snapshot.now_s, options=options)
        items = await self.for_everyone(snapshot, k, options)
        recipe = "popularity-count" if snapshot.context.values else "trending-now"
        return answer_of(items, recipe, "trending", snapshot.shared, snapshot.history)

    async def for_everyone(
        self, snapshot: RequestSnapshot, k: int, options: AnswerOptions
    ) -> list[Recommendation]:
        """Trending items or, with context values, those popular under them."""
        shared, context, now_s = snapshot.shared, snapshot.context, snapshot.now_s
        if not context.values:
            return await self._trending(shared, k, now_s, options)
        # The same lists as for trending: older popular items count only if frequent in the context.
        top_lists = [shared.top_lists[name] for name in ("hour", "day", "week")]
        items = shared.shown(np.unique(np.concatenate([*top_lists, context.frequent_items])))
        stats = await self._cache.stats(items, now_s)
        week = stats["log2"][:, list(layout.POPULARITY_HALF_LIVES_S).index("week")]
        scores = popularity_with_lift(items, week, context)
        scores = await influenced_scores(self._cache, shared, items, scores, options, now_s)
        items, scores = one_of_a_product(shared, items, scores, options)
        return await recommendations(
            self._cache, *softmax_top_k(items, scores, k), k, source="popular"
        )

    async def _trending(
        self, shared: SharedState, k: int, now_s: float, options: AnswerOptions = NO_OPTIONS
    ) -> list[Recommendation]:
        """Trending items; before the first event, the newest items with metadata."""
        names = [name for name in ("hour", "day", "week") if name in shared.top_lists]
        items = np.unique(np.concatenate([NO_ITEMS, *(shared.top_lists[name] for name in names)]))
        stats = await self._cache.stats(items, now_s)
        if shared.silence is not None:
            # An hour or day holds a session or two then, and no trend.
            week = stats["log2"][:, list(layout.POPULARITY_HALF_LIVES_S).index("week")]
            scores = np.exp2(week - week.max(initial=0.0)) if len(items) else week
        else:
            scores = trend_scores(stats["log2"], shared.clock_s, by_day=options.follows_days)
        scores = await influenced_scores(self._cache, shared, items, scores, options, now_s)
        items, scores = one_of_a_product(shared, items, scaled_to_max(scores), options)
        found = await recommendations(self._cache, *top_k(items, scores, k), k, source="trending")
        if found:
            return found
        fresh = first_of_a_product(shared, shared.top_lists.get("fresh", NO_ITEMS), options)[
            :k
        ].tolist()
        return scored_by_position(await self._cache.item_ids.of(fresh), "fresh")
