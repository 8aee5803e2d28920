"""The evaluation protocol, its measures by brute force, and all models on a small stream."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from models.evaluation.baselines import (
    BASELINES,
    BATCH,
    VARIANTS,
    SharedRecommender,
    variants,
)
from models.evaluation.basket_recalls import baskets_as_text
from models.evaluation.intervals import interval
from models.evaluation.protocol import (
    Model,
    Scores,
    as_text,
    best_of,
    measures,
    over_time,
    rank_of,
    report,
    run,
)
from models.evaluation.query_steps import RepeatPolicy, sort_and_shuffle, split_steps, steps
from models.retrieval.candidates import TOP_LIST_SIZES
from models.serving.cached.cached_items import EMPTY_PAGE
from models.serving.local import LocalRecommender
from models.settings import Settings
from models.state.layout import STAT
from models.state.shared_reads import read_group_state
from models.state.users.interactions import Interaction
from ops.embedded_servers import start_scratch_redis
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
def test_order_is_by_time_and_random_within_a_moment(events: list[Interaction]) -> None:
    """Each event once, by time, a user's events of one moment together; reproducible."""
    ordered = sort_and_shuffle(events)

    assert sorted(ordered) == sorted(set(events))
    assert all(one.at_s <= other.at_s for one, other in pairwise(ordered))
    owners = [(event.at_s, event.user) for event in ordered]
    runs = [owner for n, owner in enumerate(owners) if n == 0 or owners[n - 1] != owner]
    assert len(runs) == len(set(runs))
    assert sort_and_shuffle(reversed(events)) == sort_and_shuffle(reversed(events))


def test_the_seed_changes_the_shuffle() -> None:
    """Another seed gives another order of one moment's events, and other completion queries."""
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
def test_queries_follow_the_protocol(
    events: list[Interaction], kind: RepeatPolicy, most: int
) -> None:
    """Every event is learned; no target is barred; the number of queries is bounded."""
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


def test_a_basket_has_one_completion_and_one_whole_query() -> None:
    """A completion of one line, and the whole basket if the user has a history."""
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
def test_ranks_count_ties_against_the_target(
    scores: list[float], target: int, barred: set[int]
) -> None:
    """The rank is that of a plain count; the best are those of a sort."""
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
    """Hits, reciprocal rank and gain of each query; 0 for a miss."""
    found = measures(ranks)

    for n, rank in enumerate(ranks):
        for k in (10, 20, 100):
            assert found[f"hr_{k}"][n] == (1 <= rank <= k)
        assert found["mrr_20"][n] == pytest.approx(1 / rank if 1 <= rank <= 20 else 0)
        gain = 1 / math.log2(rank + 1) if 1 <= rank <= 20 else 0
        assert found["ndcg_20"][n] == pytest.approx(gain)


def test_interval_covers_the_mean() -> None:
    """About 95 % of many samples have the true mean in their interval."""
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        mean, half = interval(rng.random(200))
        covered += abs(mean - 0.5) <= half
    assert 365 <= covered <= 395


@pytest.fixture
def local(redis_url: str) -> Iterator[LocalRecommender]:
    """A recommender in this process, without events."""
    with LocalRecommender(Settings(redis=redis_url, group="local")) as one:
        yield one
        one._loop.run_until_complete(one._store.redis.flushdb())


@pytest.fixture
def recommender(tmp_path: Path) -> Iterator[LocalRecommender]:
    """A recommender as `recommender evaluate` has it, without events."""
    server = start_scratch_redis(tmp_path)
    with LocalRecommender(Settings(redis=server.url), list_sizes=TOP_LIST_SIZES) as one:
        yield one
    server.stop()


def test_local_learns_and_recommends(local: LocalRecommender) -> None:
    """Items that followed an item are recommended after it; the last and barred ones are not."""
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


