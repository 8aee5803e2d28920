"""Exploration: new items, and those the ranker is unsure of, in drawn slots of an answer."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.arrays import NO_ITEMS, Floats, Indexes
from models.ranking.explanations import Reason
from models.ranking.explored_lists import (
    MAX_POOL,
    Exploration,
    exploration_rate,
    explore,
    joined_pool,
)
from models.ranking.features import without_user_knn
from models.ranking.ranker import ListwiseRanker, Ranker, WithoutUserKnn
from models.ranking.uncertainty import DrawnHeads, drawn_heads, rows_of, votes
from models.retrieval.candidates import Candidates
from models.serving.answer_options import MAX_EXPLORED_AGE_S, NO_OPTIONS, AnswerOptions
from models.serving.answers import Recommendation
from models.serving.cached.cache import StateCache
from models.serving.cached.shared_state import SharedState
from models.serving.chosen_items import RankedItem
from models.serving.sources import RequestSnapshot
from models.state.catalogue.metadata import creation_times
from models.state.histories import item_indexes

MAX_EVENTS = 20
"""Events up to which an item counts as new."""

MAX_UNSEEN = 100
"""Items without events that are explored: those created last."""

DRAWN_ORDERS = 16
"""Orders of new items that are sampled at a time."""

FALL = 1 / 8
"""Weight of a place of an order relative to that of the place before: mostly the first is shown."""

NEAR = 16
"""Candidates just behind a list, among which drawn rankers choose."""


class ScoredCandidates(NamedTuple):
    """Candidates of a request, and what orders them.

    Attributes
    ----------
    matrix
        ``(n, f)`` features of the candidates.
    scores
        ``(n,)`` scores of the candidates: the ranker's, with what changes them for this request.
    ranker
        The ranker that serves.
    """

    candidates: Candidates
    matrix: Floats
    scores: Floats
    ranker: Ranker


class ExplorationPools:
    """Items that lists explore among, sampled once for each renewal of the shared state.

    Sampling costs as much as ranking the candidates. What was sampled knows nothing of a request,
    so the draw of its list has the probabilities that the weights say.
    """

    def __init__(self, cache: StateCache, rng: np.random.Generator) -> None:
        self._cache = cache
        self._rng = rng
        self._shared: SharedState | None = None
        self._items: list[tuple[int, str, float, float]] = []
        # The age that was asked for last, and what `weights` gave for it.
        self._young: tuple[float, list[tuple[int, str, float]]] | None = None
        self._created: dict[int, float] = {}
        self._heads: tuple[ListwiseRanker, DrawnHeads] | None = None

    async def of_list(
        self,
        items: Sequence[Recommendation],
        behind: Sequence[RankedItem],
        snapshot: RequestSnapshot,
        scored: ScoredCandidates,
        n: int,
        options: AnswerOptions,
    ) -> list[dict[str, float]]:
        """Items that a list of ranked items explores among, n of them on average.

        New items and, unless the options ask for those alone, what the ranker is unsure of among
        the candidates just behind the list.
        """
        pools = [await self.new_items(items, snapshot, max(n, MAX_POOL), options)]
        if options.exploration_share is None:
            pools.append(self.uncertain(behind, scored))
        if self._cache.as_of(snapshot.now_s).has_variants:
            names = [item.item_id for item in items]
            drawable = [*dict.fromkeys(name for pool in pools for name in pool)]
            among = frozenset(await self._cache.shown_once(drawable, snapshot.now_s, beside=names))
            pools = [{name: one for name, one in pool.items() if name in among} for pool in pools]
        return pools

    async def new_items(
        self,
        items: Sequence[Recommendation],
        snapshot: RequestSnapshot,
        n: int,
        options: AnswerOptions = NO_OPTIONS,
    ) -> dict[str, float]:
        """Weights of new items beside those of a list and of the user's history, likeliest first.

        The weight is how early Thompson sampling would have an item shown.
        """
        out = {item.item_id for item in items}
        own = _own_items(snapshot)
        weights = await self.weights(snapshot.now_s, options.max_explored_age_s)
        found: dict[str, float] = {}
        for index, item_id, weight in weights:
            if index not in own and item_id not in out:
                found[item_id] = weight
                if len(found) == n:
                    break
        return found

    async def weights(
        self, now_s: float, max_age_s: float = MAX_EXPLORED_AGE_S
    ) -> list[tuple[int, str, float]]:
        """Index, id and weight of every new item up to this age, the likeliest first."""
        shared = self._cache.shared
        if shared is not self._shared:
            # Set before sampling: other requests meanwhile use what was sampled before.
            self._shared = shared
            await self._sample(shared, now_s)
        if self._young is None or self._young[0] != max_age_s:
            young = [
                (index, item_id, weight)
                for index, item_id, age_s, weight in self._items
                if age_s < max_age_s
            ]
            self._young = max_age_s, young
        return self._young[1]

    def uncertain(self, behind: Sequence[RankedItem], scored: ScoredCandidates) -> dict[str, float]:
        """Votes of rankers drawn from the learned one's posterior on the candidates behind a list.

        Each votes for the one that it has first; none where another order is served.
        """
        candidates, matrix, scores, ranker = scored
        learned = ranker.ranker if isinstance(ranker, WithoutUserKnn) else ranker
        if not isinstance(learned, ListwiseRanker) or not behind:
            return {}
        indexes = np.array([index for index, *_ in behind], np.int64)
        rows, of_rows = rows_of(candidates.items, matrix, scores, indexes)
        if learned is not ranker:
            rows = without_user_knn(rows)
        if self._heads is None or self._heads[0] is not learned:
            self._heads = learned, drawn_heads(learned, self._rng)
        counts = votes(self._heads[1], rows, of_rows).tolist()
        return {
            name: float(count) for (_, name, _), count in zip(behind, counts, strict=True) if count
        }

    async def _sample(self, shared: SharedState, now_s: float) -> None:
        new = shared.top_lists["new"]
        stats = await self._cache.stats(new, now_s)
        is_new = stats["events"] < MAX_EVENTS
        unseen = await self._unseen(shared, now_s)
        items = [*new[is_new].tolist(), *unseen]
        events = np.append(stats["events"][is_new], np.zeros(len(unseen))).astype(np.float64)
        created = [*stats["first"][is_new].tolist(), *unseen.values()]
        shown = np.array([shared.trial_counts.get(item, 0) for item in items], np.float64)
        item_ids = await self._cache.item_ids.of(items)
        weights = np.zeros(len(items))
        for _ in range(DRAWN_ORDERS):
            order = self._alternating(events, shown, len(unseen))
            weights[order] += FALL ** np.arange(len(order))
        ages = [max(0.0, shared.clock_s - at_s) for at_s in created]
        self._items = [
            (items[place], item_id, ages[place], float(weights[place]))
            for place in np.argsort(-weights, kind="stable").tolist()
            if (item_id := item_ids[place]) is not None
        ]
        self._young = None

    def _alternating(self, events: Floats, shown: Floats, n_unseen: int) -> list[int]:
        """An order of all items in which those without events, the last ones, take turns.

        Sampled together they would hardly come up before items that have been taken already.
        """
        n_seen = len(events) - n_unseen
        parts = [
            thompson_order(events[:n_seen], shown[:n_seen], n_seen, self._rng),
            n_seen + thompson_order(events[n_seen:], shown[n_seen:], n_unseen, self._rng),
        ]
        self._rng.shuffle(parts)
        pairs = itertools.zip_longest(*(part.tolist() for part in parts))
        return [place for pair in pairs for place in pair if place is not None]

    async def _unseen(self, shared: SharedState, now_s: float) -> dict[int, float]:
        """Creation times of the newest items that have metadata and no event."""
        fresh = shared.top_lists.get("fresh", NO_ITEMS)[:MAX_UNSEEN]
        stats = await self._cache.stats(fresh, now_s)
        unseen = fresh[stats["events"] == 0].tolist()
        if unseen != [*self._created]:
            self._created = await creation_times(self._cache.store, unseen)
        return self._created


def _own_items(snapshot: RequestSnapshot) -> list[int]:
    """Items of the user's events, negative ones included."""
    has_negative = snapshot.profile.n_negative > 0
    own = item_indexes(snapshot.history) if has_negative else snapshot.profile.items
    return [*own.tolist()]


