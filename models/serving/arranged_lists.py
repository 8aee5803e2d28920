"""Lists of an answer, arranged from scored candidates: variants, caps, reasons, exploration."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from models.arrays import Floats, Indexes
from models.metadata_records import categories_of
from models.ranking.explored_lists import Exploration
from models.ranking.selection import CapGroup, apply_caps, softmax_top_k
from models.serving.answer_options import NO_OPTIONS, AnswerOptions
from models.serving.answers import Answer, Recommendation, with_reasons
from models.serving.cached.cache import StateCache
from models.serving.chosen_items import RankedItem, one_of_a_product, with_ids
from models.serving.exploration import NEAR, ExplorationPools, ScoredCandidates, with_explored
from models.serving.sources import RequestSnapshot
from models.serving.stage_times import stage_reached
from models.settings import Settings

MAX_POPULAR = 50
"""Items of the week's top list that `popular_share` caps."""

MAX_TO_EXPLORE = 50
"""New items that an answer names for rules to choose among."""


class ListArranger:
    """Arranges the lists of one group's answers; safe for many requests of one event loop."""

    def __init__(self, cache: StateCache, settings: Settings, *, seed: int | None = None) -> None:
        self._cache = cache
        self._shares = {"popular": settings.popular_share, "category": settings.category_share}
        self._category_column = f"{settings.category_property}=".casefold()
        self._exploration_share = settings.exploration_share
        self._rng = random.Random(seed)
        self._pools = ExplorationPools(cache, np.random.default_rng(seed))
        self.is_capped = min(self._shares.values()) < 1

    async def best(
        self,
        snapshot: RequestSnapshot,
        items: Indexes,
        scores: Floats,
        k: int,
        options: AnswerOptions,
    ) -> list[Recommendation]:
        """The k best items that respect the diversity caps, one variant of a product."""
        ranked = await self._ranked(snapshot, items, scores, k, options)
        return [Recommendation(item_id, score) for _, item_id, score in ranked]

    async def _ranked(
        self,
        snapshot: RequestSnapshot,
        items: Indexes,
        scores: Floats,
        k: int,
        options: AnswerOptions,
        n_behind: int = 0,
    ) -> list[RankedItem]:
        """Those of `best`, and as many more as asked for, which the caps do not bind."""
        items, scores = one_of_a_product(snapshot.shared, items, scores, options)
        if not self.is_capped:
            n = k + n_behind
            return await with_ids(self._cache, *softmax_top_k(items, scores, n), n, others=items)
        ranked = await with_ids(self._cache, *softmax_top_k(items, scores, len(items)), len(items))
        groups = await self._cap_groups(snapshot, [index for index, *_ in ranked])
        max_counts = {name: math.ceil(share * k) for name, share in self._shares.items()}
        places = apply_caps(range(len(ranked)), groups, k, max_counts)[: k + n_behind]
        return [ranked[place] for place in places]

    async def _cap_groups(
        self, snapshot: RequestSnapshot, items: Sequence[int]
    ) -> list[set[CapGroup]]:
        """Cap groups of each item: the popular items, and its categories."""
        popular = set(snapshot.shared.top_lists["week"][:MAX_POPULAR].tolist())
        groups: list[set[CapGroup]] = []
        properties = await self._cache.properties(items, snapshot.now_s)
        for item, known in zip(items, properties, strict=True):
            names = [name.casefold() for name in categories_of(known or {})]
            own = [name for name in names if name.startswith(self._category_column)]
            groups.append({("category", name) for name in own})
            if item in popular:
                groups[-1].add(("popular", ""))
        return groups

    async def arranged(
        self,
        scored: ScoredCandidates,
        snapshot: RequestSnapshot,
        k: int,
        options: AnswerOptions,
        *,
        reasons: bool,
        explores: bool,
    ) -> tuple[list[Recommendation], Exploration | None]:
        """`best` of the candidates, with the reasons of each if they are asked for.

        If it explores, with new items, and those the ranker is unsure of, in exploration slots.
        """
        explores = explores and self.exploration_slots(k, options) > 0
        n_behind = NEAR if explores and options.exploration_share is None else 0
        of_all = scored.candidates.items, scored.scores
        ranked = await self._ranked(snapshot, *of_all, k, options, n_behind)
        items = [Recommendation(item_id, score) for _, item_id, score in ranked[:k]]
        stage_reached("arrange")
        if reasons:
            explained = scored.candidates.items, scored.matrix, scored.ranker
            items = await with_reasons(items, snapshot, *explained, self._cache)
            stage_reached("reasons")
        n = self.exploration_slots(len(items), options) if explores else 0
        if not n:
            return items, None
        pools = await self._pools.of_list(items, ranked[k:], snapshot, scored, n, options)
        return self.explored(items, pools, options)

    async def naming_new_items(
        self, answer: Answer, snapshot: RequestSnapshot, options: AnswerOptions
    ) -> Answer:
        """The answer, which names new items for the slots of what rules will make of it."""
        if not self._share(options):
            return answer
        new = await self._pools.new_items((), snapshot, MAX_TO_EXPLORE, options)
        return msgspec.structs.replace(answer, to_explore=new)

    def exploration_slots(self, n: int, options: AnswerOptions = NO_OPTIONS) -> int:
        """Items of a list of n that are explored, on average."""
        return int(self._share(options) * n)

    def explored(
        self,
        items: Sequence[Recommendation],
        pools: Sequence[Mapping[str, float]],
        options: AnswerOptions = NO_OPTIONS,
    ) -> tuple[list[Recommendation], Exploration | None]:
        """The items with others in slots of the second half, and how they were drawn.

        As many as the options, or `exploration_share`, say on average.
        """
        return with_explored(items, pools, self._share(options), self._rng)

    def _share(self, options: AnswerOptions) -> float:
        share = options.exploration_share
        return self._exploration_share if share is None else share
