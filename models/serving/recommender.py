"""The recommender: retrieve candidates, rank them, explain them. What the API and agents hold."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from models.arrays import NO_ITEMS, Floats, Indexes
from models.metadata_records import categories_of
from models.ranking.context_lift import NO_CONTEXT_VALUES, ContextValues, popularity, rerank_by_lift
from models.ranking.diversity import CapGroup, apply_caps, insert_explored
from models.ranking.explanations import Attribution, Reason, attributions_of, contributions
from models.ranking.ranker import BASELINE, Objective, Ranker
from models.ranking.top_k import scaled_to_max, softmax, softmax_top_k, top_k, trend_scores
from models.retrieval.candidates import (
    TOPS_TAKEN,
    blend,
    retrieve,
    signals_of,
    top_list_candidates,
)
from models.retrieval.covisitation import unpack_neighbours
from models.serving.answers import Answer, Recommendation, ServingLevel, scored_by_position
from models.serving.cache import SharedState, StateCache
from models.serving.exploration import Exploration
from models.serving.snapshots import RequestSnapshot, Snapshots
from models.state import layout
from models.state.histories import History, unpack_history
from models.state.metadata import same_category
from models.state.store import Store

LISTS = {
    "hour": "trending",
    **dict.fromkeys(("day", "week", "month", "all"), "popular"),
    "recent": "recent",
    "new": "new",
}
"""Top lists as reasons name them, the most telling first."""

POPULAR = 50
"""Most popular items of the week that `popular_share` counts."""

CATEGORIES_OF = 3
"""Last items of a user whose categories count where nothing was seen together with them."""

EXPLORED = (Reason("exploration"),)
"""Why an item is there that was not ranked."""


class Recommender:
    """Answers from the store, through one catalogue; safe for many requests of one event loop."""

    def __init__(
        self, store: Store, catalogue: StateCache | None = None, *, seed: int | None = None
    ) -> None:
        self.store = store
        self.catalogue = catalogue or StateCache(store)
        self.situations = Snapshots(store, self.catalogue)
        settings = store.settings
        self._shares = {"popular": settings.popular_share, "category": settings.category_share}
        self._is_capped = min(self._shares.values()) < 1
        self._chance = random.Random(seed)
        self._trials = Exploration(self.catalogue, np.random.default_rng(seed))

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
        circumstances: Mapping[str, str] | None = None,
    ) -> Answer:
        """What this user is most likely to want next.

        Parameters
        ----------
        user_id, session_id
            Whose history counts; both, either or none. Someone unknown gets what is trending.
        item_id
            An item the user is looking at now, taken as the newest of the context.
        k
            Items wanted, 1 to `MAX_RESULTS`; fewer where fewer are known.
        now_s
            The present in Unix seconds, for the age of cached reads and of session links.
        objective
            What the order aims at; one that has not learned enough yet ranks unlearned.
        circumstances
            Values of contextual columns, by name, under which the user is now.
        """
        met = await self.catalogue.circumstances(circumstances, now_s)
        situation = await self.situations.of(
            user_id,
            session_id,
            item_id,
            now_s=now_s,
            exclude_purchased=exclude_purchased,
            objective=objective,
            added=met.best,
            k=None if reasons or self._is_capped else k,
        )
        history, overview = situation.history, situation.overview
        if not len(situation.context.recent):
            return await self._to_strangers(met, k, now_s, history=history)
        bought = history.items[overview.purchases[history.types]] if exclude_purchased else NO_ITEMS
        items = await self._same_category(situation, k, now_s, barred=bought, met=met)
        if items:
            accepted_at = history.accepted_at
            return Answer(
                items, "user-personalization", "retrieved", accepted_at, overview.accepted_at
            )
        matrix = await self.situations.features(situation, now_s)
        ranker, level = _served(overview, objective)
        scores = met.lifted(ranker.scores(matrix), situation.candidates.items)
        items = await self._best(situation, scores, k, now_s)
        if reasons:
            items = await self._explained(situation, items, matrix, ranker)
        items = await self._with_new(situation, items, now_s)
        return Answer(
            items, "user-personalization", level, history.accepted_at, overview.accepted_at
        )

    async def similar(self, item_id: str, *, k: int = 25, now_s: float) -> Answer:
        """Items seen together with this one; for an unknown item, what is trending."""
        overview = await self.catalogue.refresh(now_s)
        index = (await self.store.item_indexes([item_id]))[0]
        if not index:
            return await self.trending(k=k, now_s=now_s)
        situation = await self.situations.around(
            unpack_history(None), overview, now_s, looking_at=index
        )
        alike = await self._same_category(situation, k, now_s)
        if alike:
            return Answer(alike, "similar-items", "retrieved", 0.0, overview.accepted_at)
        heads = top_list_candidates(overview.tops, {"week": TOPS_TAKEN["week"]})
        situation.candidates = retrieve(
            situation.context,
            situation.lists,
            heads,
            overview.clock_s,
            situation.context.recent,
            hops=situation.hops,
        )
        scores = blend(situation.candidates.signals)
        items = await self._best(situation, scores, k, now_s)
        return Answer(items, "similar-items", "retrieved", 0.0, overview.accepted_at)

    async def trending(
        self,
        *,
        k: int = 25,
        now_s: float,
        history: History | None = None,
    ) -> Answer:
        """Items whose rate of events is growing most: the last hour's against the last day's."""
        overview = await self.catalogue.refresh(now_s)
        tops = [overview.tops[name] for name in ("hour", "day", "week") if name in overview.tops]
        items = np.unique(np.concatenate(tops)) if tops else np.empty(0, np.int64)
        stats = await self.catalogue.stats(items, now_s)
        scores = trend_scores(stats["log2"], overview.clock_s)
        ranked = await self._named(*top_k(items, scaled_to_max(scores), k), k)
        recommendations = [
            Recommendation(name, score, (Reason("trending"),)) for _, name, score in ranked
        ]
        if not recommendations:
            recommendations = await self._fresh(overview, k)
        accepted_at = history.accepted_at if history else 0.0
        return Answer(
            recommendations, "trending-now", "trending", accepted_at, overview.accepted_at
        )

    async def _to_strangers(
        self, met: ContextValues, k: int, now_s: float, *, history: History | None = None
    ) -> Answer:
        """What is trending or, under known circumstances, what is popular under them."""
        if not met.known:
            return await self.trending(k=k, now_s=now_s, history=history)
        overview = await self.catalogue.refresh(now_s)
        # The same items as trend: what was popular long ago is popular here only where it is best.
        tops = [overview.tops[name] for name in ("hour", "day", "week")]
        items = np.unique(np.concatenate([*tops, met.best]))
        stats = await self.catalogue.stats(items, now_s)
        week = stats["log2"][:, list(layout.POPULARITY_HALF_LIVES_S).index("week")]
        ranked = await self._named(*softmax_top_k(items, popularity(items, week, met), k), k)
        found = [Recommendation(name, score, (Reason("popular"),)) for _, name, score in ranked]
        accepted_at = history.accepted_at if history else 0.0
        return Answer(found, "popularity-count", "trending", accepted_at, overview.accepted_at)

    async def _fresh(self, overview: SharedState, k: int) -> list[Recommendation]:
        """The newest items with metadata: all that a shop has to show before its first event."""
        fresh = overview.tops.get("fresh", NO_ITEMS)[:k].tolist()
        return scored_by_position(await self.catalogue.names.of(fresh), "fresh")

    async def _same_category(
        self,
        situation: RequestSnapshot,
        k: int,
        now_s: float,
        *,
        barred: Indexes = NO_ITEMS,
        met: ContextValues = NO_CONTEXT_VALUES,
    ) -> list[Recommendation]:
        """Items of the same categories, the last one touched first, then what strangers get.

        Empty where something was seen together with the context's items, or nothing is like them.
        """
        if any(situation.lists):
            return []
        recent, out = situation.context.recent[:CATEGORIES_OF].tolist(), barred.tolist()
        found = [index for index in await same_category(self.store, recent) if index not in out]
        if not found:
            return []
        alike = scored_by_position(
            await self.catalogue.names.of(rerank_by_lift(found, met)[:k]), "category"
        )
        shown = {one.item_id for one in alike}
        shown.update(name for name in await self.catalogue.names.of([*recent, *out]) if name)
        trending = await self._to_strangers(met, k + len(shown), now_s)
        others = [one.item_id for one in trending.items if one.item_id not in shown]
        return [*alike, *scored_by_position(others, "trending", after=len(alike))][:k]

    def from_cache(self, *, k: int) -> Answer | None:
        """What was trending when the store last answered; None if it never did. Reads nothing."""
        overview = self.catalogue.overview
        if overview.read_at < 0:
            return None
        heads = [overview.tops[name] for name in ("hour", "day", "week", "all")]
        found = self.catalogue.names.known(dict.fromkeys(np.concatenate(heads).tolist()))
        items = [Recommendation(name, 1.0 / place) for place, name in enumerate(found[:k], 1)]
        return Answer(items, "trending-now", "cached", 0.0, overview.accepted_at)

    async def popular(self, *, k: int = 25, now_s: float) -> Answer:
        """Items with the most events of all time."""
        overview = await self.catalogue.refresh(now_s)
        items = overview.tops.get("all", np.empty(0, np.int64))
        stats = await self.catalogue.stats(items, now_s)
        scores = scaled_to_max(stats["events"].astype(np.float64))
        ranked = await self._named(*top_k(items, scores, k), k)
        recommendations = [
            Recommendation(name, score, (Reason("popular"),)) for _, name, score in ranked
        ]
        return Answer(recommendations, "popularity-count", "retrieved", 0.0, overview.accepted_at)

    async def rank(
        self,
        item_ids: Sequence[str],
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        now_s: float,
        objective: Objective = "interactions",
        circumstances: Mapping[str, str] | None = None,
    ) -> Answer:
        """The given items in the order this user is most likely to want them.

        Unknown items come last, with score 0; repeated ones count once. `circumstances` as in
        `recommend`.
        """
        met = await self.catalogue.circumstances(circumstances, now_s)
        overview = await self.catalogue.refresh(now_s)
        history = await self.situations.history(user_id, session_id, now_s=now_s)
        situation = await self.situations.around(
            history, overview, now_s, everything=overview.serving[objective] == "ranker"
        )
        wanted = list(dict.fromkeys(item_ids))
        indexes = np.array(await self.store.item_indexes(wanted), np.int64)
        known = np.flatnonzero(indexes > 0)
        situation.candidates = signals_of(
            indexes[known],
            situation.context,
            situation.lists,
            overview.clock_s,
            situation.others,
            situation.hops,
        )
        ranker, level = _served(overview, objective)
        scores = ranker.scores(await self.situations.features(situation, now_s))
        items, has_history = situation.candidates.items, len(situation.context.recent) > 0
        chances = softmax(met.lifted(scores, items, has_history=has_history))
        ranked = sorted(
            zip(chances.tolist(), (wanted[place] for place in known), strict=True),
            key=lambda pair: (-pair[0], pair[1]),
        )
        found = [Recommendation(name, chance) for chance, name in ranked]
        unknown = sorted(name for name, index in zip(wanted, indexes, strict=True) if not index)
        found += [Recommendation(name, 0.0) for name in unknown]
        return Answer(
            found, "personalized-ranking", level, history.accepted_at, overview.accepted_at
        )

    async def _best(
        self, situation: RequestSnapshot, scores: Floats, k: int, now_s: float
    ) -> list[Recommendation]:
        items = situation.candidates.items
        if not self._is_capped:
            ranked = await self._named(*softmax_top_k(items, scores, k), k, others=items)
        else:
            ranked = await self._named(*softmax_top_k(items, scores, len(items)), len(items))
            kinds = await self._kinds(situation, [index for index, *_ in ranked], now_s)
            most = {what: math.ceil(share * k) for what, share in self._shares.items()}
            ranked = [ranked[place] for place in apply_caps(range(len(ranked)), kinds, k, most)[:k]]
        return [Recommendation(name, score) for _, name, score in ranked]

    async def _kinds(
        self, situation: RequestSnapshot, items: Sequence[int], now_s: float
    ) -> list[set[CapGroup]]:
        """What each item is one of: the popular ones, and its categories."""
        popular = set(situation.overview.tops["week"][:POPULAR].tolist())
        column = f"{self.store.settings.category_property}=".casefold()
        kinds: list[set[CapGroup]] = []
        for item, known in zip(items, await self.catalogue.properties(items, now_s), strict=True):
            found = [name.casefold() for name in categories_of(known or {})]
            kinds.append({("category", name) for name in found if name.startswith(column)})
            if item in popular:
                kinds[-1].add(("popular", ""))
        return kinds

    async def _with_new(
        self, situation: RequestSnapshot, items: list[Recommendation], now_s: float
    ) -> list[Recommendation]:
        """The same with some new items to try in the second half, as many as the settings say."""
        n = int(self.store.settings.exploration_share * len(items))
        if not n:
            return items
        listed, own = [item.item_id for item in items], situation.history.items.tolist()
        tried: list[str] = []
        for index, name in await self._trials.order(now_s):
            if index not in own and name not in listed:
                tried.append(name)
                if len(tried) == n:
                    break
        added = [Recommendation(name, 0.0, EXPLORED, is_exploration=True) for name in tried]
        return insert_explored(items, added, self._chance)

    async def _explained(
        self,
        situation: RequestSnapshot,
        items: list[Recommendation],
        matrix: Floats,
        ranker: Ranker,
    ) -> list[Recommendation]:
        """The same with reasons, out of what ranked them."""
        overview, candidates = situation.overview, situation.candidates.items
        lists, onward = (
            [unpack_neighbours(raw, overview.clock_s) for raw in some]
            for some in (situation.lists, situation.hops.lists)
        )
        hops = dict(zip(situation.hops.items.tolist(), onward, strict=True))
        lifts = contributions(matrix, ranker)
        indexes = await self.store.item_indexes([item.item_id for item in items])
        explained = []
        for item, index in zip(items, indexes, strict=True):
            place = int(np.flatnonzero(candidates == index)[0])
            lifted = {source: float(lift[place]) for source, lift in lifts.items()}
            heads = [
                name for top, name in LISTS.items() if index in overview.tops.get(top, NO_ITEMS)
            ]
            causes = attributions_of(index, lifted, situation.context, lists, heads, hops)
            reasons = [await self._reason(situation, cause) for cause in causes]
            explained.append(msgspec.structs.replace(item, reasons=tuple(reasons)))
        return explained

    async def _named(
        self,
        items: Indexes,
        scores: Floats,
        has_ties: bool,
        k: int,
        *,
        others: Indexes = NO_ITEMS,
    ) -> list[tuple[int, str, float]]:
        """Of what `top_k` gives, the k best: index, id and score; ties by id."""
        indexes = items.tolist()
        names = await self.catalogue.names.of(indexes, others)
        found = zip(indexes, names, scores.tolist(), strict=True)
        named = [(index, name, score) for index, name, score in found if name is not None]
        if has_ties:
            named.sort(key=lambda one: (-one[2], one[1]))
        return named[:k]

    async def _reason(self, situation: RequestSnapshot, cause: Attribution) -> Reason:
        if not cause.item:
            return Reason(cause.source, share=cause.share)
        (name,) = await self.catalogue.names.of([cause.item])
        kind, at_s = self._last_event(situation, cause.item)
        return Reason("event", name, kind, at_s, cause.share)

    def _last_event(self, situation: RequestSnapshot, item: int) -> tuple[str | None, float | None]:
        history = situation.history
        places = np.flatnonzero(history.items == item)
        if not len(places):
            return "view", None
        last = places[-1]
        name = situation.overview.types.get(int(history.types[last]))
        return name, float(history.times[last])


def _served(overview: SharedState, objective: Objective) -> tuple[Ranker, ServingLevel]:
    ranker = overview.order(objective)
    return ranker, "retrieved" if ranker is BASELINE else "ranked"
