"""Candidate sources: the interface, and the built-in ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, Protocol

import msgspec
import numpy as np

from models.arrays import NO_ITEMS, Floats, Indexes
from models.ranking.champions import Objective
from models.ranking.context_lift import NO_CONTEXT_VALUES, ContextValues
from models.ranking.features import features_of, request_steps, with_request_steps
from models.retrieval.candidates import (
    NO_EVIDENCE,
    Candidates,
    Evidence,
    retrieve,
    signals_of,
)
from models.retrieval.covisitation import SecondHops, hop_sources
from models.retrieval.negative_feedback import NO_NEGATIVE_FEEDBACK, NegativeFeedback
from models.retrieval.profile import UserProfile, profile_of
from models.retrieval.signals import N_SIGNALS, PROFILE_ITEMS
from models.retrieval.similar_items import with_similar_factors
from models.retrieval.similar_texts import joined
from models.retrieval.user_neighbours import nearest_users, neighbour_items
from models.serving.cached.cache import StateCache
from models.serving.cached.shared_state import SharedState
from models.state.histories import NO_HISTORY, History

MIN_FACTOR_ITEMS = 5
"""Distinct items of a profile from which on factors count: of fewer, pairs say as much."""

MAX_TEXTS = 5
"""Recent items whose texts count."""


class RequestSnapshot(msgspec.Struct, frozen=True):
    """Everything that was read for one request, at one moment; `candidates` follow from it.

    Attributes
    ----------
    now_s
        The present, Unix seconds.
    shared
        State that all requests share; the time of scores is its `clock_s`.
    history, profile
        The user's events, and their profile with an item that is being looked at as the newest.
    objective
        What the ranker optimises.
    context
        Counts of the context values that the request names.
    barred, purchased
        Items that are no candidates; those among them that the user bought.
    feedback
        What the user has shown no interest in.
    max_results
        Most items that the answer needs; None where all candidates are ranked.
    reads_user_knn
        Whether user k-NN evidence is read.
    uses_texts
        Whether similar texts count.
    evidence
        What the candidate sources found.
    """

    now_s: float
    shared: SharedState
    history: History
    profile: UserProfile
    objective: Objective = "interactions"
    context: ContextValues = NO_CONTEXT_VALUES
    barred: Indexes = NO_ITEMS
    purchased: Indexes = NO_ITEMS
    feedback: NegativeFeedback = NO_NEGATIVE_FEEDBACK
    max_results: int | None = None
    reads_user_knn: bool = False
    uses_texts: bool = True
    evidence: Evidence = NO_EVIDENCE

    def candidates(self) -> Candidates:
        """Candidates that the evidence gives, without hidden items."""
        found = retrieve(self.profile, self.evidence, self.shared.clock_s, self.barred)
        return self.shared.shown_candidates(found)

    def similar_candidates(self) -> Candidates:
        """Candidates for a list of items similar to the profile's newest one, which is barred."""
        item = self.profile.last_item
        found = with_similar_factors(self.candidates(), item, self.shared.factors)
        return self.shared.shown_candidates(found)

    def candidates_among(self, items: Indexes) -> Candidates:
        """The given items as candidates, in their order, with the signals of the evidence."""
        return signals_of(items, self.profile, self.evidence, self.shared.clock_s)


class CandidateSource(Protocol):
    """One way of generating candidates, reading what it needs through the group's state cache.

    Implement it and add the class to `SOURCES`: there is one object of it for each group in a
    process, made with the group's `StateCache`.

    When called: `read` runs once for each request for recommendations, sources in the order of
    `SOURCES`, each with the evidence of those before; and for each training example, so that the
    ranker learns on the candidates that it will rank. Sources with signals are also read where a
    given list is ranked and for similar items. Requests overlap on one event loop, so `read` awaits
    all I/O, and keeps no state of a request in the object.

    Cost: sources run one after the other, so a read of Redis adds its round trip to the latency;
    take `StateCache`, which answers most reads from memory. A request takes some 250 µs of CPU; a
    listed item adds about 0.2 µs for its features and score.
    """

    @property
    def has_signals(self) -> bool:
        """True for evidence with signals; False for listed and own items only."""

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:
        """Add this source's evidence to that of the sources before it.

        Parameters
        ----------
        snapshot
            The request, without evidence yet. It shares its arrays with other requests: they must
            not be changed.
        evidence
            Of the sources before this one, frozen. Return `msgspec.structs.replace(evidence, ...)`
            with new arrays.

        Returns
        -------
        Evidence
            Listed items as ``(n,)`` int64 indexes, see `StateCache` and `Store.item_indexes`, in
            any order: an item that several sources list is one candidate, and ties of scores are
            broken by item id, not by source. Barred items are removed later. The evidence as it
            was, if there is nothing to add.

        Raises
        ------
        redis.exceptions.RedisError
            The store is away; the request is then answered from cache. No other error is caught.
        """


