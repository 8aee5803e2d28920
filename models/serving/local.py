"""The whole recommender in one process, one event and one question at a time.

For evaluation, backfills and harnesses of others: the same script, retrieval, features and ranker
as in the stream and the API, without Kafka, and with Redis for state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import uvloop

from models.arrays import NO_ITEMS, Floats, Indexes
from models.events import event_hash
from models.ranking.features import without_alike
from models.ranking.objectives import applicable, learn, load_learners
from models.ranking.ranker import BASELINE, Objective, Ranker
from models.serving.recommender import Recommender
from models.serving.snapshots import RequestSnapshot
from models.settings import Settings
from models.state.client import connect
from models.state.context_columns import ContextColumns, context_values
from models.state.histories import NO_HISTORY, History, merge_histories
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.store import Store

T = TypeVar("T")


class LocalRecommender:
    """Learns from events and recommends; a context manager, for it holds a connection.

    Parameters
    ----------
    settings
        `redis` names the server, `group` the keys in it, which must be this object's alone.
    examples_of
        Learn the ranking from each n-th choice; 0 for never.

    Examples
    --------
    With a Redis server out of the wheel, in a folder of its own::

        from ops.embedded_servers import start_redis

        server = start_redis(Path("state"))
        with Local(Settings(redis=server.url)) as recommender:
            recommender.learn("ada", "tent", at_s=1_790_000_000)
            recommender.recommend("ada", k=10)
        server.stop()
    """

    def __init__(self, settings: Settings, *, examples_of: int = 1, seed: int = 7) -> None:
        self.settings = settings
        self.courses = load_learners()
        self._store = Store(connect(settings.redis), settings)
        self._recommender = Recommender(self._store)
        self._examples_of = examples_of
        self._rng = np.random.default_rng(seed)
        self._loop = uvloop.new_event_loop()
        self._n_events = 0
        self._now_s = 0.0
        self._followed: dict[str, History] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.run_until_complete(self._recommender.catalogue.close())
        self._loop.run_until_complete(self._store.close())
        self._loop.close()

    def situation(
        self,
        user: str,
        *,
        at_s: float = 0.0,
        barred: Indexes | None = None,
        added: Indexes = NO_ITEMS,
    ) -> RequestSnapshot:
        """What is known of a user at a time, now if not given, and the candidates that follow.

        `barred` items are none of them; that is the user's last one, if not given. `added`
        ones are, beside those that are found.
        """
        self._now_s = max(self._now_s, at_s)
        return self._loop.run_until_complete(
            self._recommender.situations.of(
                user,
                None,
                now_s=self._now_s,
                barred=barred,
                more=self._followed.get(user),
                learning=True,
                added=added,
            )
        )

    def features(self, situation: RequestSnapshot) -> Floats:
        """The feature matrix of a situation's candidates."""
        return self._loop.run_until_complete(
            self._recommender.situations.features(situation, self._now_s)
        )

    def names(self, situation: RequestSnapshot) -> list[str | None]:
        """Item ids of a situation's candidates."""
        items = situation.candidates.items.tolist()
        return self._loop.run_until_complete(self._recommender.catalogue.names.of(items))

    def recommend(
        self,
        user: str,
        *,
        k: int = 20,
        barred: Collection[str] | None = None,
        objective: Objective = "interactions",
        circumstances: Mapping[str, str] | None = None,
    ) -> list[tuple[str, float]]:
        """The best items for a user and their scores; without barred ones, or without the last.

        `circumstances` are the user's now; see `models.state.context_columns`.
        """
        out: Indexes | None = None
        if barred is not None:
            known = self._loop.run_until_complete(self._store.item_indexes(list(barred)))
            out = np.array(known, np.int64)
        met = self.ask(lambda recommender, s: recommender.catalogue.circumstances(circumstances, s))
        situation = self.situation(user, barred=out, added=met.best)
        scores = self.scores(self.features(situation), objective)
        scores = met.lifted(scores, situation.candidates.items)
        ranked = sorted(
            (-score, name)
            for name, score in zip(self.names(situation), scores.tolist(), strict=True)
            if name is not None
        )
        return [(name, -score) for score, name in ranked[:k]]

    def ask(self, question: Callable[[Recommender, float], Coroutine[Any, Any, T]]) -> T:
        """What the recommender itself answers to a question, at the time of the last event."""
        return self._loop.run_until_complete(question(self._recommender, self._now_s))

    @property
    def ranker(self) -> Ranker:
        """The order learned of all choices, whether it is served or not."""
        return self.courses["interactions"].ranker

    def scores(self, matrix: Floats, objective: Objective = "interactions") -> Floats:
        """The order that would be served now: the ranker's, or the blend's while it is behind."""
        course = self.courses[objective]
        serving = course.serving
        if serving == "blend":
            return BASELINE.scores(matrix)
        return course.ranker.scores(matrix if serving == "ranker" else without_alike(matrix))

    def learn(
        self,
        user: str,
        item: str,
        event_type: str = "click",
        *,
        at_s: float,
        situation: RequestSnapshot | None = None,
        circumstances: Mapping[str, str] | None = None,
    ) -> None:
        """Bring one event into effect: first as a choice to learn from, then in the state.

        Parameters
        ----------
        at_s
            Time of the event, Unix seconds; it is the present, too.
        situation
            The user's with nothing barred, if it was asked for since the last event.
        circumstances
            Values of contextual columns; the group must have them, by `Tenants.name_columns`.
        """
        self._now_s = max(self._now_s, at_s)
        said = context_values(circumstances)
        self._loop.run_until_complete(self._learn(user, item, event_type, at_s, situation, said))

    def follow(self, user: str, item: str, *, at_s: float) -> None:
        """Take an event into this user's context only; nobody else learns from it.

        Kept in memory, the last `history_events` of each user; an item not known yet says nothing.
        """
        self._now_s = max(self._now_s, at_s)
        (index,) = self._loop.run_until_complete(self._store.item_indexes([item]))
        event = History(1, 0.0, np.array([index]), np.array([int(at_s)]), np.zeros(1, np.uint8))
        known = merge_histories(self._followed.get(user, NO_HISTORY), event)
        limit = self.settings.history_events
        self._followed[user] = History(
            known.count, 0.0, known.items[-limit:], known.times[-limit:], known.types[-limit:]
        )

    async def _learn(
        self,
        user: str,
        item: str,
        event_type: str,
        at_s: float,
        situation: RequestSnapshot | None,
        said: ContextColumns,
    ) -> None:
        number, kind = self._n_events, event_type.lower()
        self._n_events += 1
        if self._examples_of and number % self._examples_of == 0:
            is_purchase = kind in self.settings.purchase_types
            await self._learn_choice(user, item, situation, is_purchase=is_purchase)
        event = StoredEvent(
            item,
            int(at_s),
            event_type,
            math.log2(self.settings.event_weights.get(kind, 1.0)),
            kind in self.settings.purchase_types,
            event_hash(str(number)),
            said,
        )
        message = StoredMessage(number, user, user, shard_of(user), self._now_s, [event])
        await self._store.apply([Part("local/0", number - 1, [message])], now_s=self._now_s)

    async def _learn_choice(
        self, user: str, item: str, situation: RequestSnapshot | None, *, is_purchase: bool
    ) -> None:
        recommender = self._recommender
        if situation is None:
            situation = await recommender.situations.of(
                user, None, now_s=self._now_s, barred=NO_ITEMS, learning=True
            )
        example = await recommender.situations.example(
            situation,
            item,
            applicable(
                {name: course.ranker for name, course in self.courses.items()},
                is_purchase=is_purchase,
            ),
            self._rng,
            now_s=self._now_s,
        )
        if example is not None:
            learn(self.courses, example)
