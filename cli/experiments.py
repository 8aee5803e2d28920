"""Commands of experiments: list, start, stop and report."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from cli.audit import record
from cli.group import main
from cli.servers import reachable_settings

if TYPE_CHECKING:
    from models.settings import Settings
    from models.state.store import Store

T = TypeVar("T")


@main.group()
def experiments() -> None:
    """Compare configurations of a placement on parts of its users."""


@experiments.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object by name.")
def list_experiments(as_json: bool) -> None:
    """Show all experiments, stopped ones too."""
    import msgspec

    from models.serving.merchandising.experiments import experiments as read_all

    found = _stored(reachable_settings(), read_all)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    for name, one in found.items():
        is_running = not one.stopped_at and time.time() < one.ends_at()
        arms = ", ".join(arm.name for arm in one.plan.arms)
        click.echo(
            f"{name}: {'running' if is_running else 'stopped'} at {one.plan.placement}: {arms}"
        )


@experiments.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def start(name: str, file: Path) -> None:
    """Start the experiment of a plan in FILE, as JSON.

    docs/experiments.md has an example.
    """
    import msgspec

    from models.errors import InvalidRequest
    from models.personalize.resources.registry import Registry
    from models.serving.merchandising.experiments import (
        Experiment,
        ExperimentPlan,
        start_experiment,
    )
    from models.serving.merchandising.named_things import check_names, with_saved_filters
    from models.serving.merchandising.placements import Configuration, check_configuration

    try:
        plan = msgspec.json.decode(file.read_bytes(), type=ExperimentPlan)
    except msgspec.DecodeError as error:
        raise InvalidRequest(str(error)) from error
    settings = reachable_settings()
    record(settings, "start_experiment", [name], group=settings.group)

    async def begin(store: Store) -> Experiment:
        group = f"dataset-group/{settings.group}"
        filters = await Registry(store.redis, settings).page("filter", group, limit=1000)
        expressions = {one.data["name"]: str(one.data["filterExpression"]) for one in filters}

        async def expression_of(filter_name: str) -> str:
            if filter_name not in expressions:
                raise InvalidRequest(f"there is no filter {filter_name!r}")
            return expressions[filter_name]

        async def check(configuration: Configuration) -> None:
            found = await with_saved_filters(configuration, expression_of)
            check_configuration(found)
            await check_names(store, found)

        return await start_experiment(store, name, plan, check=check, by="cli", now_s=time.time())

    _stored(settings, begin)
    click.echo(f"{name} is running at {plan.placement}")


@experiments.command()
@click.argument("name")
def stop(name: str) -> None:
    """Stop an experiment: its placement answers as it is configured."""
    from models.errors import InvalidRequest
    from models.serving.merchandising.experiments import Experiment, stop_experiment

    settings = reachable_settings()
    record(settings, "stop_experiment", [name], group=settings.group)

    async def end(store: Store) -> Experiment | None:
        return await stop_experiment(store, name, by="cli", now_s=time.time())

    if _stored(settings, end) is None:
        raise InvalidRequest(f"there is no experiment {name!r}")
    click.echo(f"{name} is stopped")


@experiments.command("report")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def report_experiment(name: str, as_json: bool) -> None:
    """Show each arm's users and outcomes, and what may be said of them by now."""
    import msgspec

    from models.errors import InvalidRequest
    from models.serving.merchandising.experiment_report import (
        ExperimentReport,
        experiment_report,
        report_lines,
    )
    from models.serving.merchandising.experiments import experiments as read_all

    async def read(store: Store) -> ExperimentReport:
        found = (await read_all(store)).get(name)
        if found is None:
            raise InvalidRequest(f"there is no experiment {name!r}")
        return await experiment_report(store, name, found, now_s=time.time())

    made = _stored(reachable_settings(), read)
    click.echo(msgspec.json.encode(made).decode() if as_json else "\n".join(report_lines(made)))


def _stored(settings: Settings, action: Callable[[Store], Awaitable[T]]) -> T:
    """The result of an action on the group's store."""
    from models.state.clients.client import client_of
    from models.state.shards.sharded_store import store_of

    async def act() -> T:
        store = store_of(client_of(settings), settings)
        try:
            return await action(store)
        finally:
            await store.close()

    return asyncio.run(act())