class CoVisitation:
    """Candidates co-visited with the newest items of the profile: their stored neighbour lists.

    It reads the recent items' owners along, where user k-NN needs them.
    """

    has_signals: ClassVar[bool] = True

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:
        """Add the neighbour lists of the profile's items, see `CandidateSource.read`."""
        recent = snapshot.profile.recent.tolist()
        known = snapshot.profile.items[:PROFILE_ITEMS].tolist()
        if not snapshot.reads_user_knn:
            lists = await self._cache.neighbours(known, snapshot.now_s)
            return _with_neighbours(evidence, lists, len(recent))
        # In the same round trip, for the source after this one.
        store = self._cache.store
        reading = store.shared_values([store.key(f"takers:{item}") for item in recent])
        try:
            lists = await self._cache.neighbours(known, snapshot.now_s)
        except BaseException:
            reading.cancel()
            raise
        owners = [raw or b"" for raw in await reading]
        evidence = msgspec.structs.replace(evidence, recent_owners=owners)
        return _with_neighbours(evidence, lists, len(recent))


def _with_neighbours(evidence: Evidence, lists: Sequence[bytes], n_recent: int) -> Evidence:
    return msgspec.structs.replace(
        evidence, neighbour_lists=lists[:n_recent], older_lists=lists[n_recent:]
    )


class UserKnn:
    """Candidates from the histories that share most items with the user's; two reads."""

    has_signals: ClassVar[bool] = True

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:
        """Add the items of the nearest users, see `CandidateSource.read`."""
        if not snapshot.reads_user_knn:
            return evidence
        store = self._cache.store
        numbers, weights = nearest_users(evidence.recent_owners, snapshot.history.numbers)
        owner_keys = await self._cache.owner_keys(numbers.tolist())
        histories = await store.shared_values(
            [store.key(f"history:{owner}") for owner in owner_keys]
        )
        return msgspec.structs.replace(evidence, user_knn=neighbour_items(histories, weights))


class SecondHop:
    """Candidates of second-order co-visitation, where there are few of first order."""

    has_signals: ClassVar[bool] = True

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:
        """Add the neighbour lists of the most co-visited items, see `CandidateSource.read`."""
        items, weights = hop_sources(evidence.neighbour_lists, snapshot.shared.clock_s)
        if not len(items):
            return evidence
        lists = await self._cache.neighbours(items.tolist(), snapshot.now_s)
        return msgspec.structs.replace(evidence, second_hops=SecondHops(items, weights, lists))


class SimilarTexts:
    """New items with texts like those of the user's last ones; two reads for lists not yet held."""

    has_signals: ClassVar[bool] = True

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:
        """Add the items with similar texts, see `CandidateSource.read`."""
        if not snapshot.uses_texts:
            return evidence
        recent = snapshot.profile.recent[:MAX_TEXTS]
        lists = await self._cache.similar_texts.of(recent, snapshot.now_s)
        if not lists:
            return evidence
        return msgspec.structs.replace(evidence, similar_texts=joined(lists))


class Factors:
    """Items whose factors go with those of the user's items; it reads nothing of its own."""

    has_signals: ClassVar[bool] = True

    def __init__(self, cache: StateCache) -> None:
        pass

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:
        """Add the items' factors, see `CandidateSource.read`."""
        if len(snapshot.profile.items) < MIN_FACTOR_ITEMS:
            return evidence
        return msgspec.structs.replace(evidence, factors=snapshot.shared.factors)


