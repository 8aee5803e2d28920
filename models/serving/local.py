"""The whole recommender in one process, one event and one request at a time.

For evaluation, backfills and other programs: the Lua script, candidates, features and ranker of the
stream and the API, without Kafka, and with Redis for state.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Coroutine, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from models.arrays import NO_ITEMS, Floats, Indexes
from models.events import event_hash
from models.ranking.challenger_learner import learn_as_challengers, new_learners
from models.ranking.challengers import ChallengerRanker, Context, challenger_factories
from models.ranking.champions import Objective
from models.ranking.examples import Choice, make_example
from models.ranking.features import without_trends
from models.ranking.objectives import ObjectiveLearner, learn, load_learners, rankers_for
from models.ranking.ranker import RANKERS, ListwiseRanker
from models.retrieval.candidates import Candidates
from models.serving.answer_options import NO_OPTIONS, AnswerOptions
from models.serving.cached.cache import StateCache
from models.serving.factor_renewal import is_due, renew_factors
from models.serving.recommender import Recommender
from models.serving.sources import RequestSnapshot
from models.settings import Settings
from models.state.catalogue.metadata import put_items
from models.state.clients.blocking_client import connect_blocking
from models.state.context_columns import ContextColumns, context_values
from models.state.event_types import EventTypes
from models.state.histories import NO_HISTORY, History, merge_histories
from models.state.messages import NO_TYPES, TAKE_BACKS, Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store
from models.state.stored_factors import NEVER_LEARNED

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
        # No list is stored as served here, of which an event could be an outcome.
        settings = settings.model_copy(update={"outcomes": False})
        self.settings = settings
        self._learners = load_learners()
        self._challengers = new_learners(challenger_factories(settings.challengers))
        self._client = connect_blocking(settings.redis)
        self._store = Store(self._client, settings)
        cache = StateCache(self._store, list_sizes=list_sizes, is_told_changes=True)
        self._recommender = Recommender(self._store, cache)
        self._examples_of = examples_of
        self._rng = np.random.default_rng(seed)
        self._loop = self._client.loop()
        self._applying: asyncio.Task[Any] | None = None
        self._n_events = 0
        self._types = EventTypes.of(settings)
        self._now_s = 0.0
        self._observed: dict[str, History] = {}
        self._factors = NEVER_LEARNED

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
        options: AnswerOptions = NO_OPTIONS,
    ) -> SnapshotCandidates:
        """Snapshot of a user and the candidates, at a time, by default that of the last event.

        `barred` items are no candidates; by default the user's last one. `context` as in
        `recommend`. `options` weigh the events of the user.
        """
        self._now_s = max(self._now_s, at_s)

        async def read() -> RequestSnapshot:
            self._recommender.cache.read_ahead()
            return await self._recommender.snapshots.for_learning(
                user,
                None,
                now_s=self._now_s,
                barred=barred,
                context=context,
                unstored=self._observed.get(user, NO_HISTORY),
                options=options,
            )

        snapshot = self._complete(read())
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
        options: AnswerOptions = NO_OPTIONS,
    ) -> list[tuple[str, float]]:
        """The best items for a user and their scores, without barred items; by default the last.

        `context` has the user's values of contextual columns; see `models.state.context_columns`.
        `options` as in `Recommender.recommend`, but for what ranks beside the ranker.
        """
        indexes: Indexes | None = None
        if barred is not None:
            known = self._complete(self._store.item_indexes(list(barred)))
            indexes = np.array(known, np.int64)
        found = self.candidates(user, barred=indexes, context=context, options=options)
        matrix = self.features(found)
        if not options.follows_trends:
            matrix = without_trends(matrix)
        context_of = Context(found.candidates.items, found.snapshot.profile.last_item)
        scores = self.scores(matrix, objective, context_of)
        scores = found.snapshot.context.with_lifts(scores, found.candidates.items)
        if len(found.snapshot.feedback.items):
            lost = self._recommender.snapshots.penalties(*found)
            scores = scores - self._complete(lost)
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

    def scores(
        self,
        matrix: Floats,
        objective: Objective = "interactions",
        context: Context | None = None,
    ) -> Floats:
        """Scores by the champion of an objective; `context` of the matrix for challengers."""
        learner = self.learners[objective]
        serving = self._challengers[objective].measures.serving
        if serving:
            return self.challenger_scores(serving, matrix, context, objective)
        return RANKERS[learner.champion](learner.ranker).scores(matrix)

    def challenger_scores(
        self,
        name: str,
        matrix: Floats,
        context: Context | None = None,
        objective: Objective = "interactions",
    ) -> Floats:
        """Scores by a challenger of the settings; those of the ranker if it has failed."""
        learner = self.learners[objective]
        challenger = self._challengers[objective].of(name)
        if challenger is None:
            raise KeyError(name)
        return ChallengerRanker(challenger, learner.ranker, context).scores(matrix)

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

    def describe(self, items: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the properties of items; new ones are known from now on, by their texts."""
        self._complete(put_items(self._store, items.items(), self._now_s))

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
        number = self._n_events
        self._n_events += 1
        is_purchase, effect = self._types.is_purchase(event_type), self._types.effect(event_type)
        choice = None
        is_turn = bool(self._examples_of) and number % self._examples_of == 0
        makes_example = is_turn and not effect
        if makes_example:
            choice = await self._choice(user, item, found)
        event = StoredEvent(
            item,
            int(at_s),
            event_type,
            self._types.log2_weight(event_type),
            is_purchase,
            event_hash(str(number)),
            columns,
            effect=effect,
            types=self._types.for_withdrawals() if effect in TAKE_BACKS else NO_TYPES,
        )
        message = StoredMessage(number, user, user, shard_of(user), self._now_s, [event])
        # Before the step: statistics that are to be read in the background are read after it.
        was_asked = choice is not None or (makes_example and found is None)
        self._recommender.cache.item_changed(item, was_asked=was_asked)
        await self._apply(Part("local/0", number - 1, [message]))
        await self._renew_factors()
        if choice is not None:
            # While the server applies the step, or finds what the next event needs.
            work = functools.partial(self._learn_choice, choice, is_purchase=is_purchase)
            self._client.reads.postpone(work)

    def _learn_choice(self, choice: Choice, *, is_purchase: bool) -> None:
        rankers = {name: learner.ranker for name, learner in self._learners.items()}
        wanted = rankers_for(rankers, is_purchase=is_purchase)
        has_challengers = bool(self.settings.challengers)
        example = make_example(choice, wanted, self._rng, for_challengers=has_challengers)
        champions = {name: learner.champion for name, learner in self._learners.items()}
        learn_as_challengers(self._challengers, example, champions)
        learn(self._learners, example)

    async def _renew_factors(self) -> None:
        """Learn the items' factors where a worker would."""
        most = self.settings.factor_events
        if most and is_due(self._n_events, self._factors, now_s=self._now_s):
            self._factors = await renew_factors(
                self._store, self._n_events, most_events=most, now_s=self._now_s
            )

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
            cache.read_ahead()
            reading = snapshots.for_learning(user, None, now_s=self._now_s, barred=NO_ITEMS)
            snapshot, taken = await snapshots.with_index(reading, item)
            found = SnapshotCandidates(snapshot, snapshot.candidates())
        else:
            taken = await cache.item_index(item)
        return await snapshots.choice(*found, taken)
