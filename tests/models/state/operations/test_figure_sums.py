"""Key figures over time: what several processes add is one series, bounded, with gaps as gaps."""

from __future__ import annotations

from models.key_figures import Additions, quality_sums, source_sums
from models.state.operations.figure_sums import POINTS, FigureWriter, add_sums, read_figures
from models.state.store import Store
from tests.models.state.reference import NOW

MINUTE = NOW // 60 * 60.0


async def test_processes_add_to_one_series(store: Store) -> None:
    """Two workers and an API: rates, quantiles and lag are those of all of them."""
    totals = [{"events": 0.0, "fresh/0.01": 0.0, "fresh/+Inf": 0.0} for _ in range(2)]
    workers = [FigureWriter(store, "worker_s", one.copy, now_s=MINUTE) for one in totals]
    api = FigureWriter(store, "api_s", dict, now_s=MINUTE)
    for one in totals:
        one.update({"events": 60.0, "fresh/0.01": 50.0, "fresh/+Inf": 60.0})

    for worker in workers:
        await worker.write(now_s=MINUTE + 30, lag=5, newest={"memory": 7e6})
        await worker.write(now_s=MINUTE + 40)
    await api.write(now_s=MINUTE + 40)

    for step in POINTS:
        before, point = await read_figures(store, step, 2, now_s=MINUTE + 40)
        assert before.events_per_s is before.freshness_p50_ms is before.memory_bytes is None
        elapsed_s = 40 if step == "minute" else 80
        assert point.events_per_s == round(120 / elapsed_s, 3)
        assert point.lag == round(2 * 5 * 30 / elapsed_s, 3)
        assert point.freshness_p50_ms == 6.0
        assert (point.requests_per_s, point.memory_bytes) == (0.0, 7e6)


async def test_the_series_end(store: Store) -> None:
    """Every key ends by itself: minutes after an hour, hours after 30 days."""
    await add_sums(store, {"events": 1.0}, {}, now_s=MINUTE)

    keys = [key async for key in store.redis.scan_iter(store.key("figures:*"))]
    ttls = sorted([await store.redis.ttl(key) for key in keys])
    assert len(keys) == 2
    assert 3600 <= ttls[0] <= 3660
    assert 30 * 86400 <= ttls[1] <= 30 * 86400 + 3600


async def test_quality_has_intervals(store: Store) -> None:
    """HR and MRR of what served and of each compared order, on the same examples."""
    for rank in (1, 2, 0, 30):
        sums = quality_sums("interactions", {"ranker": rank, "blend": 4}, "blend", cutoff=20)
        await add_sums(store, sums, {}, now_s=MINUTE)

    (point,) = await read_figures(store, "hour", 1, now_s=MINUTE)

    found = {one.order: one for one in point.quality}
    assert {one.examples for one in found.values()} == {4}
    assert (found["served"].mrr, found["blend"].hr) == (0.25, 1.0)
    ranker = found["ranker"]
    assert (ranker.hr, ranker.mrr) == (0.5, 0.375)
    assert ranker.hr_interval[0] < 0.5 < ranker.hr_interval[1]
    assert 0 <= ranker.mrr_interval[0] < 0.375 < ranker.mrr_interval[1] <= 1


def test_only_what_is_new_is_added() -> None:
    """What has come since the last time is taken, once."""
    totals = {"a": 3.0}
    added = Additions(lambda: totals)

    totals.update(a=5.0, b=1.0)

    assert added.take() == {"a": 2.0, "b": 1.0}
    assert added.take() == {}


async def test_sources_and_levels_have_shares(store: Store) -> None:
    """What each candidate source had, of all choices: those that were missed count as well."""
    for sources in (["event", "alike"], ["event"], ["lists"], []):
        await add_sums(store, source_sums(sources), {}, now_s=MINUTE)
    await add_sums(store, {"level/ranked": 3.0, "level/trending": 1.0}, {}, now_s=MINUTE)

    (point,) = await read_figures(store, "minute", 1, now_s=MINUTE)

    found = {one.source: (one.choices, one.found, one.alone) for one in point.sources}
    assert found == {"alike": (4, 0.25, 0.0), "event": (4, 0.5, 0.25), "lists": (4, 0.25, 0.25)}
    assert point.levels == {"ranked": 3, "trending": 1}
