"""Reading of request snapshots, and the features and choices that follow from them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.arrays import NO_ITEMS, Floats, Indexes
from models.ranking.champions import Objective
from models.ranking.examples import Choice
from models.ranking.features import features_of
from models.ranking.similarity import chances_of
from models.retrieval.candidates import (
    TOP_LIST_SIZES,
    Candidates,
    Evidence,
    top_list_candidates,
)
from models.retrieval.negative_feedback import (
    NO_NEGATIVE_FEEDBACK,
    NegativeFeedback,
    negative_feedback_of,
    penalties,
)
from models.retrieval.profile import UserProfile, profile_of
from models.retrieval.user_neighbours import NO_NEIGHBOURS
from models.serving import sources
from models.serving.answer_options import NO_OPTIONS, AnswerOptions, weighted_history
from models.serving.cached.cache import StateCache
from models.serving.cached.shared_state import SharedState
from models.serving.sources import RequestSnapshot, with_listed
from models.state import layout
from models.state.histories import NO_HISTORY, History, merge_histories, unpack_history
from models.state.store import Store

SIMILARITY_EVERY = 4
"""One of so many choices teaches how similar items are ordered: it takes some 100 µs."""

NO_STATS = np.zeros(0, layout.STAT)


class BeforeEvent(NamedTuple):
    """The state that an event of a user's is about to change.

    Attributes
    ----------
    snapshot
        The user's, with the evidence that the event changes.
    taken
        Index of the item that the event is on; 0 for an unknown one.
    taken_stats
        Its statistics, ``(1,)`` of `layout.STAT`; none for an unknown one.
    """

    snapshot: RequestSnapshot
    taken: int
    taken_stats: NDArray[np.void] = NO_STATS


class Snapshots:
    """Reads request snapshots of one group, through its state cache and all candidate sources."""

    def __init__(self, store: Store, cache: StateCache) -> None:
        self._store = store
        self._cache = cache
        self._sources = [source_of(cache) for source_of in sources.SOURCES]
        self._signal_sources = [source for source in self._sources if source.has_signals]
        self._n_choices = 0
        self._n_own = len(sources.CHANGED_BY_OWN_EVENTS)

    async def history(
        self, user_id: str | None, session_id: str | None, *, now_s: float
    ) -> History:
        """A user's events, with those of a session that is not linked to the user yet."""
        keys = []
        if user_id is None and session_id is not None:
            user_id, own = await self._store.linked_user_and_history(session_id, now_s=now_s)
            if user_id is None:
                return unpack_history(own)
        if user_id is not None:
            keys += [f"history:u:{user_id}", f"history:s:{user_id}"]
        if session_id is not None and session_id != user_id:
            keys.append(f"history:s:{session_id}")
        merged = NO_HISTORY
        for raw in await self._store.values([self._store.key(key) for key in keys]):
            if raw:
                merged = merge_histories(merged, unpack_history(raw))
        return merged

    async def for_recommending(
        self,
        user_id: str | None,
        session_id: str | None,
        item_id: str | None = None,
        *,
        now_s: float,
        objective: Objective = "interactions",
        context: Mapping[str, str] | None = None,
        exclude_purchased: bool = False,
        profiling: bool = True,
        max_results: int | None = None,
        history: History | None = None,
        options: AnswerOptions = NO_OPTIONS,
    ) -> RequestSnapshot:
        """Snapshot for recommendations; the last item is barred, and those bought if so asked.

        `item_id` is an item that the user is looking at, the newest of the profile. Without
        `profiling` the histories of others who took it are not read either: one may be the user's.
        `history` has the user's events where they were just read; `options` weigh them.
        """
        context_values = await self._cache.context_values(context, now_s)
        shared = await self._cache.refresh(now_s)
        if history is None:
            history = await self.history(user_id, session_id, now_s=now_s)
        every, history = history, await self._weighted(history, options, now_s)
        purchased = NO_ITEMS
        if exclude_purchased:
            shared = await self._cache.with_types(history.types, now_s)
            is_purchase = shared.purchase_types[history.types] & (history.items > 0)
            purchased = history.items[is_purchase]
        looking_at = 0
        if item_id is not None:
            (looking_at,) = await self._store.item_indexes([item_id])
        shared = self._cache.ranked_by(shared, options.ranker, objective, now_s)
        profile = _profile(history, shared, looking_at)
        feedback = await self._feedback(every, profile, options, now_s)
        barred = profile.recent[:1]
        if len(purchased) or len(feedback.hidden):
            barred = np.concatenate([barred, purchased, feedback.hidden])
        snapshot = RequestSnapshot(
            now_s, shared, history, profile, objective, context_values,
            barred=barred,
            purchased=purchased,
            feedback=feedback,
            # Those of the top lists that sink make room for others.
            max_results=None if len(feedback.items) else max_results,
            reads_user_knn=profiling and shared.champion(objective).uses_user_knn,
            uses_texts=options.uses_texts,
        )  # fmt: skip
        return await _with_evidence(snapshot, self._sources)

    async def for_learning(
        self,
        user_id: str | None,
        session_id: str | None,
        *,
        now_s: float,
        barred: Indexes | None = NO_ITEMS,
        context: Mapping[str, str] | None = None,
        unstored: History = NO_HISTORY,
        options: AnswerOptions = NO_OPTIONS,
        has_evidence: bool = True,
    ) -> RequestSnapshot:
        """Snapshot with all evidence, also of sources that do not pay in serving, or with none.

        `barred` is None for the last item. `unstored` are events of the user beside the stored
        ones; `options` weigh all of them.
        """
        context_values = await self._cache.context_values(context, now_s)
        # At once: most examples are made when both must be read.
        shared = await self._cache.refresh(now_s) if self._cache.begin_refresh(now_s) else None
        stored = await self.history(user_id, session_id, now_s=now_s)
        if shared is None:
            shared = await self._cache.refresh(now_s)
        every = merge_histories(stored, unstored)
        history = await self._weighted(every, options, now_s)
        profile = _profile(history, shared)
        if barred is None:
            barred = profile.recent[:1]
        feedback = await self._feedback(every, profile, options, now_s)
        if len(feedback.hidden):
            barred = np.concatenate([barred, feedback.hidden])
        begun = RequestSnapshot(
            now_s, shared, history, profile, context=context_values, barred=barred,
            feedback=feedback, reads_user_knn=True,
        )  # fmt: skip
        return await _with_evidence(begun, self._sources) if has_evidence else begun

    async def before_event(
        self, user_id: str | None, session_id: str | None, item_id: str, *, now_s: float
    ) -> BeforeEvent:
        """State to learn from before the user's next event, on an item; afterwards it is gone.

        `completed` reads the rest, at any later time. Two round trips, fewer of what is held.
        """
        reading = self.for_learning(user_id, session_id, now_s=now_s, has_evidence=False)
        begun, taken = await self.with_index(reading, item_id)
        if not len(begun.profile.recent):
            return BeforeEvent(begun, taken)
        begun = await _with_evidence(begun, self._sources[: self._n_own])
        stats = await self._cache.stats(np.array([taken] if taken else [], np.int64), now_s)
        return BeforeEvent(begun, taken, stats)

    async def completed(self, before: BeforeEvent, now_s: float) -> BeforeEvent:
        """The same with all evidence; what is read now others' events may have changed."""
        if not len(before.snapshot.profile.recent):
            return before
        snapshot = msgspec.structs.replace(before.snapshot, now_s=now_s)
        snapshot = await _with_evidence(snapshot, self._sources[self._n_own :])
        return before._replace(snapshot=snapshot)

    async def for_ranking(
        self,
        user_id: str | None,
        session_id: str | None,
        *,
        now_s: float,
        objective: Objective,
        context: Mapping[str, str] | None,
        history: History | None = None,
        options: AnswerOptions = NO_OPTIONS,
    ) -> RequestSnapshot:
        """Snapshot to rank given items, with the evidence of sources with signals.

        `history` has the user's events where they were just read.
        """
        context_values = await self._cache.context_values(context, now_s)
        shared = await self._cache.refresh(now_s)
        if history is None:
            history = await self.history(user_id, session_id, now_s=now_s)
        every, history = history, await self._weighted(history, options, now_s)
        shared = self._cache.ranked_by(shared, options.ranker, objective, now_s)
        profile = _profile(history, shared)
        snapshot = RequestSnapshot(
            now_s, shared, history, profile, objective, context_values,
            feedback=await self._feedback(every, profile, options, now_s),
            reads_user_knn=shared.champion(objective).uses_user_knn,
            uses_texts=options.uses_texts,
        )  # fmt: skip
        return await _with_evidence(snapshot, self._signal_sources)

    async def _weighted(self, history: History, options: AnswerOptions, now_s: float) -> History:
        """The events that count, as the options weigh them."""
        if not options.weighs_events:
            return history
        shared = await self._cache.with_types(history.types, now_s)
        return weighted_history(history, shared.event_types, options)

    async def _feedback(
        self, history: History, profile: UserProfile, options: AnswerOptions, now_s: float
    ) -> NegativeFeedback:
        """Negative feedback of a history; reads nothing where there is none."""
        if not profile.n_negative and not options.weighs_events:
            return NO_NEGATIVE_FEEDBACK
        shared = await self._cache.with_types(history.types, now_s)
        return negative_feedback_of(history, shared.strong_types)

    async def penalties(self, snapshot: RequestSnapshot, candidates: Candidates) -> Floats:
        """Loss of each candidate's score by the user's negative feedback; see `penalties`."""
        feedback, now_s = snapshot.feedback, snapshot.now_s
        lists = await self._cache.neighbours(feedback.items.tolist(), now_s)
        texts = await self._cache.similar_texts.of(feedback.items, now_s)
        texts = texts or [NO_NEIGHBOURS] * len(lists)
        return penalties(candidates, feedback, lists, texts, snapshot.shared.clock_s)

    async def for_similar(
        self, item: int, *, now_s: float, options: AnswerOptions = NO_OPTIONS
    ) -> RequestSnapshot:
        """Snapshot for items similar to one, whose profile is that item alone."""
        shared = await self._cache.refresh(now_s)
        profile = _profile(NO_HISTORY, shared, item)
        snapshot = RequestSnapshot(
            now_s, shared, NO_HISTORY, profile,
            barred=profile.recent, uses_texts=options.uses_texts,
        )  # fmt: skip
        snapshot = await _with_evidence(snapshot, self._signal_sources)
        popular = top_list_candidates(shared.top_lists, {"week": TOP_LIST_SIZES["week"]})
        return msgspec.structs.replace(snapshot, evidence=with_listed(snapshot.evidence, popular))

    async def features(self, snapshot: RequestSnapshot, candidates: Candidates) -> Floats:
        """Feature matrix of candidates; see `features_of`."""
        stats = await self._cache.stats(candidates.items, snapshot.now_s)
        return _features(snapshot, candidates, stats)

    async def with_index(
        self, reading: Coroutine[Any, Any, RequestSnapshot], item_id: str
    ) -> tuple[RequestSnapshot, int]:
        """A snapshot, and the index of an item, 0 for an unknown one; read at once."""
        if self._cache.holds_item(item_id):
            return await reading, await self._cache.item_index(item_id)
        snapshot, index = await asyncio.gather(reading, self._cache.item_index(item_id))
        return snapshot, index

    async def choice(
        self,
        snapshot: RequestSnapshot,
        candidates: Candidates,
        taken: int,
        taken_stats: NDArray[np.void] = NO_STATS,
    ) -> Choice | None:
        """An item that the user took, with candidates without barred items, to learn from.

        `taken` is its index, 0 for an unknown item, and `taken_stats` its statistics, where those
        that are stored have changed since. None for the first event of a user: there is nothing to
        predict it from.
        """
        recent = snapshot.profile.recent
        if not len(recent):
            return None
        stats = await self._cache.stats(candidates.items, snapshot.now_s)
        if len(taken_stats):
            stats[candidates.items == taken] = taken_stats
        matrix = _features(snapshot, candidates, stats)
        similarity = None
        self._n_choices += 1
        if self._n_choices % SIMILARITY_EVERY == 0 and len(snapshot.shared.factors.items):
            similarity = chances_of(_of_last_item(snapshot).similar_candidates(), taken)
        return Choice(candidates.items, matrix, taken, int(recent[0]), similarity)

    async def choice_of(self, before: BeforeEvent) -> Choice | None:
        """The choice that an event was, of what was read before it and `completed` since."""
        snapshot, taken, taken_stats = before
        return await self.choice(snapshot, snapshot.candidates(), taken, taken_stats)


