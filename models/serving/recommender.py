"""The recommender: candidates, ranking, and the answer; held by the API and the agents."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import numpy as np

from models.arrays import NO_ITEMS, Floats, Indexes
from models.metadata_records import categories_of
from models.ranking.champions import Objective
from models.ranking.context_lift import popularity_with_lift, rerank_by_lift
from models.ranking.explanations import Reason
from models.ranking.selection import (
    CapGroup,
    apply_caps,
    scaled_to_max,
    softmax,
    softmax_top_k,
    top_k,
    trend_scores,
)
from models.retrieval.candidates import Candidates, blend
from models.serving.answers import (
    Answer,
    Recommendation,
    ServingLevel,
    scored_by_position,
    with_reasons,
)
from models.serving.cache import SharedState, StateCache
from models.serving.exploration import Exploration, insert_explored
from models.serving.snapshots import Snapshots
from models.serving.sources import RequestSnapshot
from models.state import layout
from models.state.histories import NO_HISTORY, History
from models.state.metadata import same_category
from models.state.store import Store

MAX_POPULAR = 50
"""Items of the week's top list that `popular_share` caps."""

MAX_CATEGORY_ITEMS = 3
"""Recent items whose categories supply candidates where nothing was co-visited."""


class Recommender:
    """Answers from the store, through one state cache; safe for many requests of one event loop."""

    def __init__(
        self, store: Store, cache: StateCache | None = None, *, seed: int | None = None
    ) -> None:
        self.store = store
        self.cache = cache or StateCache(store)
        self.snapshots = Snapshots(store, self.cache)
        settings = store.settings
        self._shares = {"popular": settings.popular_share, "category": settings.category_share}
        self._is_capped = min(self._shares.values()) < 1
        self._rng = random.Random(seed)
        self._exploration = Exploration(self.cache, np.random.default_rng(seed))

    async def recommend(
        self,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        item_id: str | None = None,
        k: int = 25,
        now_s: float,
        exclude_purchased: bool = False,
        reasons: bool = False,
        objective: Objective = "interactions",
        context: Mapping[str, str] | None = None,
        profiling: bool = True,
        history: History | None = None,
    ) -> Answer:
        """Items that this user is most likely to want next.

        Parameters
        ----------
        user_id, session_id
            Whose history counts; both, either or none. Unknown ones get trending items.
        item_id
            An item that the user is looking at, taken as the newest of the profile.
        k
            Items wanted, at least 1; fewer if fewer are known.
        now_s
            The present in Unix seconds, for the age of cached reads and of session links.
        objective
            What the ranker optimises; the blend serves one that has not learned enough yet.
        context
            Values of contextual columns, by name.
        profiling
            False to read nothing of this or any other user: the item that is being looked at and
            the top lists are what the answer is made of, and nothing is explored.
        history
            The user's events, where they were just read.
        """
        if not profiling:
            user_id = session_id = history = None
        snapshot = await self.snapshots.for_recommending(
            user_id,
            session_id,
            item_id,
            now_s=now_s,
            objective=objective,
            context=context,
            exclude_purchased=exclude_purchased,
            profiling=profiling,
            history=history,
            # Reasons and caps need all candidates.
            max_results=None if reasons or self._is_capped else k,
        )
        if not len(snapshot.profile.recent):
            return await self._cold_start(snapshot, k)
        items = await self._same_category(snapshot, k)
        level: ServingLevel = "retrieved"
        if not items:
            candidates = snapshot.candidates()
            matrix = await self.snapshots.features(snapshot, candidates)
            ranker, level = snapshot.shared.champion(objective), _level(snapshot)
            scores = snapshot.context.with_lifts(ranker.scores(matrix), candidates.items)
            items = await self._best(snapshot, candidates, scores, k)
            if reasons:
                items = await with_reasons(
                    items, snapshot, candidates.items, matrix, ranker, self.cache
                )
            if profiling:
                items = await self._with_exploration(items, snapshot)
        return _answer(items, "user-personalization", level, snapshot.shared, snapshot.history)

    async def rank(
        self,
        item_ids: Sequence[str],
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        now_s: float,
        objective: Objective = "interactions",
        context: Mapping[str, str] | None = None,
        profiling: bool = True,
    ) -> Answer:
        """The given items in the order in which this user is most likely to want them.

        Unknown items come last, with score 0; repeated ones count once. `context` and `profiling`
        as in `recommend`.
        """
        if not profiling:
            user_id = session_id = None
        snapshot = await self.snapshots.for_ranking(
            user_id, session_id, now_s=now_s, objective=objective, context=context
        )
        wanted = list(dict.fromkeys(item_ids))
        indexes = np.array(await self.store.item_indexes(wanted), np.int64)
        known = np.flatnonzero(indexes > 0)
        candidates = snapshot.candidates_among(indexes[known])
        matrix = await self.snapshots.features(snapshot, candidates)
        scores = snapshot.context.with_lifts(
            snapshot.shared.champion(objective).scores(matrix),
            candidates.items,
            has_history=len(snapshot.profile.recent) > 0,
        )
        ranked = sorted(
            zip(softmax(scores).tolist(), (wanted[place] for place in known), strict=True),
            key=lambda pair: (-pair[0], pair[1]),
        )
        items = [Recommendation(item_id, score) for score, item_id in ranked]
        unknown = sorted(name for name, index in zip(wanted, indexes, strict=True) if not index)
        items += [Recommendation(item_id, 0.0) for item_id in unknown]
        return _answer(
            items, "personalized-ranking", _level(snapshot), snapshot.shared, snapshot.history
        )

    async def similar(self, item_id: str, *, k: int = 25, now_s: float) -> Answer:
        """Items co-visited with this one; for an unknown item, trending ones."""
        (index,) = await self.store.item_indexes([item_id])
        if not index:
            return await self.trending(k=k, now_s=now_s)
        snapshot = await self.snapshots.for_similar(index, now_s=now_s)
        items = await self._same_category(snapshot, k)
        if not items:
            candidates = snapshot.candidates()
            items = await self._best(snapshot, candidates, blend(candidates.signals), k)
        return _answer(items, "similar-items", "retrieved", snapshot.shared)

    async def trending(self, *, k: int = 25, now_s: float) -> Answer:
        """Items whose rate of events grows most: in the last hour against the last day."""
        shared = await self.cache.refresh(now_s)
        items = await self._trending(shared, k, now_s)
        return _answer(items, "trending-now", "trending", shared)

    async def popular(self, *, k: int = 25, now_s: float) -> Answer:
        """Items with the most events of all time."""
        shared = await self.cache.refresh(now_s)
        items = shared.top_lists.get("all", NO_ITEMS)
        stats = await self.cache.stats(items, now_s)
        scores = scaled_to_max(stats["events"].astype(np.float64))
        found = await self._recommendations(*top_k(items, scores, k), k, source="popular")
        return _answer(found, "popularity-count", "retrieved", shared)

    def from_cache(self, *, k: int) -> Answer | None:
        """Trending items as last read, if ever; for while the store is away. Reads nothing."""
        shared = self.cache.shared
        if shared.read_at < 0:
            return None
        top_lists = [shared.top_lists[name] for name in ("hour", "day", "week", "all")]
        item_ids = self.cache.item_ids.known(dict.fromkeys(np.concatenate(top_lists).tolist()))
        items = [
            Recommendation(item_id, 1.0 / place) for place, item_id in enumerate(item_ids[:k], 1)
        ]
        return _answer(items, "trending-now", "cached", shared)

    async def _cold_start(self, snapshot: RequestSnapshot, k: int) -> Answer:
        """Answer for a user without a history."""
        items = await self._for_everyone(snapshot, k)
        recipe = "popularity-count" if snapshot.context.values else "trending-now"
        return _answer(items, recipe, "trending", snapshot.shared, snapshot.history)

    async def _for_everyone(self, snapshot: RequestSnapshot, k: int) -> list[Recommendation]:
        """Trending items or, with context values, those popular under them."""
        shared, context, now_s = snapshot.shared, snapshot.context, snapshot.now_s
        if not context.values:
            return await self._trending(shared, k, now_s)
        # The same lists as for trending: older popular items count only if frequent in the context.
        top_lists = [shared.top_lists[name] for name in ("hour", "day", "week")]
        items = np.unique(np.concatenate([*top_lists, context.frequent_items]))
        stats = await self.cache.stats(items, now_s)
        week = stats["log2"][:, list(layout.POPULARITY_HALF_LIVES_S).index("week")]
        scores = popularity_with_lift(items, week, context)
        return await self._recommendations(*softmax_top_k(items, scores, k), k, source="popular")

    async def _trending(self, shared: SharedState, k: int, now_s: float) -> list[Recommendation]:
        """Trending items; before the first event, the newest items with metadata."""
        names = [name for name in ("hour", "day", "week") if name in shared.top_lists]
        items = np.unique(np.concatenate([NO_ITEMS, *(shared.top_lists[name] for name in names)]))
        stats = await self.cache.stats(items, now_s)
        scores = scaled_to_max(trend_scores(stats["log2"], shared.clock_s))
        found = await self._recommendations(*top_k(items, scores, k), k, source="trending")
        if found:
            return found
        fresh = shared.top_lists.get("fresh", NO_ITEMS)[:k].tolist()
        return scored_by_position(await self.cache.item_ids.of(fresh), "fresh")

    async def _same_category(self, snapshot: RequestSnapshot, k: int) -> list[Recommendation]:
        """Items in the categories of the recent ones, newest first, then items for everyone.

        Empty if anything was co-visited with the recent items, or no item shares a category.
        """
        if any(snapshot.evidence.neighbour_lists):
            return []
        recent = snapshot.profile.recent[:MAX_CATEGORY_ITEMS].tolist()
        purchased = snapshot.purchased.tolist()
        found = [item for item in await same_category(self.store, recent) if item not in purchased]
        if not found:
            return []
        best = rerank_by_lift(found, snapshot.context)[:k]
        same = scored_by_position(await self.cache.item_ids.of(best), "category")
        shown = {one.item_id for one in same}
        shown.update(
            item_id for item_id in await self.cache.item_ids.of([*recent, *purchased]) if item_id
        )
        everyone = await self._for_everyone(snapshot, k + len(shown))
        others = [one.item_id for one in everyone if one.item_id not in shown]
        return [*same, *scored_by_position(others, "trending", after=len(same))][:k]

    async def _best(
        self, snapshot: RequestSnapshot, candidates: Candidates, scores: Floats, k: int
    ) -> list[Recommendation]:
        """The k best candidates that respect the diversity caps."""
        items = candidates.items
        if not self._is_capped:
            return await self._recommendations(*softmax_top_k(items, scores, k), k, others=items)
        ranked = await self._with_ids(*softmax_top_k(items, scores, len(items)), len(items))
        groups = await self._cap_groups(snapshot, [index for index, *_ in ranked])
        max_counts = {name: math.ceil(share * k) for name, share in self._shares.items()}
        places = apply_caps(range(len(ranked)), groups, k, max_counts)[:k]
        return [Recommendation(ranked[place][1], ranked[place][2]) for place in places]

    async def _cap_groups(
        self, snapshot: RequestSnapshot, items: Sequence[int]
    ) -> list[set[CapGroup]]:
        """Cap groups of each item: the popular items, and its categories."""
        popular = set(snapshot.shared.top_lists["week"][:MAX_POPULAR].tolist())
        column = f"{self.store.settings.category_property}=".casefold()
        groups: list[set[CapGroup]] = []
        properties = await self.cache.properties(items, snapshot.now_s)
        for item, known in zip(items, properties, strict=True):
            categories = [name.casefold() for name in categories_of(known or {})]
            groups.append({("category", name) for name in categories if name.startswith(column)})
            if item in popular:
                groups[-1].add(("popular", ""))
        return groups

    async def _with_exploration(
        self, items: list[Recommendation], snapshot: RequestSnapshot
    ) -> list[Recommendation]:
        """The items with new ones in exploration slots of the second half."""
        n = int(self.store.settings.exploration_share * len(items))
        if not n:
            return items
        listed, own = [item.item_id for item in items], snapshot.history.items.tolist()
        explored: list[Recommendation] = []
        for index, item_id in await self._exploration.order(snapshot.now_s):
            if index not in own and item_id not in listed:
                reasons = (Reason("exploration"),)
                explored.append(Recommendation(item_id, 0.0, reasons, is_exploration=True))
                if len(explored) == n:
                    break
        return insert_explored(items, explored, self._rng)

    async def _recommendations(
        self,
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
        ranked = await self._with_ids(items, scores, has_ties, k, others=others)
        return [Recommendation(item_id, score, reasons) for _, item_id, score in ranked]

    async def _with_ids(
        self,
        items: Indexes,
        scores: Floats,
        has_ties: bool,
        k: int,
        *,
        others: Indexes = NO_ITEMS,
    ) -> list[tuple[int, str, float]]:
        """Index, id and score of the k best items of `top_k`; ties by id.

        `others` are items whose ids are read along.
        """
        indexes = items.tolist()
        item_ids = await self.cache.item_ids.of(indexes, others)
        found = zip(indexes, item_ids, scores.tolist(), strict=True)
        known = [(index, item_id, score) for index, item_id, score in found if item_id is not None]
        if has_ties:
            known.sort(key=lambda one: (-one[2], one[1]))
        return known[:k]


def _level(snapshot: RequestSnapshot) -> ServingLevel:
    champion = snapshot.shared.champions[snapshot.objective]
    return "retrieved" if champion == "blend" else "ranked"


def _answer(
    items: list[Recommendation],
    recipe: str,
    level: ServingLevel,
    shared: SharedState,
    history: History = NO_HISTORY,
) -> Answer:
    return Answer(items, recipe, level, history.accepted_at, shared.accepted_at)
