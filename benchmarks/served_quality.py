"""What a bulk load serves, asked over HTTP, beside `recommender evaluate` on the same clicks.

    python -m benchmarks.served_quality FOLDER [--last N]

FOLDER has Serenade's split (`train.txt.gz`, `test.txt.gz`). The training clicks go through Kafka
and a worker at full speed; then each test click is posted, and the next item of its session asked
for: once without a catch-up, once after it. `evaluate` learns all clicks one by one, and ranks for
the same queries. Some ten minutes; RECOMMENDER_CATCH_UP_SHARE=1 shortens them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.conditions import report
from benchmarks.peers.measure import quality
from benchmarks.peers.peer import Click
from benchmarks.peers.split import read_split
from benchmarks.peers.this_project import ThisProject
from models.evaluation.baselines import SharedRecommender, variants
from models.evaluation.protocol import ModelResult, measures, run
from models.evaluation.query_steps import steps
from models.retrieval.candidates import TOP_LIST_SIZES
from models.serving.local import LocalRecommender
from models.settings import Settings
from models.state.users.interactions import Interaction
from ops.embedded_servers import start_scratch_redis

MODELS = ["user-personalization", "blend"]
"""The champion, which serves, and the unlearned order."""


def evaluated(train: Sequence[Click], test: Sequence[Click]) -> dict[str, Any]:
    """HR@20 and MRR@20 where each click is learned before the next, as `evaluate` does it."""
    clicks = [Interaction(*click[:2], "click", click.at_s) for click in [*train, *test]]
    asked = steps(clicks, "sessions", max_queries=len(clicks), warm_up=len(train) / len(clicks))
    with tempfile.TemporaryDirectory() as folder:
        server = start_scratch_redis(Path(folder))
        try:
            settings = Settings(redis=server.url)
            with LocalRecommender(settings, list_sizes=TOP_LIST_SIZES) as local:
                rivals = variants(SharedRecommender(local), MODELS)
                with tqdm(total=len(asked), disable=None) as bar:
                    found = run(asked, rivals, clock=time.perf_counter, progress=bar.update)
        finally:
            server.stop()
    return {name: _figures(result) for name, result in found.items()}


def _figures(result: ModelResult) -> dict[str, float]:
    values = measures(result.ranks)
    found = {name: round(float(values[name].mean()), 4) for name in ("hr_20", "mrr_20")}
    return {"queries": len(result.ranks)} | found


def served(train: Sequence[Click], test: Sequence[Click], *, catches_up: bool) -> dict[str, Any]:
    """The same of answers over HTTP, after a load at full speed, and how long each took."""
    examples = {} if catches_up else {"RECOMMENDER_CATCH_UP_EXAMPLES": "0"}
    with (
        tempfile.TemporaryDirectory() as folder,
        ThisProject(examples).run(train, Path(folder)) as running,
    ):
        begun_s = time.monotonic()
        if catches_up and running.caught_up is not None:
            running.caught_up()
        waited_s = round(time.monotonic() - begun_s, 1)
        return quality(running, test, len(test)) | {
            "ingest_per_s": round(running.ingest_per_s),
            "catch_up_s": waited_s,
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--last", type=int, default=10**9, help="newest training clicks")
    options = parser.parse_args()
    split = read_split(options.folder, limit=options.last)
    figures = {
        "evaluate": evaluated(split.train, split.test),
        "loaded": served(split.train, split.test, catches_up=False),
        "caught_up": served(split.train, split.test, catches_up=True),
    }
    report("served_quality", figures, train=len(split.train), test=len(split.test))


if __name__ == "__main__":
    main()
