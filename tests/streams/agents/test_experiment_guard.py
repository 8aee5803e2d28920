"""The guard of experiments, on sums as the atomic step writes them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from models.audit_entries import AuditEntry
from models.errors import InvalidRequest
from models.serving.merchandising.experiment_report import SUMS, experiment_report, report_lines
from models.serving.merchandising.experiments import (
    Arm,
    Experiment,
    ExperimentCache,
    ExperimentPlan,
    Guardrail,
    arm_of,
    check_plan,
    configuration_for,
    experiments,
    start_experiment,
    stop_experiment,
)
from models.serving.merchandising.placements import Configuration, Placement
from models.state.named_versions import save_version
from models.state.store import Store
from streams.agents.experiment_guard import guard_experiments
from tests.models.conftest import make_store, redis_url, store  # noqa: F401  fixtures
from tests.models.state.reference import NOW

BOLD = Configuration(num_results=3)
PLAN = ExperimentPlan(
    placement="home",
    arms=(Arm(name="control"), Arm(name="bold", configuration=BOLD)),
    guardrail=Guardrail(metric="conversion", tolerated=0.01),
    horizon_s=10,
)


async def unchecked(_: Configuration) -> None:
    """Checks no configuration."""


async def running(store: Store, **bought: int) -> Experiment:  # noqa: F811
    """A running experiment with 1000 complete users in each arm, of whom so many have bought."""
    await save_version(store, "placements", "home", b"{}", saved_by="test", now_s=NOW)
    one = await start_experiment(store, "e", PLAN, check=unchecked, by="test", now_s=NOW)
    for arm, count in bought.items():
        sums = SUMS.pack(1000, 100, count, 100, 100, 0, 0)
        await store.redis.hset(store.key(f"experiment:{one.id}"), f"{arm}\t{NOW}", sums)
    return one


async def test_an_arm_that_does_harm_is_ended_once(store: Store) -> None:  # noqa: F811
    """After the audit log knows; its users meet the control, and no longer count."""
    one = await running(store, control=200, bold=100)
    written: list[AuditEntry] = []

    async def write(entry: AuditEntry) -> None:
        written.append(entry)

    assert await guard_experiments(store, write, now_s=NOW + 5) == []  # nobody is complete yet
    later = NOW + 2 * one.bucket_s
    assert await guard_experiments(store, write, now_s=later) == [("e", "bold")]
    assert await guard_experiments(store, write, now_s=later) == []

    assert [(entry.action, entry.targets) for entry in written] == [
        ("end_experiment_arm", ["e/bold"])
    ]
    changed = (await experiments(store))["e"]
    assert changed.ended_arms == {"bold": later}
    unit = next(f"u{n}" for n in range(50) if arm_of(changed, f"u{n}").name == "bold")
    placement = Placement("home", 1, Configuration())
    assert configuration_for(placement, changed, unit) == (Configuration(), "", None)
    assert configuration_for(placement, one, unit) == (BOLD, "bold", one)
    report = await experiment_report(store, "e", changed, now_s=later)
    assert report.arms[1].verdict == "ended"
    assert "guardrail" in report_lines(report)[-1]


async def test_an_arm_that_does_no_harm_goes_on(store: Store) -> None:  # noqa: F811
    """Nor does one whose harm is within what is tolerated, or may be chance."""
    one = await running(store, control=200, bold=190)

    async def write(entry: AuditEntry) -> None:
        raise AssertionError(entry)

    assert await guard_experiments(store, write, now_s=NOW + 2 * one.bucket_s) == []


async def test_a_report_tells_the_better_arm_and_a_wrong_split(
    make_store: Callable[..., Store],  # noqa: F811
) -> None:
    """By complete users; with a wrong split it says to trust nothing."""
    store = make_store()  # noqa: F811
    one = await running(store)
    key = store.key(f"experiment:{one.id}")
    for arm, clicked, users in (("control", 100, 1000), ("bold", 200, 1000)):
        await store.redis.hset(key, f"{arm}\t{NOW}", SUMS.pack(users, clicked, 0, 0, 0, 0, 0))

    early = await experiment_report(store, "e", one, now_s=NOW + 1)
    report = await experiment_report(store, "e", one, now_s=NOW + 2 * one.bucket_s)
    await store.redis.hset(key, f"bold\t{NOW}", SUMS.pack(1500, 300, 0, 0, 0, 0, 0))
    wrong = await experiment_report(store, "e", one, now_s=NOW + 2 * one.bucket_s)

    assert [arm.verdict for arm in early.arms] == ["control", "too few users"]
    assert (report.arms[1].verdict, report.arms[1].mean) == ("better", 0.2)
    assert report.conclusion.startswith("bold is better than control")
    assert wrong.conclusion.startswith("users are not split as configured")


async def test_one_experiment_runs_at_a_placement(store: Store) -> None:  # noqa: F811
    """Another one is refused until it has stopped; the cache knows which one runs."""
    one = await running(store)
    cache = ExperimentCache(store)
    assert await cache.running("home", NOW) == one
    for name in ("e", "f"):
        with pytest.raises(InvalidRequest, match="is running"):
            await start_experiment(store, name, PLAN, check=unchecked, by="test", now_s=NOW)
    plan = msgspec.structs.replace(PLAN, placement="nowhere")
    with pytest.raises(InvalidRequest, match="no placement"):
        await start_experiment(store, "f", plan, check=unchecked, by="test", now_s=NOW)

    await stop_experiment(store, "e", by="test", now_s=NOW + 1)
    cache.drop()

    assert await cache.running("home", NOW + 2) is None
    assert await stop_experiment(store, "unknown", by="test", now_s=NOW) is None
    again = await start_experiment(store, "e", PLAN, check=unchecked, by="test", now_s=NOW + 3)
    assert again.id != one.id


@pytest.mark.unit
def test_a_split_is_as_configured() -> None:
    """By the hash alone, and anew in each experiment."""
    plan = msgspec.structs.replace(PLAN, arms=(PLAN.arms[0], Arm(name="bold", share=3.0)))
    one, other = (Experiment(id=f"e-{n}", plan=plan, started_at=0.0) for n in (1, 2))
    units = [f"user{n}" for n in range(4000)]
    bold = [arm_of(one, unit).name == "bold" for unit in units]

    assert 0.73 < sum(bold) / 4000 < 0.77
    both = zip(units, bold, strict=True)
    same = sum(arm_of(other, unit).name == "bold" for unit, is_bold in both if is_bold)
    assert 0.72 < same / sum(bold) < 0.78


@pytest.mark.unit
def test_a_plan_compares_something() -> None:
    """Arms have names of their own, and differ."""
    twice = (Arm(name="a"), Arm(name="a", configuration=BOLD))
    alike = (Arm(name="a"), Arm(name="b"))
    for arms, text in ((twice, "same name"), (alike, "nothing to compare")):
        with pytest.raises(InvalidRequest, match=text):
            check_plan(msgspec.structs.replace(PLAN, arms=arms))
