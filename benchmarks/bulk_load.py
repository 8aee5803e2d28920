"""The ranker after a bulk load, before and after the catch-up.

    python -m benchmarks.bulk_load TRAIN TEST [--as sessions|users] [--last N]

The events of TRAIN go through a worker at full speed, which then catches up; and, apart from that,
one after the other as `recommender evaluate` learns them. The rankers of these three, and the
unlearned blend, order the same candidates for each event of TEST whose user has an earlier one
there: once while the state learns from TEST too, and once while nothing does. They learn nothing
from TEST.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from benchmarks.conditions import command, report, servers, until
from benchmarks.loaded import counted, is_caught_up, stored_ranker
from models.arrays import NO_ITEMS, Floats
from models.evaluation.query_steps import sort_and_shuffle
from models.events import Event, PutEvents
from models.ranking.objectives import ObjectiveLearner, load_learners
from models.ranking.ranker import RANKERS, Ranker
from models.serving.local import LocalRecommender
from models.settings import Settings
from models.state.users.interactions import Interaction
from ops.embedded_servers import start_scratch_redis
from streams.kafka.producing.tracker import Tracker
from streams.kafka.topics import ensure_topics
from streams.recordings.interactions import interactions
from streams.recordings.recorded_events import read_events

K = 20


def events_of(file: Path, as_: Literal["sessions", "users"]) -> list[Interaction]:
    """Events of a file in order, simultaneous ones shuffled."""
    found, _ = interactions(read_events(file, now_s=time.time(), as_=as_))
    return sort_and_shuffle(found)


def scored(
    local: LocalRecommender,
    rankers: Mapping[str, Ranker],
    test: Sequence[Interaction],
    *,
    state_learns: bool,
) -> dict[str, Any]:
    """MRR@20 of each ranker, and its difference from the first with half a 95 % interval."""
    known: set[str] = set()
    found: dict[str, list[float]] = {name: [] for name in rankers}
    for event in test:
        if event.user in known:
            candidates = local.candidates(event.user, at_s=event.at_s, barred=NO_ITEMS)
            items, matrix = local.item_ids(candidates), local.features(candidates)
            for name, ranker in rankers.items():
                found[name].append(_reciprocal_rank(ranker.scores(matrix), items, event.item))
        known.add(event.user)
        if state_learns:
            local.learn(event.user, event.item, event.type, at_s=event.at_s)
        else:
            local.observe(event.user, event.item, at_s=event.at_s)
    first = np.array(next(iter(found.values())))
    figures = {}
    for name, values in found.items():
        differences = np.array(values) - first
        ci95 = 1.96 * differences.std() / math.sqrt(len(first))
        figures[name] = [round(float(x), 4) for x in (np.mean(values), differences.mean(), ci95)]
    return {"mrr_20, difference, ci95": figures, "queries": len(first)}


def _reciprocal_rank(scores: Floats, items: Sequence[str | None], target: str) -> float:
    """1 / rank within the best `K`, ties against the target; 0 further down."""
    if target not in items:
        return 0.0
    rank = int((scores >= scores[items.index(target)]).sum())
    return 1.0 / rank if rank <= K else 0.0


def learned(settings: Settings) -> ObjectiveLearner:
    """The learner of interactions, as stored."""
    return load_learners(stored_ranker(settings))["interactions"]


def load(events: Sequence[Interaction], settings: Settings, *, are_users: bool) -> None:
    """Send events as fast as they are taken, accepted now, one in a message."""
    with Tracker(settings, linger_ms=20) as tracker:
        for number, (user, item, kind, at_s, *_) in enumerate(events):
            event = Event(event_type=kind, item_id=item, sent_at=at_s)
            user_id = user if are_users else None
            tracker.put_events(PutEvents(user, [event], user_id=user_id))
            if number % 2000 == 0:
                tracker.flush()


def bulk(
    train: Sequence[Interaction],
    test: Sequence[Interaction],
    one_by_one: ObjectiveLearner,
    *,
    share: float,
    are_users: bool,
) -> dict[str, Any]:
    """Figures of all rankers on the loaded state, and how long the catch-up took."""
    with servers() as embedded:
        # A busy machine is no reason to give up.
        settings = embedded.model_copy(update={"publish_timeout_s": 120.0})
        ensure_topics(settings)
        with command("worker", settings, RECOMMENDER_CATCH_UP_EXAMPLES="0"):
            start = time.monotonic()
            load(train, settings, are_users=are_users)
            until(lambda: counted(settings) >= len(train), within_s=3600)
            loaded_s = time.monotonic() - start
            time.sleep(5)
        loaded = learned(settings)
        cpu_s = _children_s()
        with command("worker", settings, RECOMMENDER_CATCH_UP_SHARE=str(share)):
            start = time.monotonic()
            until(lambda: is_caught_up(settings), within_s=3600)
            caught_up_s = time.monotonic() - start
        learners = {
            "loaded": loaded,
            "caught_up": learned(settings),
            "one_by_one": one_by_one,
        }
        rankers = {name: RANKERS[one.champion](one.ranker) for name, one in learners.items()}
        rankers["blend"] = RANKERS["blend"](loaded.ranker)
        figures = {}
        for name, learns in (("frozen", False), ("live", True)):
            with LocalRecommender(settings, examples_of=0) as local:
                figures[name] = scored(local, rankers, test, state_learns=learns)
        return {
            **figures,
            "examples": {name: one.scoreboard.n for name, one in learners.items()},
            "served": {name: one.champion for name, one in learners.items()},
            "load_s": round(loaded_s, 1),
            "catch_up_s": round(caught_up_s, 1),
            "catch_up_worker_cpu_s": round(_children_s() - cpu_s, 1),
        }


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def learn_one_by_one(train: Sequence[Interaction]) -> ObjectiveLearner:
    """The learner of interactions where the events came one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_scratch_redis(Path(folder))
        try:
            with LocalRecommender(Settings(redis=server.url)) as local:
                for event in tqdm(train, disable=None):
                    local.learn(event.user, event.item, event.type, at_s=event.at_s)
                return local.learners["interactions"]
        finally:
            server.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--as", dest="as_", choices=["sessions", "users"], default="sessions")
    parser.add_argument("--last", type=int, default=0, help="only this many last events of TRAIN")
    parser.add_argument("--share", type=float, default=Settings().catch_up_share)
    options = parser.parse_args()
    train = events_of(options.train, options.as_)[-options.last :]
    test = events_of(options.test, options.as_)
    figures = bulk(
        train,
        test,
        learn_one_by_one(train),
        share=options.share,
        are_users=options.as_ == "users",
    )
    report("bulk_load", figures, events=len(train))


if __name__ == "__main__":
    main()