def thompson_order(events: Floats, shown: Floats, n: int, rng: np.random.Generator) -> Indexes:
    """Places of n items to show, by Thompson sampling of the rate at which a shown item is taken.

    An item that was never shown has an uncertain rate and comes up soon; one that was shown without
    events is sampled ever less (Chapelle and Li 2011, "An empirical evaluation of Thompson
    sampling").

    Parameters
    ----------
    events, shown
        ``(m,)`` events of each item, and how often it was shown for exploration.
    """
    rates = rng.beta(1.0 + events, 1.0 + np.maximum(shown - events, 0.0))
    return np.argsort(-rates, kind="stable")[:n]


def with_explored(
    items: Sequence[Recommendation],
    pools: Sequence[Mapping[str, float]],
    share: float,
    rng: random.Random,
) -> tuple[list[Recommendation], Exploration | None]:
    """The items with others, of pools, in a share of the places on average, in the second half.

    What is explored replaces the item of its slot. None where nothing can be.
    """
    n, pool = int(share * len(items)), joined_pool(pools, max(MAX_POOL, len(items) // 2))
    if not n or not pool:
        return [*items], None
    rate = exploration_rate(len(items), n)
    found = explore([item.item_id for item in items], pool, rate, rng)
    reasons, shown = (Reason("exploration"),), [*items]
    for place, slot in enumerate(found.slots, len(items) - len(found.slots)):
        if slot.replaced is not None:
            shown[place] = Recommendation(slot.item_id, 0.0, reasons, is_exploration=True)
    return shown, found
