"""The recommender: candidates, ranking, and the answer; held by the API and the agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from models.arrays import Floats, Indexes
from models.ranking.challengers import Context
from models.ranking.champions import Objective
from models.ranking.features import without_trends
from models.ranking.ranker import Ranker
from models.ranking.selection import softmax
from models.ranking.similarity import similarity
from models.retrieval.candidates import Candidates
from models.serving.answer_options import NO_OPTIONS, AnswerOptions
from models.serving.answers import (
    Answer,
    Recommendation,
    ServingLevel,
    answer_of,
    without_disliked,
)
from models.serving.arranged_lists import ListArranger
from models.serving.cached.cache import StateCache
from models.serving.category_lists import category_list
from models.serving.exploration import ScoredCandidates
from models.serving.general_lists import GeneralLists
from models.serving.influenced_scores import influenced_scores
from models.serving.snapshots import Snapshots
from models.serving.sources import RequestSnapshot
from models.serving.stage_times import stage_reached
from models.state.histories import History
from models.state.store import Store


class Recommender:
    """Answers from the store, through one state cache; safe for many requests of one event loop."""

    def __init__(
        self, store: Store, cache: StateCache | None = None, *, seed: int | None = None
    ) -> None:
        self.store = store
        self.cache = cache or StateCache(store)
        self.snapshots = Snapshots(store, self.cache)
        self.lists = ListArranger(self.cache, store.settings, seed=seed)
        self._general = GeneralLists(self.cache)

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
            and `ListArranger.explored` gives them their slots.
        options
            How much it explores, what ranks beside the ranker, and which events count.
        """
        if not profiling:
            user_id = session_id = history = None
        # One of a product may be far behind k others of it.
        has_variants = not options.keeps_variants and (
            (await self.cache.refresh(now_s)).has_variants
        )
        needs_all = reasons or self.lists.is_capped or options.is_influenced or has_variants
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
        items = await category_list(self.cache, self._general, snapshot, k, options)
        if items:
            found = answer_of(
                items, "user-personalization", "retrieved", snapshot.shared, snapshot.history
            )
            return msgspec.structs.replace(found, disliked=disliked)
        candidates = snapshot.candidates()
        stage_reached("candidates")
        scored = await self._scored(snapshot, candidates, options)
        explores = explores and profiling
        items, exploration = await self.lists.arranged(
            scored, snapshot, k, options, reasons=reasons, explores=explores
        )
        found = Answer(
            items,
            "user-personalization",
            _level(snapshot),
            snapshot.history.accepted_at,
            snapshot.shared.accepted_at,
            exploration=exploration,
        )
        if profiling and not explores:
            found = await self.lists.naming_new_items(found, snapshot, options)
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
        scored = await self._scored(snapshot, snapshot.candidates_among(indexes[known]), options)
        ranked = sorted(
            zip(softmax(scored.scores).tolist(), (wanted[place] for place in known), strict=True),
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
        """Items co-visited with this one, or near to it by their factors.

        How much either counts is learned, see `models.ranking.similarity`. For an unknown item,
        trending ones.
        """
        (index,) = await self.store.item_indexes([item_id])
        if not index:
            return await self.trending(k=k, now_s=now_s)
        snapshot = await self.snapshots.for_similar(index, now_s=now_s, options=options)
        stage_reached("read")
        items = await category_list(self.cache, self._general, snapshot, k, options)
        if not items:
            candidates = snapshot.similar_candidates()
            evidence = snapshot.shared.rankers["interactions"].similarity_evidence
            scores = await self._influenced(
                snapshot, candidates.items, similarity(candidates, evidence), options
            )
            items = await self.lists.best(snapshot, candidates.items, scores, k, options)
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

    async def _scored(
        self, snapshot: RequestSnapshot, candidates: Candidates, options: AnswerOptions
    ) -> ScoredCandidates:
        """Scores by the champion; then lifts, negative feedback and influences change them."""
        matrix = await self.snapshots.features(snapshot, candidates)
        if not options.follows_trends:
            matrix = without_trends(matrix)
        stage_reached("features")
        ranker = _champion(snapshot, candidates)
        scores = snapshot.context.with_lifts(
            ranker.scores(matrix), candidates.items, has_history=len(snapshot.profile.recent) > 0
        )
        if len(snapshot.feedback.items):
            scores = scores - await self.snapshots.penalties(snapshot, candidates)
        scores = await self._influenced(snapshot, candidates.items, scores, options)
        stage_reached("scores")
        return ScoredCandidates(candidates, matrix, scores, ranker)

    async def _influenced(
        self, snapshot: RequestSnapshot, items: Indexes, scores: Floats, options: AnswerOptions
    ) -> Floats:
        return await influenced_scores(
            self.cache, snapshot.shared, items, scores, options, snapshot.now_s
        )


def _champion(snapshot: RequestSnapshot, candidates: Candidates) -> Ranker:
    context = Context(candidates.items, snapshot.profile.last_item)
    return snapshot.shared.champion(snapshot.objective, context)


def _level(snapshot: RequestSnapshot) -> ServingLevel:
    return "retrieved" if snapshot.shared.serving(snapshot.objective) == "blend" else "ranked"
