"""Cost of exploration in hits, and its gain in coverage.

    python -m benchmarks.exploration FILE [--as sessions] [--limit 40000] [--max-queries 3000]

One pass of the prequential protocol: every query is answered by the served order, and by it with
several shares of explored items, as the recommender places them. Recorded users do not react to the
shown items, so hits only show the cost: nothing learned of new items comes back as hits.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.conditions import report
from models.arrays import Indexes
from models.evaluation.baselines import VARIANTS, RecommenderVariant, SharedRecommender
from models.evaluation.protocol import Model, Scores, run
from models.evaluation.protocol import report as measured
from models.evaluation.query_steps import sort_and_shuffle, steps
from models.ranking.explored_lists import MAX_POOL, exploration_rate, explore, joined_pool
from models.ranking.uncertainty import drawn_heads, votes
from models.serving.cached.cache import StateCache
from models.serving.exploration import NEAR, ExplorationPools
from models.serving.local import LocalRecommender
from models.settings import Settings
from ops.embedded_servers import start_redis
from streams.recordings.interactions import interactions
from streams.recordings.recorded_events import read_events

SHARES = (0.04, 0.1, 0.2)
LISTED = 25
MEASURES = ("hr_10", "hr_20", "mrr_20")


class Exploring(RecommenderVariant):
    """The served order, its first items with some to try among them."""

    def __init__(self, live: SharedRecommender, share: float) -> None:
        super().__init__(live, VARIANTS["user-personalization"])
        self._rate = exploration_rate(LISTED, int(share * LISTED))
        self._chance, self._rng = random.Random(7), np.random.default_rng(7)
        self._pools: tuple[StateCache, ExplorationPools] | None = None

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:
        """The list as it would be shown, best first."""
        ranked = super().rank(user, at_s, barred)
        found, matrix = self._live.candidates(user, at_s, barred)
        order = np.argsort(-ranked.scores, kind="stable")
        best = ranked.items[order]
        listed = best[:LISTED].tolist()
        out = {*listed, *(found.snapshot.history.items - 1).tolist()}
        weights = self._live.local.run(
            lambda recommender, now_s: self._drawn_from(recommender.cache, now_s)
        )
        new = {str(item - 1): weight for item, _, weight in weights if item - 1 not in out}
        behind = order[LISTED : LISTED + NEAR]
        near: dict[str, float] = {}
        if len(behind):
            heads = drawn_heads(self._live.local.ranker, self._rng)
            rows = np.ascontiguousarray(matrix[behind])
            counts = votes(heads, rows, ranked.scores[behind]).tolist()
            near = {
                str(item): float(count)
                for item, count in zip(ranked.items[behind].tolist(), counts, strict=True)
                if count
            }
        pool = joined_pool([dict(itertools.islice(new.items(), MAX_POOL)), near])
        names = [str(item) for item in listed]
        slots = explore(names, pool, self._rate, self._chance).slots
        shown = [*listed[: len(listed) - len(slots)], *(int(slot.item_id) for slot in slots)]
        others = [item for item in best.tolist() if item not in {*shown}]
        items = np.array([*shown, *others], np.int64)
        return Scores(items, -np.arange(len(items), dtype=np.float64))

    async def _drawn_from(self, cache: StateCache, now_s: float) -> list[tuple[int, str, float]]:
        if self._pools is None or self._pools[0] is not cache:
            self._pools = cache, ExplorationPools(cache, self._rng)
        return await self._pools[1].weights(now_s)


def compared(
    file: Path, kind: Literal["sessions", "users"], *, limit: int, max_queries: int
) -> dict[str, dict[str, float]]:
    """Hits and coverage without exploration, and with each share of it."""
    events = sort_and_shuffle(interactions(read_events(file, now_s=time.time(), as_=kind))[0])[
        :limit
    ]
    planned = steps(events, kind, max_queries=max_queries)
    n_items = len({event.item for event in events})
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            with LocalRecommender(Settings(redis=server.url)) as local:
                live = SharedRecommender(local)
                compared_models: dict[str, Model] = {
                    f"share {share}": Exploring(live, share) for share in SHARES
                }
                without = RecommenderVariant(live, VARIANTS["user-personalization"])
                without.teaches = True
                compared_models["share 0"] = without
                found = measured(
                    run(planned, compared_models, clock=time.perf_counter), len(events), n_items
                )
        finally:
            server.stop()
    return {
        name: {measure: one[measure]["mean"] for measure in MEASURES}
        | {"coverage": one["coverage"]}
        for name, one in found.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--as", dest="kind", default="sessions", choices=("sessions", "users"))
    parser.add_argument("--limit", type=int, default=40_000)
    parser.add_argument("--max-queries", type=int, default=3000)
    options = parser.parse_args()
    results = compared(
        options.file, options.kind, limit=options.limit, max_queries=options.max_queries
    )
    report("exploration", results, file=options.file.name, kind=options.kind, limit=options.limit)


if __name__ == "__main__":
    main()