async def _with_evidence(
    snapshot: RequestSnapshot, read_sources: Sequence[sources.CandidateSource]
) -> RequestSnapshot:
    evidence = snapshot.evidence
    for source in read_sources:
        evidence = await source.read(snapshot, evidence)
    return msgspec.structs.replace(snapshot, evidence=evidence)


def _of_last_item(snapshot: RequestSnapshot) -> RequestSnapshot:
    """As `Snapshots.for_similar` of the profile's newest item, out of what was read already."""
    profile = _profile(NO_HISTORY, snapshot.shared, snapshot.profile.last_item)
    evidence = Evidence(
        neighbour_lists=snapshot.evidence.neighbour_lists[:1],
        second_hops=snapshot.evidence.second_hops,
    )
    return msgspec.structs.replace(
        snapshot, profile=profile, barred=profile.recent, evidence=evidence
    )


def _features(snapshot: RequestSnapshot, candidates: Candidates, stats: NDArray[np.void]) -> Floats:
    shared = snapshot.shared
    return features_of(
        candidates, snapshot.profile, stats, shared.max_log_popularity, shared.clock_s
    )


def _profile(history: History, shared: SharedState, looking_at: int = 0) -> UserProfile:
    """Profile of a history, with an item that is being looked at as its newest event."""
    if looking_at:
        history = History(
            history.count,
            history.accepted_at,
            np.append(history.items, looking_at),
            np.append(history.times, int(shared.clock_s)),
            np.append(history.types, np.uint8(0)),
            history.numbers,
        )
    return profile_of(history, shared.strong_types)
