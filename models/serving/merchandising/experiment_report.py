"""The report of an experiment: outcomes of each arm's users, and what may be said by now."""

from __future__ import annotations

import struct
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.serving.merchandising.experiments import Experiment, Metric
from models.state.outcomes.served_outcomes import experiment_sums
from models.state.store import Store
from models.statistics.confidence_sequences import Difference, UserSums, difference, shares_sums
from models.statistics.sample_ratio import ALPHA, mismatch_p

RISK = 0.05
"""Probability that the experiment calls any arm better or worse that is not."""

SUMS = struct.Struct("<7d")
"""Users; users who clicked, who bought; clicks and their squares; value and its squares."""

HEAD = (
    f"{'arm':<16} {'users':>9} {'complete':>9} {'mean':>9} {'difference':>11} "
    f"{'from':>9} {'to':>9}  verdict"
)

Verdict = Literal["control", "better", "worse", "no difference yet", "too few users", "ended"]


class ArmReport(msgspec.Struct, frozen=True, rename="camel"):
    """An arm's users and their outcomes."""

    name: str
    share: Annotated[float, Meta(description="Configured, of all users.")]
    users: Annotated[int, Meta(description="Users who were shown a list of the arm.")]
    complete: Annotated[int, Meta(description="Of these, those whose horizon is over; they count.")]
    mean: Annotated[float, Meta(description="Of the metric, a complete user.")]
    difference: Annotated[
        float | None, Meta(description="Of the means: this arm's less the control's.")
    ]
    low: Annotated[
        float | None,
        Meta(description="The true difference is above this, however often one looks (95 %)."),
    ]
    high: Annotated[float | None, Meta(description="And below this.")]
    verdict: Verdict


class ExperimentReport(msgspec.Struct, frozen=True, rename="camel"):
    """Results of an experiment so far."""

    name: str
    placement: str
    state: Literal["running", "stopped"]
    started_at: Annotated[float, Meta(description="Unix seconds.")]
    ends_at: Annotated[float, Meta(description="When it ended, or will end by itself.")]
    metric: Metric
    horizon_s: int
    arms: list[ArmReport]
    sample_ratio_p: Annotated[
        float, Meta(description="Below .001 users are not split as configured: trust nothing.")
    ]
    conclusion: Annotated[str, Meta(description="In words.")]


async def arm_sums(
    store: Store, experiment: Experiment, metric: Metric, *, now_s: float
) -> dict[str, tuple[int, UserSums]]:
    """Of each arm all its users, and the sums of a metric over the complete ones.

    Users who came when an arm had already been ended count in no arm.
    """
    users = {arm.name: 0 for arm in experiment.plan.arms}
    found = {arm.name: UserSums(0, 0.0, 0.0, 0) for arm in experiment.plan.arms}
    until = min([*experiment.ended_arms.values(), experiment.ends_at()])
    complete_at = now_s - experiment.plan.horizon_s - experiment.bucket_s
    for field, raw in (await experiment_sums(store, experiment.id)).items():
        arm, _, bucket = field.decode().partition("\t")
        if not bucket or arm not in found or int(float(bucket)) > until:
            continue
        sums = SUMS.unpack(raw)
        users[arm] += int(sums[0])
        if float(bucket) <= complete_at:
            one = _metric_sums(sums, metric)
            found[arm] = found[arm].plus(one)
    return {name: (users[name], found[name]) for name in found}


