"""The protocol of evaluation, its measures by brute force, and every rival on a small stream."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.baselines import BASELINES, VARIANTS, variants
from models.evaluation.protocol import (
    Model,
    RepeatPolicy,
    Scores,
    as_text,
    best_of,
    interval,
    measures,
    over_time,
    rank_of,
    report,
    run,
    sort_and_shuffle,
    split_steps,
    steps,
)
from models.serving.local import LocalRecommender
from models.settings import Settings
from models.state.interactions import Interaction
from streams.recordings.interactions import interactions
from streams.recordings.recorded_events import read_events
from tests.conftest import recorded

EVENTS = st.lists(
    st.builds(
        Interaction,
        st.sampled_from("uvw"),
        st.sampled_from("abcdef"),
        st.just("click"),
        st.integers(0, 9).map(float),
    ),
    max_size=60,
)


@given(EVENTS)
def test_order_is_by_time_and_says_nothing_else(events: list[Interaction]) -> None:
    """Each event once, by time, a user's events of one moment together; the same every time."""
    ordered = sort_and_shuffle(events)

    assert sorted(ordered) == sorted(set(events))
    assert all(one.at_s <= other.at_s for one, other in pairwise(ordered))
    owners = [(event.at_s, event.user) for event in ordered]
    runs = [owner for n, owner in enumerate(owners) if n == 0 or owners[n - 1] != owner]
    assert len(runs) == len(set(runs))
    assert sort_and_shuffle(reversed(events)) == sort_and_shuffle(reversed(events))


