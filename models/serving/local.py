"""The whole recommender in one process, one event and one request at a time.

For evaluation, backfills and other programs: the Lua script, candidates, features and ranker of the
stream and the API, without Kafka, and with Redis for state.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Collection, Coroutine, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from models.arrays import NO_ITEMS, Floats, Indexes
from models.events import event_hash
from models.ranking.champions import Objective
from models.ranking.examples import Choice, make_example
from models.ranking.objectives import ObjectiveLearner, learn, load_learners, rankers_for
from models.ranking.ranker import RANKERS, ListwiseRanker
from models.retrieval.candidates import Candidates
from models.serving.cache import StateCache
from models.serving.recommender import Recommender
from models.serving.sources import RequestSnapshot
from models.settings import Settings
from models.state.blocking_client import connect_blocking
from models.state.context_columns import ContextColumns, context_values
from models.state.histories import NO_HISTORY, History, merge_histories
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store

T = TypeVar("T")


class SnapshotCandidates(NamedTuple):
    """A snapshot and the candidates that follow from it."""

    snapshot: RequestSnapshot
    candidates: Candidates


class LocalRecommender:
    """Learns from events and recommends; a context manager, since it holds a connection.

    Parameters
    ----------
    settings
        `redis` names the server, `group` the keys in it, which must be this object's alone.
    examples_of
        Train the ranker on each n-th event; 0 for never.
    list_sizes
        Items to read of each top list; None for all. `TOP_LIST_SIZES` are enough for all but
        `run`, and take a fraction of the time.

    Examples
    --------
    With the Redis server of the wheel, in a folder of its own::

        from ops.embedded_servers import start_redis

        server = start_redis(Path("state"))
        with LocalRecommender(Settings(redis=server.url)) as recommender:
            recommender.learn("ada", "tent", at_s=1_790_000_000)
            recommender.recommend("ada", k=10)
        server.stop()
    """

    def __init__(
        self,
        settings: Settings,
        *,
        examples_of: int = 1,
        seed: int = 7,
        list_sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.settings = settings
        self._learners = load_learners()
        self._client = connect_blocking(settings.redis)
        self._store = Store(self._client, settings)
        cache = StateCache(self._store, list_sizes=list_sizes)
        self._recommender = Recommender(self._store, cache)
        self._examples_of = examples_of
        self._rng = np.random.default_rng(seed)
        self._loop = self._client.loop()
        self._applying: asyncio.Task[Any] | None = None
        self._n_events = 0
        self._now_s = 0.0
        self._observed: dict[str, History] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._client.reads.run_postponed()
            if self._applying is not None:
                # After an error, that one is told.
                last = asyncio.gather(self._applying, return_exceptions=kind is not None)
                self._loop.run_until_complete(last)
        finally:
            self._loop.run_until_complete(self._recommender.cache.close())
            self._loop.run_until_complete(self._store.close())
            self._loop.close()

    def candidates(
        self,
        user: str,
        *,
        at_s: float = 0.0,
        barred: Indexes | None = None,
        context: Mapping[str, str] | None = None,
    ) -> SnapshotCandidates:
        """Snapshot of a user and the candidates, at a time, by default that of the last event.

        `barred` items are no candidates; by default the user's last one. `context` as in
        `recommend`.
        """
        self._now_s = max(self._now_s, at_s)
        snapshot = self._complete(
            self._recommender.snapshots.for_learning(
                user,
                None,
                now_s=self._now_s,
                barred=barred,
                context=context,
                unstored=self._observed.get(user, NO_HISTORY),
            )
        )
        return SnapshotCandidates(snapshot, snapshot.candidates())

    def features(self, found: SnapshotCandidates) -> Floats:
        """Feature matrix of the candidates."""
        return self._complete(self._recommender.snapshots.features(*found))

    def item_ids(self, found: SnapshotCandidates) -> list[str | None]:
        """Item ids of the candidates."""
        items = found.candidates.items.tolist()
        return self._complete(self._recommender.cache.item_ids.of(items))

    def recommend(
        self,
        user: str,
        *,
        k: int = 20,
        barred: Collection[str] | None = None,
        objective: Objective = "interactions",
        context: Mapping[str, str] | None = None,
    ) -> list[tuple[str, float]]:
        """The best items for a user and their scores, without barred items; by default the last.

        `context` has the user's values of contextual columns; see `models.state.context_columns`.
        """
        indexes: Indexes | None = None
        if barred is not None:
            known = self._complete(self._store.item_indexes(list(barred)))
            indexes = np.array(known, np.int64)
        found = self.candidates(user, barred=indexes, context=context)
        scores = self.scores(self.features(found), objective)
        scores = found.snapshot.context.with_lifts(scores, found.candidates.items)
        ranked = sorted(
            (-score, item_id)
            for item_id, score in zip(self.item_ids(found), scores.tolist(), strict=True)
            if item_id is not None
        )
        return [(item_id, -score) for score, item_id in ranked[:k]]

    def run(self, request: Callable[[Recommender, float], Coroutine[Any, Any, T]]) -> T:
        """Result of a request to the recommender itself, at the time of the last event."""

        async def after_last_step() -> T:
            # It may read over other connections.
            if self._applying is not None:
                await self._applying
            return await request(self._recommender, self._now_s)

        return self._complete(after_last_step())

    @property
    def learners(self) -> dict[Objective, ObjectiveLearner]:
        """Learner of each objective, with all events so far."""
        self._client.reads.run_postponed()
        return self._learners

    @property
    def ranker(self) -> ListwiseRanker:
        """The ranker learned from all interactions, whether it serves or not."""
        return self.learners["interactions"].ranker

    def scores(self, matrix: Floats, objective: Objective = "interactions") -> Floats:
        """Scores by the champion of an objective."""
        learner = self.learners[objective]
        return RANKERS[learner.champion](learner.ranker).scores(matrix)

    def learn(
        self,
        user: str,
        item: str,
        event_type: str = "click",
        *,
        at_s: float,
        found: SnapshotCandidates | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        """Bring one event into effect: first as a training example, then in the state.

        Parameters
        ----------
        at_s
            Time of the event, Unix seconds; also the present.
        found
            The user's candidates without barred items, if they were read since the last event.
        context
            Values of contextual columns; the group must have them, by `Tenants.name_columns`.
        """
        self._now_s = max(self._now_s, at_s)
        columns = context_values(context)
        self._complete(self._learn(user, item, event_type, at_s, found, columns))

    def observe(self, user: str, item: str, *, at_s: float) -> None:
        """Add an event to this user's history only, without learning from it.

        Kept in memory, the last `history_events` of each user; an unknown item is no evidence.
        """
        self._now_s = max(self._now_s, at_s)
        (index,) = self._complete(self._store.item_indexes([item]))
        event = History(1, 0.0, np.array([index]), np.array([int(at_s)]), np.zeros(1, np.uint8))
        known = merge_histories(self._observed.get(user, NO_HISTORY), event)
        limit = self.settings.history_events
        self._observed[user] = History(
            known.count, 0.0, known.items[-limit:], known.times[-limit:], known.types[-limit:]
        )

    def _complete(self, request: Coroutine[Any, Any, T]) -> T:
        """Result of a request, and of the reads that it began: equal events give equal answers."""

        async def settled() -> T:
            result = await request
            await self._recommender.cache.settle()
            return result

        return self._loop.run_until_complete(settled())

    async def _learn(
        self,
        user: str,
        item: str,
        event_type: str,
        at_s: float,
        found: SnapshotCandidates | None,
        columns: ContextColumns,
    ) -> None:
        number, kind = self._n_events, event_type.lower()
        self._n_events += 1
        is_purchase = kind in self.settings.purchase_types
        choice = None
        if self._examples_of and number % self._examples_of == 0:
            choice = await self._choice(user, item, found)
        event = StoredEvent(
            item,
            int(at_s),
            event_type,
            math.log2(self.settings.event_weights.get(kind, 1.0)),
            is_purchase,
            event_hash(str(number)),
            columns,
        )
        message = StoredMessage(number, user, user, shard_of(user), self._now_s, [event])
        await self._apply(Part("local/0", number - 1, [message]))
        if choice is not None:
            # While the server applies the step, or finds what the next event needs.
            work = functools.partial(self._learn_choice, choice, is_purchase=is_purchase)
            self._client.reads.postpone(work)

    def _learn_choice(self, choice: Choice, *, is_purchase: bool) -> None:
        rankers = {name: learner.ranker for name, learner in self._learners.items()}
        wanted = rankers_for(rankers, is_purchase=is_purchase)
        learn(self._learners, make_example(choice, wanted, self._rng))

    async def _apply(self, part: Part) -> None:
        """Begin a step; all later reads see it, since they go over the same connection behind it.

        The first one is waited for: it may have to load the script.
        """
        before = self._applying
        self._applying = asyncio.create_task(self._store.apply([part], now_s=self._now_s))
        if before is None:
            await self._applying
        else:
            await before
            # Sent now: the server works on it during what follows here.
            await asyncio.sleep(0)
            self._client.reads.flush()

    async def _choice(
        self, user: str, item: str, found: SnapshotCandidates | None
    ) -> Choice | None:
        snapshots, cache = self._recommender.snapshots, self._recommender.cache
        if found is None:
            # The index of the item is read along.
            index = cache.item_index(item)
            snapshot, _ = await asyncio.gather(
                snapshots.for_learning(user, None, now_s=self._now_s, barred=NO_ITEMS), index
            )
            found = SnapshotCandidates(snapshot, snapshot.candidates())
        return await snapshots.choice(*found, item)