async def experiment_report(
    store: Store, name: str, experiment: Experiment, *, now_s: float
) -> ExperimentReport:
    """The report; its verdicts hold however often it is asked for."""
    plan = experiment.plan
    sums = await arm_sums(store, experiment, plan.metric, now_s=now_s)
    control, whole = plan.arms[0], sum(arm.share for arm in plan.arms)
    alpha = RISK / (len(plan.arms) - 1)
    arms = []
    for arm in plan.arms:
        users, one = sums[arm.name]
        seen = None
        if arm is not control:
            seen = difference(sums[control.name][1], one, alpha=alpha)
        verdict: Verdict = "control" if arm is control else _verdict(seen)
        if arm.name in experiment.ended_arms:
            verdict = "ended"
        estimate, low, high = seen or (None, None, None)
        share = arm.share / whole
        arms.append(
            ArmReport(arm.name, share, users, one.users, one.mean, estimate, low, high, verdict)
        )
    p = mismatch_p([sums[arm.name][0] for arm in plan.arms], [arm.share for arm in plan.arms])
    is_running = not experiment.stopped_at and now_s < experiment.ends_at()
    return ExperimentReport(
        name,
        plan.placement,
        "running" if is_running else "stopped",
        experiment.started_at,
        experiment.ends_at(),
        plan.metric,
        plan.horizon_s,
        arms,
        p,
        _conclusion(arms, p, plan.metric),
    )


async def harmful_arms(store: Store, experiment: Experiment, *, now_s: float) -> list[str]:
    """Arms that harm the guardrail metric more than is tolerated, whenever one asks."""
    guardrail = experiment.plan.guardrail
    if guardrail is None:
        return []
    sums = await arm_sums(store, experiment, guardrail.metric, now_s=now_s)
    control, *others = experiment.plan.arms
    found = []
    for arm in others:
        if arm.name not in experiment.ended_arms:
            pair = sums[control.name][1], sums[arm.name][1]
            seen = difference(*pair, alpha=RISK / len(others))
            if seen is not None and seen.high < -guardrail.tolerated:
                found.append(arm.name)
    return found


def report_lines(report: ExperimentReport) -> list[str]:
    """The report as lines of text."""
    lines = [
        f"experiment {report.name} at {report.placement}, {report.state}: {report.metric} a user",
        HEAD,
    ]
    for arm in report.arms:
        numbers = (arm.difference, arm.low, arm.high)
        shown = ["-" if one is None else f"{one:+.4f}" for one in numbers]
        lines.append(
            f"{arm.name:<16} {arm.users:>9,} {arm.complete:>9,} {arm.mean:>9.4f} {shown[0]:>11} "
            f"{shown[1]:>9} {shown[2]:>9}  {arm.verdict}"
        )
    return [*lines, report.conclusion]


def _metric_sums(sums: tuple[float, ...], metric: Metric) -> UserSums:
    users, clicked, bought, clicks, clicks2, value, value2 = sums
    n = int(users)
    if metric == "click":
        return shares_sums(n, int(clicked))
    if metric == "conversion":
        return shares_sums(n, int(bought))
    if metric == "clicks":
        return UserSums(n, clicks, clicks2, int(clicked))
    return UserSums(n, value / 1e3, value2 / 1e6, int(max(clicked, bought)))


def _verdict(seen: Difference | None) -> Verdict:
    if seen is None:
        return "too few users"
    if seen.low > 0:
        return "better"
    return "worse" if seen.high < 0 else "no difference yet"


def _conclusion(arms: list[ArmReport], p: float, metric: Metric) -> str:
    if p < ALPHA:
        return (
            f"users are not split as configured (p = {p:.1g}): find out why, and trust nothing here"
        )
    control, *others = arms
    better = [arm for arm in others if arm.verdict == "better"]
    if better:
        best = max(better, key=lambda arm: arm.mean)
        return (
            f"{best.name} is better than {control.name}: {metric} of {best.mean:.4f} a user "
            f"instead of {control.mean:.4f}, by {best.low:.4f} at least"
        )
    ended = [arm.name for arm in others if arm.verdict == "ended"]
    told = f"; ended by the guardrail: {', '.join(ended)}" if ended else ""
    if all(arm.verdict in {"worse", "ended"} for arm in others):
        return f"{control.name} is better than all other arms{told}"
    if all(arm.verdict in {"too few users", "ended"} for arm in others):
        return f"too few users whose horizon is over to say anything{told}"
    return f"no arm is better than {control.name} by what is known so far{told}"
