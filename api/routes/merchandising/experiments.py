"""Routes of experiments: they are started, stopped and reported."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Request, Response
from msgspec import Meta

from api.dependencies import Services
from api.openapi import INVALID_REQUEST_ERROR, SERVER_ERRORS, documented
from api.request_params import parse_body
from api.schemas import ResponseBody, json_response
from models.errors import InvalidRequest, LimitExceeded
from models.serving.merchandising.experiment_report import ExperimentReport, experiment_report
from models.serving.merchandising.experiments import (
    Experiment,
    ExperimentPlan,
    experiments,
    start_experiment,
    stop_experiment,
)
from models.state.named_versions import NAME_PATTERN

router = APIRouter()

ExperimentPath = Annotated[str, Path(min_length=1, max_length=64, pattern=NAME_PATTERN)]

NOT_THERE = INVALID_REQUEST_ERROR | SERVER_ERRORS | {404: "There is no experiment of that name."}

PLAN = {
    "placement": "home",
    "arms": [
        {"name": "control"},
        {"name": "diverse", "configuration": {"rules": [{"diversity": 0.3}]}},
    ],
    "metric": "click",
    "guardrail": {"metric": "conversion"},
}


class ShownExperiment(ResponseBody, frozen=True):
    """An experiment as it was started."""

    name: str
    plan: ExperimentPlan
    started_at: Annotated[float, Meta(description="Unix seconds.")]
    stopped_at: Annotated[float | None, Meta(description="null while it is running.")]
    ended_arms: Annotated[
        dict[str, float], Meta(description="Arms that the guardrail has ended, and when.")
    ]


class ShownExperiments(ResponseBody, frozen=True):
    """Experiments by name."""

    experiments: list[ShownExperiment]


@router.get("/experiments", **documented(ShownExperiments, "All experiments"))
async def list_experiments(request: Request) -> Response:
    """Experiments that are running, and those that were stopped."""
    services: Services = request.app.state.services
    with services.redis_gate:
        found = await experiments(services.store)
    now_s = services.clock()
    return json_response(
        ShownExperiments([_shown(name, one, now_s) for name, one in found.items()])
    )


@router.get(
    "/experiments/{name}",
    **documented(ExperimentReport, "What an experiment has shown so far", errors=NOT_THERE),
)
async def report_experiment(request: Request, name: ExperimentPath) -> Response:
    """Each arm's users and outcomes, with verdicts that hold however often one looks."""
    services: Services = request.app.state.services
    with services.redis_gate:
        found = (await experiments(services.store)).get(name)
        if found is None:
            raise HTTPException(404, f"there is no experiment {name!r}")
        report = await experiment_report(services.store, name, found, now_s=services.clock())
    return json_response(report)


@router.post(
    "/experiments/{name}/start",
    **documented(ShownExperiment, "Start an experiment", body=ExperimentPlan, example=PLAN),
)
async def start(request: Request, name: ExperimentPath) -> Response:
    """Checks a plan and starts it; within a second the placement's users meet its arms."""
    services: Services = request.app.state.services
    plan = parse_body(await request.body(), ExperimentPlan)
    await services.audit(request.scope, "start_experiment", [name], services.settings.group)
    by, now_s = request.scope["caller"].name, services.clock()
    with services.redis_gate:
        try:
            started = await start_experiment(
                services.store, name, plan, check=services.checked, by=by, now_s=now_s
            )
        except LimitExceeded as error:
            raise InvalidRequest(str(error)) from error
    services.experiments.drop()
    return json_response(_shown(name, started, now_s))


@router.post(
    "/experiments/{name}/stop",
    **documented(ShownExperiment, "Stop an experiment", errors=NOT_THERE),
)
async def stop(request: Request, name: ExperimentPath) -> Response:
    """Stops an experiment: within a second the placement answers as it is configured."""
    services: Services = request.app.state.services
    await services.audit(request.scope, "stop_experiment", [name], services.settings.group)
    by, now_s = request.scope["caller"].name, services.clock()
    with services.redis_gate:
        stopped = await stop_experiment(services.store, name, by=by, now_s=now_s)
    if stopped is None:
        raise HTTPException(404, f"there is no experiment {name!r}")
    services.experiments.drop()
    return json_response(_shown(name, stopped, now_s))


def _shown(name: str, one: Experiment, now_s: float) -> ShownExperiment:
    ended_s = one.ends_at()
    stopped_at = ended_s if one.stopped_at or ended_s <= now_s else None
    return ShownExperiment(name, one.plan, one.started_at, stopped_at, one.ended_arms)
