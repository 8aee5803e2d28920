"""What a recommendation is computed from, read at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.arrays import NO_ITEMS, Floats, Indexes
from models.ranking.examples import Example, make_example
from models.ranking.features import features_of, steps_of
from models.ranking.ranker import Objective, Ranker
from models.retrieval.candidates import NO_CANDIDATES, Candidates, retrieve
from models.retrieval.profile import UserProfile, profile_of
from models.retrieval.second_hop import NO_SECOND_HOPS, SecondHops, hop_sources
from models.retrieval.user_neighbours import (
    NO_NEIGHBOURS,
    NeighbourItems,
    nearest_users,
    neighbour_items,
)
from models.serving.cache import SharedState, StateCache
from models.serving.top_list_order import TopListOrder
from models.state.histories import History, merge_histories, unpack_history
from models.state.store import Store


@dataclass
class RequestSnapshot:
    """Everything one recommendation is computed from, read at one moment."""

    history: History
    context: UserProfile
    lists: list[bytes]
    overview: SharedState
    others: NeighbourItems = NO_NEIGHBOURS
    hops: SecondHops = NO_SECOND_HOPS
    candidates: Candidates = NO_CANDIDATES


class Snapshots:
    """Reads situations from the store, through the catalogue of its group."""

    def __init__(self, store: Store, catalogue: StateCache) -> None:
        self._store = store
        self._catalogue = catalogue
        self._unseen = TopListOrder(catalogue)

    async def history(
        self, user_id: str | None, session_id: str | None, *, now_s: float
    ) -> History:
        """A user's events, with those of a session that has not joined the user yet."""
        keys = []
        if user_id is None and session_id is not None:
            user_id = await self._store.linked_user(session_id, now_s=now_s)
        if user_id is not None:
            keys += [f"history:u:{user_id}", f"history:s:{user_id}"]
        if session_id is not None and session_id != user_id:
            keys.append(f"history:s:{session_id}")
        merged = unpack_history(None)
        for raw in await self._store.values([self._store.key(key) for key in keys]):
            if raw:
                merged = merge_histories(merged, unpack_history(raw))
        return merged

    async def of(
        self,
        user_id: str | None,
        session_id: str | None,
        item_id: str | None = None,
        *,
        now_s: float,
        exclude_purchased: bool = False,
        barred: Indexes | None = None,
        more: History | None = None,
        learning: bool = False,
        objective: Objective = "interactions",
        added: Indexes = NO_ITEMS,
        k: int | None = None,
    ) -> RequestSnapshot:
        """What is known at this moment of a user, and the candidates that follow from it.

        `barred` items are none of them; that is the last one looked at, if not given. `more` events
        of the user count that the store does not have. `added` items are candidates, too. For
        `learning`, everything is looked at, also what does not pay to look at in serving. Where
        only the best `k` are wanted, heads that cannot be among them are left out.
        """
        overview = await self._catalogue.refresh(now_s)
        history = await self.history(user_id, session_id, now_s=now_s)
        if more is not None:
            history = merge_histories(history, more)
        if exclude_purchased:
            overview = await self._catalogue.knowing(history.types, now_s)
        looking_at = 0
        if item_id is not None:
            looking_at = (await self._store.item_indexes([item_id]))[0]
        everything = learning or overview.serving[objective] == "ranker"
        situation = await self.around(
            history, overview, now_s, looking_at=looking_at, everything=everything
        )
        if barred is None:
            barred = situation.context.recent[:1]
        if exclude_purchased:
            bought = history.items[overview.purchases[history.types]]
            barred = np.concatenate([barred, bought])
        heads, most_unseen = overview.heads, None
        if len(added):
            heads = np.concatenate([heads, added])
        elif k is not None:
            steps = steps_of(situation.context, overview.clock_s)
            heads, most_unseen = await self._unseen.order(overview, objective, steps, now_s), k
        situation.candidates = retrieve(
            situation.context,
            situation.lists,
            heads,
            overview.clock_s,
            barred,
            situation.others,
            situation.hops,
            most_unseen,
        )
        return situation

    async def around(
        self,
        history: History,
        overview: SharedState,
        now_s: float,
        *,
        looking_at: int = 0,
        everything: bool = False,
    ) -> RequestSnapshot:
        """What a history says, without candidates yet.

        `looking_at`: the index of an item that counts as its newest; `everything`: those alike too.
        """
        context = self._context(history, overview, looking_at=looking_at)
        recent = context.recent.tolist()
        lists = await self._catalogue.neighbours(recent, now_s)
        others = await self._alike(recent, history.numbers) if everything else NO_NEIGHBOURS
        hops, (items, weights) = NO_SECOND_HOPS, hop_sources(lists, overview.clock_s)
        if len(items):
            further = await self._catalogue.neighbours(items.tolist(), now_s)
            hops = SecondHops(items, weights, further)
        return RequestSnapshot(history, context, lists, overview, others, hops)

    async def _alike(self, recent: Sequence[int], own: Sequence[int]) -> NeighbourItems:
        """What those hold who had several of these items; three reads."""
        store = self._store
        takers = await store.values([store.key(f"takers:{item}") for item in recent])
        numbers, weights = nearest_users([raw or b"" for raw in takers], own)
        names = await self._catalogue.owner_keys(numbers.tolist())
        keys = [store.key(f"history:{name}") for name in names]
        return neighbour_items(await store.values(keys), weights)

    def _context(
        self, history: History, overview: SharedState, *, looking_at: int = 0
    ) -> UserProfile:
        """The context of a history, with an item being looked at as its newest."""
        if looking_at:
            history = History(
                history.count,
                history.accepted_at,
                np.append(history.items, looking_at),
                np.append(history.times, int(overview.clock_s)),
                np.append(history.types, np.uint8(0)),
                history.numbers,
            )
        return profile_of(history, overview.strong)

    async def features(self, situation: RequestSnapshot, now_s: float) -> Floats:
        """The feature matrix of a situation's candidates."""
        overview = situation.overview
        stats = await self._catalogue.stats(situation.candidates.items, now_s)
        return features_of(
            situation.candidates, situation.context, stats, overview.best, overview.clock_s
        )

    async def example(
        self,
        situation: RequestSnapshot,
        item_id: str,
        rankers: Mapping[Objective, Ranker],
        rng: np.random.Generator,
        *,
        now_s: float,
    ) -> Example | None:
        """The training example that a choice gives in a situation where nothing is barred.

        None for a first event, for there is nothing to predict it from.
        """
        recent = situation.context.recent
        if not len(recent):
            return None
        chosen = (await self._store.item_indexes([item_id]))[0]
        matrix = await self.features(situation, now_s)
        return make_example(
            situation.candidates.items, matrix, chosen, rankers, rng, last=int(recent[0])
        )
