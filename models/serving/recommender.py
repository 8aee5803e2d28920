"""The recommender: candidates, ranking, and the answer; held by the API and the agents."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from models.arrays import Floats, Indexes
from models.metadata_records import categories_of
from models.ranking.challengers import Context
from models.ranking.champions import Objective
from models.ranking.context_lift import rerank_by_lift
from models.ranking.explored_lists import Exploration
from models.ranking.features import without_trends
from models.ranking.ranker import Ranker
from models.ranking.selection import (
    CapGroup,
    apply_caps,
    softmax,
    softmax_top_k,
)
from models.retrieval.candidates import Candidates
from models.retrieval.signals import blend
from models.retrieval.similar_texts import total_weights
from models.serving.answer_options import NO_OPTIONS, AnswerOptions
from models.serving.answers import (
    Answer,
    Recommendation,
    ServingLevel,
    answer_of,
    scored_by_position,
    with_reasons,
    without_disliked,
)
from models.serving.cached.cache import StateCache
from models.serving.chosen_items import (
    first_of_a_product,
    one_of_a_product,
    recommendations,
    with_ids,
)
from models.serving.exploration import ExplorationPools, with_explored
from models.serving.general_lists import GeneralLists
from models.serving.influenced_scores import influenced_scores
from models.serving.snapshots import Snapshots
from models.serving.sources import RequestSnapshot
from models.serving.stage_times import stage_reached
from models.state.catalogue.metadata import same_category
from models.state.histories import History
from models.state.store import Store

MAX_POPULAR = 50
"""Items of the week's top list that `popular_share` caps."""

