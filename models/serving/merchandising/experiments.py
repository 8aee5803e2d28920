"""Experiments: a placement splits its users into arms, each with a configuration of its own.

The split is by a hash of experiment and user: the same user meets the same arm everywhere and
always, and which arm that is says nothing about the arm in another experiment.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from models.errors import InvalidRequest
from models.serving.merchandising.placements import Configuration, Placement
from models.state.named_versions import (
    NAME_PATTERN,
    SavedVersion,
    current_version,
    current_versions,
    save_version,
)
from models.state.store import Store
from models.state.timed_cache import TimedCache

FRESH_S = 1.0
"""Age up to which experiments are used without a question to Redis."""

MAX_BUCKETS = 5000
"""Times of first lists that an experiment counts apart, for each arm, at most."""

Metric = Literal["click", "conversion", "clicks", "value"]
ExperimentName = Annotated[str, Meta(pattern=NAME_PATTERN)]


class Arm(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One way of answering, and its share of the users."""

    name: ExperimentName
    share: Annotated[
        float, Meta(gt=0, le=1000, description="Of the users, relative to the other arms.")
    ] = 1.0
    configuration: Annotated[
        Configuration | None,
        Meta(description="As of a placement; without one, what the placement has."),
    ] = None


class Guardrail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric that no arm may harm: one that does ends by itself."""

    metric: Annotated[Metric, Meta(description="What must not become worse.")]
    tolerated: Annotated[
        float, Meta(ge=0, description="By how much a user's mean may be below the control's.")
    ] = 0.0


class ExperimentPlan(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Plan of an experiment: its arms, and the metric that compares them."""

    placement: ExperimentName
    arms: Annotated[
        tuple[Arm, ...],
        Meta(min_length=2, max_length=10, description="The first one is the control."),
    ]
    metric: Annotated[
        Metric,
        Meta(
            description="Of a user: whether it clicked, whether it bought, number of clicked items,"
            " or value of what it took."
        ),
    ] = "click"
    guardrail: Guardrail | None = None
    horizon_s: Annotated[
        int,
        Meta(
            ge=1, le=30 * 86400, description="A user's outcomes count so long after its first list."
        ),
    ] = 86400
    days: Annotated[float, Meta(gt=0, le=365, description="It ends by itself after that.")] = 30.0


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """An experiment that was started.

    Attributes
    ----------
    id
        Of this start: sums are kept under it.
    stopped_at
        0 while it is running; Unix seconds.
    ended_arms
        When each arm that a guardrail has ended ended.
    """

    id: str
    plan: ExperimentPlan
    started_at: float
    stopped_at: float = 0.0
    ended_arms: dict[str, float] = {}

    @property
    def bucket_s(self) -> int:
        """Width of the times of first lists that are counted together."""
        return max(1, self.plan.horizon_s // 8, math.ceil(self.plan.days * 86400 / MAX_BUCKETS))

    def ends_at(self) -> float:
        """Time at which it ended, or will have ended by itself."""
        return self.stopped_at or self.started_at + self.plan.days * 86400

    def is_running(self, now_s: float) -> bool:
        """True while it is neither stopped nor over."""
        return not self.stopped_at and now_s < self.ends_at()


Check = Callable[[Configuration], Awaitable[object]]


class ChosenConfiguration(NamedTuple):
    """Configuration of a placement for a user, and the arm that has it.

    Attributes
    ----------
    experiment
        None for who is in no experiment, or in an arm that was ended.
    """

    configuration: Configuration
    arm: str = ""
    experiment: Experiment | None = None


def check_plan(plan: ExperimentPlan) -> None:
    """Check what the schema cannot say.

    Raises
    ------
    InvalidRequest
        With the place and the rule that is broken.
    """
    names = [arm.name for arm in plan.arms]
    if len(set(names)) < len(names):
        raise InvalidRequest("two arms have the same name - at `$.arms`")
    if len({msgspec.json.encode(arm.configuration) for arm in plan.arms}) == 1:
        raise InvalidRequest("all arms have the same configuration: there is nothing to compare")


def arm_of(experiment: Experiment, unit: str) -> Arm:
    """The arm of a user or session; the same at each call, and in every process.

    >>> plan = ExperimentPlan(placement="home", arms=(Arm(name="a"), Arm(name="b", share=3)))
    >>> one = Experiment(id="e-1", plan=plan, started_at=0)
    >>> [arm_of(one, f"user{n}").name for n in range(8)]
    ['b', 'b', 'a', 'b', 'a', 'a', 'b', 'b']
    """
    digest = hashlib.blake2b(f"{experiment.id}\0{unit}".encode(), digest_size=8).digest()
    arms = experiment.plan.arms
    place = int.from_bytes(digest, "big") / 2**64 * math.fsum(arm.share for arm in arms)
    for arm in arms:
        place -= arm.share
        if place < 0:
            return arm
    return arms[-1]


def configuration_for(
    placement: Placement, experiment: Experiment | None, unit: str | None
) -> ChosenConfiguration:
    """Configuration of a placement for a user or session; `unit` is None for an unknown one."""
    if experiment is None or unit is None:
        return ChosenConfiguration(placement.configuration)
    arm = arm_of(experiment, unit)
    if arm.name in experiment.ended_arms:
        control = experiment.plan.arms[0]
        return ChosenConfiguration(control.configuration or placement.configuration)
    return ChosenConfiguration(arm.configuration or placement.configuration, arm.name, experiment)


class ExperimentCache:
    """The running experiments of a group by placement, at most `FRESH_S` old."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held = TimedCache[str, Mapping[str, Experiment]](size=1, max_age_s=FRESH_S)

    async def running(self, placement: str, now_s: float) -> Experiment | None:
        """The experiment that is running at a placement, if there is one."""
        (found,) = await self._held.read(["all"], now_s, self._read)
        one = None if found is None else found.get(placement)
        return one if one is not None and now_s < one.ends_at() else None

    def drop(self) -> None:
        """Forget what was read: an experiment was just started or stopped here."""
        self._held.invalidate(["all"])

    async def _read(self, names: list[str]) -> list[Mapping[str, Experiment] | None]:
        found = {
            one.plan.placement: one
            for one in (await experiments(self._store)).values()
            if not one.stopped_at
        }
        return [found for _ in names]


async def experiments(store: Store) -> dict[str, Experiment]:
    """All experiments of a group, stopped ones too, by name."""
    saved = await current_versions(store, "experiments")
    return {name: _experiment(one) for name, one in saved.items()}


async def start_experiment(
    store: Store, name: str, plan: ExperimentPlan, *, check: Check, by: str, now_s: float
) -> Experiment:
    """Start an experiment; one of that name that was stopped is replaced.

    Parameters
    ----------
    check
        Raises `InvalidRequest` for a configuration that could not be a placement's.

    Raises
    ------
    InvalidRequest
        The plan breaks a rule, there is no such placement, or an experiment is running there.
    LimitExceeded
        There are too many experiments.
    """
    check_plan(plan)
    for n, arm in enumerate(plan.arms):
        if arm.configuration is not None:
            try:
                await check(arm.configuration)
            except InvalidRequest as error:
                raise InvalidRequest(f"{error} - in `$.arms[{n}].configuration`") from error
    if await current_version(store, "placements", plan.placement) is None:
        raise InvalidRequest(f"there is no placement {plan.placement!r} - at `$.placement`")
    await check_free(store, plan.placement, now_s)
    same = (await experiments(store)).get(name)
    if same is not None and same.is_running(now_s):
        raise InvalidRequest(f"experiment {name!r} is running: stop it, or take another name")
    started = Experiment(id=f"{name}-{round(1000 * now_s)}", plan=plan, started_at=now_s)
    await save_experiment(store, name, started, by=by, now_s=now_s)
    return started


async def check_free(store: Store, placement: str, now_s: float) -> None:
    """Raise `InvalidRequest` if an experiment is running at a placement."""
    for name, one in (await experiments(store)).items():
        if one.plan.placement == placement and one.is_running(now_s):
            raise InvalidRequest(f"experiment {name!r} is running at {placement!r}: stop it")


async def save_experiment(
    store: Store, name: str, experiment: Experiment, *, by: str, now_s: float
) -> None:
    """Save an experiment as it is now; raises `LimitExceeded` if there are too many."""
    value = msgspec.json.encode(experiment)
    await save_version(store, "experiments", name, value, saved_by=by, now_s=now_s)


async def stop_experiment(store: Store, name: str, *, by: str, now_s: float) -> Experiment | None:
    """Stop an experiment: its placement answers as configured; None if there is none."""
    found = (await experiments(store)).get(name)
    if found is not None and not found.stopped_at:
        found = msgspec.structs.replace(found, stopped_at=min(now_s, found.ends_at()))
        await save_experiment(store, name, found, by=by, now_s=now_s)
    return found


def _experiment(saved: SavedVersion) -> Experiment:
    return msgspec.json.decode(bytes(saved.value), type=Experiment)