def test_an_event_is_in_effect_for_all_later_reads(local: LocalRecommender) -> None:
    """Learning does not wait for the server, and nothing that follows overtakes it."""
    for n in range(50):
        local.learn("ada", f"item-{n}", at_s=1_790_000_000.0 + n)

        found = local.candidates("ada", at_s=1_790_000_000.0 + n)

        assert found.snapshot.history.count == n + 1


def test_no_event_is_looked_up_as_an_outcome(redis_url: str) -> None:
    """Nobody is served: what to look for would cost a tenth of each step."""
    with LocalRecommender(Settings(redis=redis_url, group="unserved", outcomes=True)) as one:
        assert not one.settings.outcomes


def test_the_last_event_is_in_effect_at_the_end(redis_url: str) -> None:
    """So it is for others, once the context has ended."""
    with LocalRecommender(Settings(redis=redis_url, group="ended")) as one:
        for n in range(3):
            one.learn("ada", f"item-{n}", at_s=1_790_000_000.0 + n)
    with redis.Redis.from_url(redis_url) as client:
        assert client.hget("{ended}:counts", "events") == b"3"
        client.flushdb()


@pytest.mark.parametrize("examples_of", [1, 3])
def test_statistics_that_change_are_read_again(redis_url: str, examples_of: int) -> None:
    """Only these are, and those read are what the store has: of known, new and rare items."""
    chance = random.Random(7)
    with LocalRecommender(
        Settings(redis=redis_url, group="told"), examples_of=examples_of, list_sizes=TOP_LIST_SIZES
    ) as one:
        cache = one._recommender.cache

        async def shown_and_stored(at_s: float) -> tuple[bytes, bytes]:
            n_items = int((await one._store.counts())["items"])
            shown = await cache.stats(np.arange(1, n_items + 1), at_s)
            keys = [one._store.key(f"stats:{page}") for page in range(8)]
            raws = await one._store.shared_values(keys)
            raw = b"".join(raw or EMPTY_PAGE for raw in raws)
            return shown.tobytes(), raw[STAT.itemsize : STAT.itemsize * (n_items + 1)]

        for n in range(400):
            item, at_s = int(chance.paretovariate(0.4)) % 400, 1_790_000_000.0 + 3 * n
            one.learn(f"user-{chance.randrange(20)}", f"item-{item}", at_s=at_s)
            if n % 20 == 0:
                shown, raw = one._complete(shown_and_stored(at_s + 1000))
                assert shown == raw
        client = redis.Redis.from_url(redis_url)
        before = client.info("commandstats")["cmdstat_mget"]["calls"]
        one._complete(cache.stats(np.arange(1, 100), 1.8e9))
        one._complete(cache.stats(np.arange(1, 100), 1.9e9))
        assert client.info("commandstats")["cmdstat_mget"]["calls"] - before <= 1
        client.flushdb()
        client.close()


@pytest.mark.parametrize("is_last", [True, False])
def test_a_step_that_fails_is_reported(redis_url: str, *, is_last: bool) -> None:
    """By the next event, or by the end."""

    def learn_all() -> None:
        settings = Settings(redis=redis_url, group="failing")
        with LocalRecommender(settings, examples_of=0) as one:
            one.learn("ada", "item-0", at_s=1_790_000_000.0)
            client.set("{failing}:counts", "not a hash")
            one.learn("ada", "item-1", at_s=1_790_000_001.0)
            if not is_last:
                one.learn("ada", "item-2", at_s=1_790_000_002.0)
                pytest.fail("no error")

    with redis.Redis.from_url(redis_url) as client:
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            learn_all()
        client.flushdb()


def stream(n: int) -> list[Interaction]:
    """Sessions that walk along a ring of items, with random jumps."""
    chance = random.Random(7)
    events = []
    for session in range(n):
        at = chance.randrange(30)
        for step in range(5):
            at = (at + 1) % 30 if chance.random() < 0.8 else chance.randrange(30)
            events.append(Interaction(f"s{session}", f"i{at}", "click", session * 60.0 + step))
    return sort_and_shuffle(events)