def test_the_seed_is_of_the_shuffle() -> None:
    """Another seed gives another order to events of one moment, and other places in baskets."""
    events = [Interaction("u", str(item), "click", 1.0) for item in range(20)]
    baskets = [Interaction(f"u{n // 9}", str(n), "click", n // 9) for n in range(900)]

    orders = {seed: sort_and_shuffle(events, seed=seed) for seed in (7, 8)}
    options = [
        [
            at
            for at, step in enumerate(steps(baskets, "baskets", max_queries=100, seed=seed))
            if step.query
        ]
        for seed in (7, 8)
    ]

    assert sorted(orders[7]) == sorted(orders[8])
    assert orders[7] == sort_and_shuffle(events) != orders[8]
    assert options[0] != options[1]


@given(EVENTS, st.sampled_from(["sessions", "users", "baskets"]), st.integers(1, 20))
def test_queries_are_fair(events: list[Interaction], kind: RepeatPolicy, most: int) -> None:
    """Every event is taught; no query asks for what is barred, and not more than allowed."""
    ordered = sort_and_shuffle(events)
    planned = steps(ordered, kind, max_queries=most)

    assert [step.event for step in planned] == ordered
    queries = [step.query for step in planned if step.query]
    assert len(queries) <= most
    assert sum(step.basket is not None for step in planned) <= most
    for step in planned:
        if step.query:
            assert step.query.targets == (step.event.item,)
            assert step.event.item not in step.query.barred


def test_a_basket_is_completed_once_and_asked_for_before() -> None:
    """One line of each basket is asked for, and the whole where the user has a past."""
    events = [
        Interaction("u", item, "purchase", float(basket))
        for basket in range(10)
        for item in ("a", "b", "c")
    ]
    planned = steps(sort_and_shuffle(events), "baskets", max_queries=100)

    assert [n // 3 for n, step in enumerate(planned) if step.query] == list(range(1, 10))
    assert [n for n, step in enumerate(planned) if step.basket] == list(range(3, 30, 3))
    assert sorted(planned[3].basket.targets) == ["a", "b", "c"] if planned[3].basket else False


@given(
    st.lists(st.integers(0, 4).map(float), min_size=1, max_size=20),
    st.integers(0, 19),
    st.sets(st.integers(0, 19)),
)
def test_ranks_count_equals_against(scores: list[float], target: int, barred: set[int]) -> None:
    """The rank is that of a naive count; the best are those of a sort."""
    barred -= {target}
    ranked = Scores(np.arange(len(scores)), np.array(scores))
    out = np.array(sorted(barred), np.int64)

    rank = rank_of(ranked, target, out)
    best = best_of(ranked, 5, out).tolist()

    open_ = [item for item in range(len(scores)) if item not in barred]
    naive = sum(scores[item] >= scores[target] for item in open_) if target < len(scores) else 0
    assert rank == naive
    assert best == sorted(open_, key=lambda item: (-scores[item], item))[:5]


@given(st.lists(st.integers(0, 150), min_size=1))
def test_measures_are_their_formulas(ranks: list[int]) -> None:
    """Hits, reciprocal rank and gain of each query, a miss counting nothing."""
    found = measures(ranks)

    for n, rank in enumerate(ranks):
        for k in (10, 20, 100):
            assert found[f"hr_{k}"][n] == (1 <= rank <= k)
        assert found["mrr_20"][n] == pytest.approx(1 / rank if 1 <= rank <= 20 else 0)
        gain = 1 / math.log2(rank + 1) if 1 <= rank <= 20 else 0
        assert found["ndcg_20"][n] == pytest.approx(gain)


def test_interval_covers_the_mean() -> None:
    """Of many samples about 95 % have the true mean in their interval."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        mean, half = interval(rng.random(200))
        covered += abs(mean - 0.5) <= half
    assert 365 <= covered <= 395


@pytest.fixture
def local(redis_url: str) -> Iterator[LocalRecommender]:
    """The recommender in this process, with nothing learned."""
    with LocalRecommender(Settings(redis=redis_url, group="local")) as one:
        yield one
        one._loop.run_until_complete(one._store.redis.flushdb())


def test_local_learns_and_recommends(local: LocalRecommender) -> None:
    """What followed an item is recommended after it; the last and the barred are not."""
    for n in range(4):
        for step, item in enumerate(("tent", "stove", "lamp")):
            local.learn(f"camper{n}", item, at_s=1_790_000_000.0 + 100 * n + step)
    local.learn("ada", "tent", "purchase", at_s=1_790_001_000.0)

    names = [name for name, _ in local.recommend("ada")]
    assert names[0] == "stove"
    assert set(names) == {"stove", "lamp"}
    found = [name for name, _ in local.recommend("ada", barred=["stove", "unknown"])]
    assert sorted(found) == ["lamp", "tent"]
    assert local.recommend("ada", k=1) == local.recommend("ada")[:1]
    assert local.recommend("stranger")


def stream(n: int) -> list[Interaction]:
    """Sessions that walk along a ring of items, now and then jumping."""
    chance = random.Random(7)
    events = []
    for session in range(n):
        at = chance.randrange(30)
        for step in range(5):
            at = (at + 1) % 30 if chance.random() < 0.8 else chance.randrange(30)
            events.append(Interaction(f"s{session}", f"i{at}", "click", session * 60.0 + step))
    return sort_and_shuffle(events)


def test_every_rival_ranks_and_learns(local: LocalRecommender) -> None:
    """All run through one stream; those that know pairs beat those that do not."""
    rivals: dict[str, Model] = variants(local, list(VARIANTS))
    rivals |= {name: make() for name, make in BASELINES.items() if name != "item-neighbours"}
    events = stream(120)

    outcomes = run(steps(events, "sessions", max_queries=200), rivals, clock=lambda: 0.0)
    compared = report(outcomes, len(events), 30)

    assert len({len(outcome.ranks) for outcome in outcomes.values()}) == 1
    for name in (*VARIANTS, "co-visitation"):
        assert compared[name]["mrr_20"]["mean"] > 2 * compared["popularity"]["mrr_20"]["mean"]
    assert compared["biased-mf"]["coverage"] > 0
    assert compared["user-personalization"]["mrr_20"]["difference"] == 0
    assert len(as_text(compared).splitlines()) == len(rivals) + 1
    assert len(over_time(outcomes["blend"])) == 20


def test_a_frozen_test_teaches_nothing(local: LocalRecommender) -> None:
    """Contexts grow, so that rivals know what to predict; what they learned stays as it was."""
    events = stream(120)
    # The same ring, walked the other way by others.
    later = [event._replace(user=f"t{event.user}", at_s=1e6 - event.at_s) for event in events]
    rivals: dict[str, Model] = variants(local, list(VARIANTS))
    rivals |= {name: make() for name, make in BASELINES.items() if name != "item-neighbours"}
    planned = split_steps(events, sort_and_shuffle(later), frozen=True)

    outcomes = run(planned, rivals, clock=lambda: 0.0)

    assert sum(step.is_frozen for step in planned) == len(later)
    assert [step.query for step in planned[: len(events)]] == [None] * len(events)
    n_users = len({event.user for event in later})
    for outcome in outcomes.values():
        assert len(outcome.ranks) == len(later) - n_users
    counts = local._loop.run_until_complete(local._store.counts())
    assert counts["events"] == len(events)
    assert measures(outcomes["similar-items"].ranks)["hr_10"].mean() > 0.3
    learning = split_steps(events, sort_and_shuffle(later), frozen=False)
    assert not any(step.is_frozen for step in learning)


def test_following_changes_one_users_list_only(local: LocalRecommender) -> None:
    """What a user did counts for that user, and for nobody else."""
    for n in range(4):
        for step, item in enumerate(("tent", "stove", "lamp")):
            local.learn(f"camper{n}", item, at_s=1_790_000_000.0 + 100 * n + step)
    before = local.recommend("other")

    local.observe("ada", "tent", at_s=1_790_001_000.0)
    local.observe("ada", "unheard-of", at_s=1_790_001_001.0)

    assert local.recommend("ada")[0][0] == "stove"
    assert [name for name, _ in local.recommend("other")] == [name for name, _ in before]


def test_item_neighbours_are_trained_again_and_again() -> None:
    """The batch rival knows nothing before its first training, and then what was together."""
    rival = BASELINES["item-neighbours"]()
    rival._every = 200  # type: ignore[attr-defined]
    outcome = run(steps(stream(120), "sessions", max_queries=100), {"it": rival}, clock=lambda: 0.0)

    assert outcome["it"].ranks[0] == 0
    assert measures(outcome["it"].ranks)["hr_10"][50:].mean() > 0.5


def test_quality_on_real_sessions(local: LocalRecommender) -> None:
    """Floors far under what is measured: they catch what is broken, not what is noise."""
    found, bad = interactions(read_events(recorded("serenade-toy"), now_s=2e9, as_="sessions"))
    assert (len(found), bad) == (116_285, [])
    planned = steps(sort_and_shuffle(found)[:8000], "sessions", max_queries=1500)
    rivals = variants(local, list(VARIANTS)) | {"co-visitation": BASELINES["co-visitation"]()}

    compared = report(run(planned, rivals, clock=lambda: 0.0), 8000, 1)

    mrr = {name: found["mrr_20"]["mean"] for name, found in compared.items()}
    assert mrr["user-personalization"] > 0.28
    assert compared["user-personalization"]["hr_20"]["mean"] > 0.42
    assert mrr["ranker"] > mrr["co-visitation"] - 0.01
    assert mrr["blend"] > 0.26
    # Among rare items second hops find what was never seen together with the session.
    found_by = {name: found["hr_100"]["mean"] for name, found in compared.items()}
    assert found_by["user-personalization"] > found_by["similar-items"] + 0.02


def test_quality_on_real_baskets(local: LocalRecommender) -> None:
    """The same floors for invoices, whose lines are of one moment: the learned order leads."""
    found, _ = interactions(read_events(recorded("online-retail"), now_s=2e9, as_="users"))
    planned = steps(sort_and_shuffle(found)[:12_000], "baskets", max_queries=400)
    rivals = variants(local, list(VARIANTS)) | {"co-visitation": BASELINES["co-visitation"]()}

    compared = report(run(planned, rivals, clock=lambda: 0.0), 12_000, 1)

    mrr = {name: found["mrr_20"]["mean"] for name, found in compared.items()}
    assert mrr["ranker"] > 0.065
    assert mrr["ranker"] > mrr["similar-items"] + 0.01
    assert compared["ranker"]["next_basket_recall_20"]["mean"] > 0.2
