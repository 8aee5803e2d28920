"""Contribution of each candidate source to hits, and its cost in the atomic step.

    python -m benchmarks.ablation FILE [--as sessions] [--limit 20000] [--max-queries 2000]

One pass of the prequential protocol. Every query is answered by the learned order over all
candidates, and again without those of one source, or of a few. Then the atomic step is timed
without each kind of state in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.conditions import median, report
from models.arrays import Indexes
from models.evaluation.baselines import RecommenderVariant, SharedRecommender
from models.evaluation.protocol import Model, Scores, run
from models.evaluation.protocol import report as measured
from models.evaluation.query_steps import RepeatPolicy, sort_and_shuffle, steps
from models.retrieval.candidates import (
    MAX_CO_VISITED,
    MAX_REPEAT_ITEMS,
    TOP_LIST_SIZES,
    best_places,
)
from models.retrieval.signals import (
    ALIKE,
    HOP,
    blend,
)
from models.serving.local import LocalRecommender, SnapshotCandidates
from models.settings import Settings
from models.state import store as stored
from models.state.clients.client import connect
from models.state.messages import Part, StoredEvent, StoredMessage, shard_of
from models.state.scripts.registered_scripts import Script
from models.state.store import Store
from ops.embedded_servers import start_redis
from streams.recordings.interactions import interactions
from streams.recordings.recorded_events import read_events

SOURCES = ("co-visited", "hops", "alike", *TOP_LIST_SIZES, "own")
LEFT_OUT = (
    *((source,) for source in SOURCES),
    ("co-visited", "hops", "alike"),
    tuple(TOP_LIST_SIZES),
)
"""Sources that are left out together: they often give the same candidates."""

SCRIPT_PARTS = {
    "pairs": ("if not is_same_item then", "if false then"),
    "counts": ("items.count(item, time, weight, purchase)", ""),
    "owners": ("not histories.has_item(history, item) then", "false then"),
}
"""The statement in the script that writes each kind of state, and its replacement."""


def members(found: SnapshotCandidates) -> dict[str, Indexes]:
    """The candidates of each source."""
    snapshot, candidates = found
    signals = candidates.signals
    scores = np.where(signals[:, :ALIKE].any(axis=1), blend(signals), -np.inf)
    by_source = {
        "co-visited": candidates.items[best_places(scores, MAX_CO_VISITED, MAX_CO_VISITED)],
        "hops": candidates.items[signals[:, HOP] > 0],
        "alike": candidates.items[signals[:, ALIKE] > 0],
        "own": snapshot.profile.items[:MAX_REPEAT_ITEMS],
    }
    tops = snapshot.shared.top_lists
    return by_source | {name: tops[name][:n] for name, n in TOP_LIST_SIZES.items()}


class Without(RecommenderVariant):
    """The learned order over the candidates of the other sources."""

    def __init__(self, live: SharedRecommender, sources: tuple[str, ...]) -> None:
        super().__init__(live, lambda local, matrix, _: local.ranker.scores(matrix))
        self._sources = sources

    def rank(self, user: int, at_s: float, barred: Indexes) -> Scores:
        """The candidates that other sources give, too, in the learned order."""
        found, _ = self._live.candidates(user, at_s, barred)
        ranked = super().rank(user, at_s, barred)
        others = [items for name, items in members(found).items() if name not in self._sources]
        kept = np.isin(ranked.items + 1, np.concatenate(others))
        return Scores(ranked.items[kept], ranked.scores[kept])


def script_us(settings: Settings, leave_out: str | None, *, n: int = 20_000) -> float:
    """Microseconds of one event in the atomic step, without one kind of state."""
    whole, text = stored.STEP, stored.STEP.text
    if leave_out:
        text = text.replace(*SCRIPT_PARTS[leave_out])
        if text == whole.text:
            raise RuntimeError(f"nothing to leave out for {leave_out}")
    # By a name that was never loaded, the text is sent each time, the same for all.
    stored.STEP = Script(text, "0" * 40)
    try:
        return asyncio.run(_timed(settings, n))
    finally:
        stored.STEP = whole


async def _timed(settings: Settings, n: int) -> float:
    client = Store(connect(settings.redis), settings)
    await client.redis.flushdb()
    chance = random.Random(7)
    started, size = 0.0, 200
    for step in range(n // size):
        if step == n // size // 4:
            started = time.perf_counter()
        messages = []
        for number in range(size):
            user = f"u{chance.randrange(500)}"
            item = f"i{min(int(chance.paretovariate(0.6)), 3000)}"
            event = StoredEvent(
                item, 1_790_000_000 + step, "click", 0.0, False, chance.getrandbits(32)
            )
            offset = step * size + number
            messages.append(StoredMessage(offset, user, user, shard_of(user), 1.0, [event]))
        await client.apply([Part("x/0", step * size - 1, messages)], now_s=1_790_000_000.0)
    took = time.perf_counter() - started
    await client.redis.aclose()
    return 1e6 * took / (0.75 * n)


def found_by(
    file: Path, kind: RepeatPolicy, *, limit: int, max_queries: int
) -> dict[str, dict[str, float]]:
    """HR@100, HR@20 and MRR@20 of the learned order, with all sources and without each."""
    as_: Literal["sessions", "users"] = "sessions" if kind == "sessions" else "users"
    events = sort_and_shuffle(interactions(read_events(file, now_s=time.time(), as_=as_))[0])[
        :limit
    ]
    planned = steps(events, kind, max_queries=max_queries)
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            with LocalRecommender(Settings(redis=server.url)) as local:
                live = SharedRecommender(local)
                orders: dict[str, RecommenderVariant] = {
                    f"without {', '.join(sources)}": Without(live, sources) for sources in LEFT_OUT
                }
                orders["all"] = RecommenderVariant(
                    live, lambda local, matrix, _: local.ranker.scores(matrix)
                )
                orders["all"].teaches = True
                compared_models: dict[str, Model] = dict(orders)
                compared = measured(
                    run(planned, compared_models, clock=time.perf_counter), len(events), 1
                )
        finally:
            server.stop()
    return {
        name: {measure: found[measure]["mean"] for measure in ("hr_100", "hr_20", "mrr_20")}
        for name, found in compared.items()
    }


def script_costs(runs: int) -> dict[str, float]:
    """Microseconds that each kind of state adds to an event, medians; and of the whole."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        settings = Settings(redis=server.url)
        try:
            times: dict[str | None, list[float]] = {}
            for _ in range(runs):
                for part in (None, *SCRIPT_PARTS):
                    times.setdefault(part, []).append(script_us(settings, part))
        finally:
            server.stop()
    whole = median(times[None])
    costs = {f"{part}_us": round(whole - median(times[part]), 1) for part in SCRIPT_PARTS}
    return {"event_us": round(whole, 1), **costs}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--as", dest="kind", default="sessions")
    parser.add_argument("--limit", type=int, default=20_000)
    parser.add_argument("--max-queries", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    results: dict[str, object] = {"script": script_costs(options.runs)}
    results["found"] = found_by(
        options.file, options.kind, limit=options.limit, max_queries=options.max_queries
    )
    report("ablation", results, file=options.file.name, kind=options.kind, limit=options.limit)


if __name__ == "__main__":
    main()