def test_reads_of_a_request_end_with_it(
    local: LocalRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow read in the background is there for the next question: equal events, equal answers."""

    async def slow(*arguments: Any) -> Any:
        await asyncio.sleep(0.02)
        return await read_group_state(*arguments)

    monkeypatch.setattr("models.serving.cached.cache.read_group_state", slow)
    for n in range(3):
        at_s = 1_790_000_000.0 + 1.5 * n * local.settings.cache_s
        local.learn("ada", f"item-{n}", "click", at_s=at_s)
        local.recommend("ada", k=1)

        assert local._recommender.cache.shared.read_at == at_s


def test_every_model_ranks_and_learns(local: LocalRecommender) -> None:
    """All models run on one stream; those with co-visitation beat those without."""
    compared_models: dict[str, Model] = variants(SharedRecommender(local), list(VARIANTS))
    compared_models |= {name: make() for name, make in BASELINES.items() if name not in BATCH}
    events = stream(120)

    results = run(steps(events, "sessions", max_queries=200), compared_models, clock=lambda: 0.0)
    compared = report(results, len(events), 30)

    assert len({len(result.ranks) for result in results.values()}) == 1
    for name in (*VARIANTS, "co-visitation"):
        assert compared[name]["mrr_20"]["mean"] > 2 * compared["popularity"]["mrr_20"]["mean"]
    assert compared["biased-mf"]["coverage"] > 0
    assert compared["user-personalization"]["mrr_20"]["difference"] == 0
    assert len(as_text(compared).splitlines()) == len(compared_models) + 1
    assert len(over_time(results["blend"])) == 20


@pytest.mark.slow
def test_a_frozen_test_is_not_learned(local: LocalRecommender) -> None:
    """Histories grow, so that models can predict; their learned state stays as it was."""
    events = stream(120)
    # The same ring, walked in the other direction by other users.
    later = [event._replace(user=f"t{event.user}", at_s=1e6 - event.at_s) for event in events]
    compared_models: dict[str, Model] = variants(SharedRecommender(local), list(VARIANTS))
    compared_models |= {name: make() for name, make in BASELINES.items() if name not in BATCH}
    planned = split_steps(events, sort_and_shuffle(later), frozen=True)

    results = run(planned, compared_models, clock=lambda: 0.0)

    assert sum(step.is_frozen for step in planned) == len(later)
    assert [step.query for step in planned[: len(events)]] == [None] * len(events)
    n_users = len({event.user for event in later})
    for result in results.values():
        assert len(result.ranks) == len(later) - n_users
    counts = local._loop.run_until_complete(local._store.counts())
    assert counts["events"] == len(events)
    assert measures(results["similar-items"].ranks)["hr_10"].mean() > 0.3
    learning = split_steps(events, sort_and_shuffle(later), frozen=False)
    assert not any(step.is_frozen for step in learning)


def test_observed_events_count_for_their_user_only(local: LocalRecommender) -> None:
    """An observed event changes the recommendations of its user, and of no other."""
    for n in range(4):
        for step, item in enumerate(("tent", "stove", "lamp")):
            local.learn(f"camper{n}", item, at_s=1_790_000_000.0 + 100 * n + step)
    before = local.recommend("other")

    local.observe("ada", "tent", at_s=1_790_001_000.0)
    local.observe("ada", "unheard-of", at_s=1_790_001_001.0)

    assert local.recommend("ada")[0][0] == "stove"
    assert [name for name, _ in local.recommend("other")] == [name for name, _ in before]


@pytest.mark.parametrize(
    ("name", "least"), [("item-neighbours", 0.5), ("als", 0.3), ("bpr", 0.2), ("ease", 0.5)]
)
def test_batch_methods_are_trained_repeatedly(name: str, least: float) -> None:
    """A batch model has no scores before its first training, and then those of items like these."""
    model = BASELINES[name]()
    model._every = 200  # type: ignore[attr-defined]
    result = run(steps(stream(120), "sessions", max_queries=100), {"it": model}, clock=lambda: 0.0)

    assert result["it"].ranks[0] == 0
    assert measures(result["it"].ranks)["hr_10"][50:].mean() > least


def test_next_baskets_are_compared() -> None:
    """Who buys the same again is known by the own frequencies; baskets' recalls are apart."""
    rng = np.random.default_rng(3)
    events = [
        Interaction(f"u{user}", f"i{user}-{line}", "purchase", 1e5 * week + user)
        for week in range(12)
        for user in range(30)
        for line in rng.choice(8, 4, replace=False, p=[0.3, 0.2, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05])
    ]
    names = ("own-frequency", "tifu-knn", "popularity")
    planned = steps(sort_and_shuffle(events), "baskets", max_queries=400)

    results = run(planned, {name: BASELINES[name]() for name in names}, clock=lambda: 0.0)
    compared = report(results, len(events), 240)

    for name in names[:2]:
        assert compared[name]["next_basket_repeat_20"]["mean"] > 0.95
        assert compared[name]["next_basket_explore_20"]["mean"] < 0.3
    difference = compared["popularity"]["next_basket_recall_20"]["difference"]
    assert difference + compared["popularity"]["next_basket_recall_20"]["difference_ci95"] < -0.3
    table = baskets_as_text(compared).splitlines()
    assert [line.split()[0] for line in table[1:]] == list(names)


@pytest.mark.slow
def test_quality_on_real_sessions(recommender: LocalRecommender) -> None:
    """Floors far below the measured values: they fail for defects, not for noise."""
    found, bad = interactions(read_events(recorded("serenade-toy"), now_s=2e9, as_="sessions"))
    assert (len(found), bad) == (116_285, [])
    planned = steps(sort_and_shuffle(found)[:8000], "sessions", max_queries=1500)
    compared_models = variants(SharedRecommender(recommender), list(VARIANTS)) | {
        "co-visitation": BASELINES["co-visitation"]()
    }

    compared = report(run(planned, compared_models, clock=lambda: 0.0), 8000, 1)

    mrr = {name: found["mrr_20"]["mean"] for name, found in compared.items()}
    assert mrr["user-personalization"] > 0.28
    assert compared["user-personalization"]["hr_20"]["mean"] > 0.42
    assert mrr["ranker"] > mrr["co-visitation"] - 0.01
    assert mrr["blend"] > 0.26
    # Among rare items, second-order co-visitation finds targets without first-order co-visitation.
    found_by = {name: found["hr_100"]["mean"] for name, found in compared.items()}
    assert found_by["user-personalization"] > found_by["similar-items"] + 0.02


@pytest.mark.slow
def test_quality_on_real_baskets(recommender: LocalRecommender) -> None:
    """Floors for invoices, whose lines have one time: the learned ranker leads."""
    # The file is in order of time: a part of it holds the first events.
    rows = islice(read_events(recorded("online-retail"), now_s=2e9, as_="users"), 13_000)
    found, _ = interactions(rows)
    planned = steps(sort_and_shuffle(found)[:12_000], "baskets", max_queries=400)
    assert found[-1].at_s > planned[-1].event.at_s
    compared_models = variants(SharedRecommender(recommender), list(VARIANTS)) | {
        "co-visitation": BASELINES["co-visitation"]()
    }

    compared = report(run(planned, compared_models, clock=lambda: 0.0), 12_000, 1)

    mrr = {name: found["mrr_20"]["mean"] for name, found in compared.items()}
    assert mrr["ranker"] > 0.065
    assert mrr["ranker"] > mrr["similar-items"] + 0.01
    assert compared["ranker"]["next_basket_recall_20"]["mean"] > 0.2