class OwnItems:
    """The items of the user's history as candidates."""

    has_signals: ClassVar[bool] = False

    def __init__(self, cache: StateCache) -> None:
        pass

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:
        """Add the items of the history, see `CandidateSource.read`."""
        return msgspec.structs.replace(evidence, own_items=snapshot.profile.items)


class ContextItems:
    """The most frequent items under the context values of the request."""

    has_signals: ClassVar[bool] = False

    def __init__(self, cache: StateCache) -> None:
        pass

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:
        """List the frequent items of the context, see `CandidateSource.read`."""
        if not snapshot.context.values:
            return evidence
        return with_listed(evidence, snapshot.context.frequent_items)


class PreRanked(NamedTuple):
    """Top-list candidates of a shared state, by id, with their features for an empty profile."""

    shared: SharedState
    items: Indexes
    matrix: Floats


class TopLists:
    """Candidates from the top lists; only the best of them where the answer needs only a few.

    Top-list candidates without other evidence have the same features for all requests with equal
    `request_steps`, so their order among themselves is ranked once for each pair of steps. Only the
    first of that order can be in an answer.
    """

    has_signals: ClassVar[bool] = False

    def __init__(self, cache: StateCache) -> None:
        self._cache = cache
        self._pre_ranked: PreRanked | None = None
        self._orders: dict[tuple[Objective, tuple[float, float]], Indexes] = {}

    async def read(self, snapshot: RequestSnapshot, evidence: Evidence) -> Evidence:
        """List the top-list candidates, see `CandidateSource.read`."""
        if snapshot.max_results is None or len(evidence.listed_items):
            # Before items that others list: these must not compete for `max_unseen` places.
            listed = np.concatenate([snapshot.shared.top_candidates, evidence.listed_items])
            return msgspec.structs.replace(evidence, listed_items=listed)
        return msgspec.structs.replace(
            evidence,
            listed_items=await self._ranked_candidates(snapshot),
            max_unseen=snapshot.max_results,
        )

    async def _ranked_candidates(self, snapshot: RequestSnapshot) -> Indexes:
        """``(n,)`` distinct items, best first, ties by id."""
        shared, objective = snapshot.shared, snapshot.objective
        pre_ranked = self._pre_ranked
        if pre_ranked is None or pre_ranked.shared is not shared:
            pre_ranked = self._pre_ranked = await self._read_features(shared, snapshot.now_s)
            self._orders = {}
        steps = request_steps(snapshot.profile, shared.clock_s)
        order = self._orders.get((objective, steps))
        if order is None:
            matrix = with_request_steps(pre_ranked.matrix, steps)
            scores = shared.built_in(objective).scores(matrix)
            order = pre_ranked.items[np.argsort(-scores, kind="stable")]
            self._orders[objective, steps] = order
        return order

    async def _read_features(self, shared: SharedState, now_s: float) -> PreRanked:
        items = np.unique(shared.top_candidates)
        item_ids = await self._cache.item_ids.of(items.tolist())
        items = items[sorted(range(len(items)), key=lambda at: item_ids[at] or "")]
        stats = await self._cache.stats(items, now_s)
        candidates = Candidates(items, np.zeros((len(items), N_SIGNALS)))
        profile = profile_of(NO_HISTORY, shared.strong_types)
        matrix = features_of(candidates, profile, stats, shared.max_log_popularity, shared.clock_s)
        return PreRanked(shared, items, matrix)


SOURCES: list[Callable[[StateCache], CandidateSource]] = [
    CoVisitation,
    UserKnn,
    SecondHop,
    SimilarTexts,
    Factors,
    OwnItems,
    ContextItems,
    TopLists,
]
"""Candidate sources in the order in which they are read. A line here, before `TopLists`, registers
one."""

CHANGED_BY_OWN_EVENTS: tuple[Callable[[StateCache], CandidateSource], ...] = (CoVisitation,)
"""The first of `SOURCES` that read what an event of the same user changes: of what was there before
it, nothing is left once it has taken effect."""


def with_listed(evidence: Evidence, items: Indexes) -> Evidence:
    """The evidence with more listed items, after those that it has."""
    listed = np.concatenate([evidence.listed_items, items])
    return msgspec.structs.replace(evidence, listed_items=listed)