MAX_TO_EXPLORE = 50
"""New items that an answer names for rules to choose among."""

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
        self._general = GeneralLists(self.cache)
        self._pools = ExplorationPools(self.cache, np.random.default_rng(seed))

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
        explores: bool = True,
        options: AnswerOptions = NO_OPTIONS,
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
        explores
            False for a list that rules will change: the answer names the items to explore instead,
            and `explored` gives them their slots.
        options
            How much it explores, what ranks beside the ranker, and which events count.
        """
        if not profiling:
            user_id = session_id = history = None
        # One of a product may be far behind k others of it.
        has_variants = not options.keeps_variants and (
            (await self.cache.refresh(now_s)).has_variants
        )
        needs_all = reasons or self._is_capped or options.is_influenced or has_variants
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
            options=options,
            max_results=None if needs_all else k,
        )
        disliked: tuple[str, ...] = ()
        if len(snapshot.feedback.hidden):
            hidden = await self.cache.item_ids.of(snapshot.feedback.hidden.tolist())
            disliked = tuple(item_id for item_id in hidden if item_id is not None)
        stage_reached("read")
        if not len(snapshot.profile.recent):
            found = await self._general.cold_start(snapshot, k + len(disliked), options)
            return without_disliked(found, disliked, k) if disliked else found
        items = await self._same_category(snapshot, k, options)
        level: ServingLevel = "retrieved"
        if not items:
            candidates = snapshot.candidates()
            stage_reached("candidates")
            matrix = await self._features(snapshot, candidates, options)
            stage_reached("features")
            ranker, level = _champion(snapshot, candidates), _level(snapshot)
            scores = snapshot.context.with_lifts(ranker.scores(matrix), candidates.items)
            scores = await self._sunk(snapshot, candidates, scores)
            scores = await self._influenced(snapshot, candidates.items, scores, options)
            stage_reached("scores")
            items = await self._best(snapshot, candidates, scores, k, options)
            stage_reached("arrange")
            if reasons:
                items = await with_reasons(
                    items, snapshot, candidates.items, matrix, ranker, self.cache
                )
                stage_reached("reasons")
            share = self._exploration_share(options)
            if profiling and explores:
                exploration = None
                if n := self.exploration_slots(len(items), options):
                    pools = await self._pools.of_list(
                        items, snapshot, candidates, matrix, scores, ranker, n, options
                    )
                    items, exploration = self.explored(items, pools, options)
                found = answer_of(
                    items, "user-personalization", level, snapshot.shared, snapshot.history
                )
                return msgspec.structs.replace(found, exploration=exploration, disliked=disliked)
            if profiling and share:
                new = await self._pools.new_items((), snapshot, MAX_TO_EXPLORE, options)
                found = answer_of(
                    items, "user-personalization", level, snapshot.shared, snapshot.history
                )
                return msgspec.structs.replace(found, to_explore=new, disliked=disliked)
        found = answer_of(items, "user-personalization", level, snapshot.shared, snapshot.history)
        return msgspec.structs.replace(found, disliked=disliked) if disliked else found

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
        history: History | None = None,
        options: AnswerOptions = NO_OPTIONS,
    ) -> Answer:
        """The given items in the order in which this user is most likely to want them.

        Unknown items come last, with score 0, behind those that the user dislikes; repeated ones
        count once, and hidden ones are left out. `context`, `profiling`, `history` and `options` as
        in `recommend`; nothing is explored.
        """
        if not profiling:
            user_id = session_id = history = None
        snapshot = await self.snapshots.for_ranking(
            user_id,
            session_id,
            now_s=now_s,
            objective=objective,
            context=context,
            history=history,
            options=options,
        )
        wanted = list(dict.fromkeys(item_ids))
        indexes = np.array(await self.store.item_indexes(wanted), np.int64)
        if len(snapshot.shared.hidden):
            wanted = snapshot.shared.shown_ids(wanted, indexes.tolist())
            indexes = snapshot.shared.shown(indexes)
        known = np.flatnonzero(indexes > 0)
        stage_reached("read")
        candidates = snapshot.candidates_among(indexes[known])
        matrix = await self._features(snapshot, candidates, options)
        stage_reached("features")
        scores = snapshot.context.with_lifts(
            _champion(snapshot, candidates).scores(matrix),
            candidates.items,
            has_history=len(snapshot.profile.recent) > 0,
        )
        scores = await self._sunk(snapshot, candidates, scores)
        scores = await self._influenced(snapshot, candidates.items, scores, options)
        ranked = sorted(
            zip(softmax(scores).tolist(), (wanted[place] for place in known), strict=True),
            key=lambda pair: (-pair[0], pair[1]),
        )
        items = [Recommendation(item_id, score) for score, item_id in ranked]
        unknown = sorted(name for name, index in zip(wanted, indexes, strict=True) if not index)
        items += [Recommendation(item_id, 0.0) for item_id in unknown]
        return answer_of(
            items, "personalized-ranking", _level(snapshot), snapshot.shared, snapshot.history
        )

    async def similar(
        self, item_id: str, *, k: int = 25, now_s: float, options: AnswerOptions = NO_OPTIONS
    ) -> Answer:
        """Items co-visited with this one; for an unknown item, trending ones."""
        (index,) = await self.store.item_indexes([item_id])
        if not index:
            return await self.trending(k=k, now_s=now_s)
        snapshot = await self.snapshots.for_similar(index, now_s=now_s, options=options)
        stage_reached("read")
        items = await self._same_category(snapshot, k, options)
        if not items:
            candidates = snapshot.candidates()
            scores = blend(candidates.signals)
            scores = await self._influenced(snapshot, candidates.items, scores, options)
            items = await self._best(snapshot, candidates, scores, k, options)
        return answer_of(items, "similar-items", "retrieved", snapshot.shared)

    async def trending(
        self, *, k: int = 25, now_s: float, options: AnswerOptions = NO_OPTIONS
    ) -> Answer:
        """Items whose rate of events grows most: in the last hour against the last day."""
        return await self._general.trending(k=k, now_s=now_s, options=options)

    async def popular(
        self, *, k: int = 25, now_s: float, options: AnswerOptions = NO_OPTIONS
    ) -> Answer:
        """Items with the most events of all time."""
        return await self._general.popular(k=k, now_s=now_s, options=options)

    def from_cache(self, *, k: int, now_s: float) -> Answer | None:
        """Trending items as last read, if ever; for while the store is away. Reads nothing."""
        return self._general.from_cache(k=k, now_s=now_s)

    async def _features(
        self, snapshot: RequestSnapshot, candidates: Candidates, options: AnswerOptions
    ) -> Floats:
        matrix = await self.snapshots.features(snapshot, candidates)
        return matrix if options.follows_trends else without_trends(matrix)

    async def _sunk(
        self, snapshot: RequestSnapshot, candidates: Candidates, scores: Floats
    ) -> Floats:
        """The scores, less where the user turned away from the item or similar ones."""
        if not len(snapshot.feedback.items):
            return scores
        return scores - await self.snapshots.penalties(snapshot, candidates)

    async def _influenced(
        self, snapshot: RequestSnapshot, items: Indexes, scores: Floats, options: AnswerOptions
    ) -> Floats:
        return await influenced_scores(
            self.cache, snapshot.shared, items, scores, options, snapshot.now_s
        )

    async def _same_category(
        self, snapshot: RequestSnapshot, k: int, options: AnswerOptions
    ) -> list[Recommendation]:
        """Items with texts or categories of the recent ones, then items for everyone.

        The most similar texts first, then the newest items. Empty if anything was co-visited with
        the recent items, or no item has anything in common with them.
        """
        if any(snapshot.evidence.neighbour_lists):
            return []
        recent = snapshot.profile.recent[:MAX_CATEGORY_ITEMS].tolist()
        taken_out = [*snapshot.purchased.tolist(), *snapshot.feedback.hidden.tolist()]
        similarity = total_weights(snapshot.evidence.similar_texts)
        uses = options.item_columns.uses
        in_category = await same_category(self.store, recent, uses)
        listed = np.array([*dict.fromkeys([*in_category, *similarity])], np.int64)
        left_out = {*recent, *taken_out}
        found = [one for one in snapshot.shared.shown(listed).tolist() if one not in left_out]
        if not found:
            return []
        found.sort(key=lambda one: -similarity.get(one, 0.0))
        ordered = np.array(rerank_by_lift(found, snapshot.context), np.int64)
        best = first_of_a_product(snapshot.shared, ordered, options)[:k].tolist()
        source = "category" if in_category else "text"
        same = scored_by_position(await self.cache.item_ids.of(best), source)
        shown = {one.item_id for one in same}
        shown.update(
            item_id for item_id in await self.cache.item_ids.of([*recent, *taken_out]) if item_id
        )
        everyone = await self._general.for_everyone(snapshot, k + len(shown), options)
        others = [one.item_id for one in everyone if one.item_id not in shown]
        if not options.keeps_variants:
            names = [one.item_id for one in same]
            others = await self.cache.shown_once(others, snapshot.now_s, beside=names)
        return [*same, *scored_by_position(others, "trending", after=len(same))][:k]

    async def _best(
        self,
        snapshot: RequestSnapshot,
        candidates: Candidates,
        scores: Floats,
        k: int,
        options: AnswerOptions,
    ) -> list[Recommendation]:
        """The k best candidates that respect the diversity caps, one variant of a product."""
        items, scores = one_of_a_product(snapshot.shared, candidates.items, scores, options)
        if not self._is_capped:
            return await recommendations(
                self.cache, *softmax_top_k(items, scores, k), k, others=items
            )
        ranked = await with_ids(self.cache, *softmax_top_k(items, scores, len(items)), len(items))
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

    def exploration_slots(self, n: int, options: AnswerOptions = NO_OPTIONS) -> int:
        """Items of a list of n that are explored, on average."""
        return int(self._exploration_share(options) * n)

    def explored(
        self,
        items: Sequence[Recommendation],
        pools: Sequence[Mapping[str, float]],
        options: AnswerOptions = NO_OPTIONS,
    ) -> tuple[list[Recommendation], Exploration | None]:
        """The items with others in slots of the second half, and how they were drawn.

        As many as the options, or `exploration_share`, say on average.
        """
        return with_explored(items, pools, self._exploration_share(options), self._rng)

    def _exploration_share(self, options: AnswerOptions) -> float:
        share = options.exploration_share
        return self.store.settings.exploration_share if share is None else share


def _champion(snapshot: RequestSnapshot, candidates: Candidates) -> Ranker:
    context = Context(candidates.items, snapshot.profile.last_item)
    return snapshot.shared.champion(snapshot.objective, context)


def _level(snapshot: RequestSnapshot) -> ServingLevel:
    return "retrieved" if snapshot.shared.serving(snapshot.objective) == "blend" else "ranked"
