"""The command that drills: faults on a real stack, and what they lost or doubled."""

from __future__ import annotations

import json
import logging
import signal
import tempfile
from pathlib import Path

import click

from cli.group import main, say
from models.errors import require_one_shard
from models.settings import Settings

DEFAULT_MINUTES = 2.0
FAILED = 1


@main.command()
@click.option("--minutes", type=click.FloatRange(0.1, 10_000), help="For how long; default 2.")
@click.option("--faults", type=click.IntRange(1, 1_000_000), help="How many, over all kinds.")
@click.option("--seed", type=int, default=7, show_default=True, help="Of the load and of faults.")
@click.option(
    "--rate",
    type=click.FloatRange(1, 1000),
    default=40,
    show_default=True,
    help="Messages a second.",
)
@click.option("--only", default="", help="Kinds of faults, with commas between them.")
@click.option("--list", "lists", is_flag=True, help="Only list the kinds that are possible.")
@click.option(
    "--kafka-folder",
    type=click.Path(path_type=Path),
    help="An Apache Kafka, as downloaded, instead of the embedded broker; needs Java 17.",
)
@click.option("--redis-server", help="A program to run instead of the embedded Redis.")
@click.option(
    "--configured",
    is_flag=True,
    help="On the servers that the settings name, in a dataset group of its own.",
)
@click.option("--yes", is_flag=True, help="With --configured: do not ask.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder in which data and logs stay.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
def drill(
    minutes: float | None,
    faults: int | None,
    seed: int,
    rate: float,
    only: str,
    lists: bool,
    kafka_folder: Path | None,
    redis_server: str | None,
    configured: bool,
    yes: bool,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Cause faults under load, and find out whether anything was lost or counted twice.

    Servers, two workers and an API are started for it and thrown away. What has taken effect is
    compared with an undisturbed run of the same messages: exit code 1 if it differs. docs/drill.md
    """
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise click.UsageError("--keep needs an empty folder: data of another drill would be read")
    if configured and (kafka_folder or redis_server):
        raise click.UsageError("--configured has its servers from the settings")
    # Before the drill is loaded, which takes seconds: servers that cannot be used are told at once.
    settings = _settings() if configured else None
    if settings is not None:
        require_one_shard(settings.shards, "A drill on your servers")

    from models.code_cache import compile_once
    from ops.drill.course import Plan, chosen, run
    from ops.drill.faults.fault_registry import FAULTS
    from ops.drill.report import report_lines, report_of
    from ops.drill.sites import (
        Wish,
        configured_powers,
        configured_site,
        throwaway_powers,
        throwaway_site,
    )

    powers = throwaway_powers(kafka_folder) if settings is None else configured_powers(settings)
    names = chosen([name for name in only.split(",") if name], powers)
    if lists:
        for name in names:
            click.echo(f"{name:<36}{FAULTS[name].summary}")
        return
    if settings is not None and not yes:
        _confirm(settings)
    compile_once(say)

    from cli.forked_commands import forked_command

    endless = minutes is None and faults is None
    plan = Plan(
        seed=seed,
        n_faults=faults or 10**9,
        minutes=DEFAULT_MINUTES if endless else minutes or float("inf"),
        names=names,
    )
    wish = Wish(seed, rate, forked_command(), kafka_folder, redis_server)
    # Kafka's client would tell of every connection that a fault breaks off.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    # Told to end, it takes its servers along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="recommender-drill-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        opened = (
            throwaway_site(folder, wish)
            if settings is None
            else configured_site(folder, wish, settings)
        )
        site, outcome = run(opened, plan, say)
    report = report_of(site, outcome, seed=seed)
    click.echo(json.dumps(report, indent=1) if as_json else "\n".join(report_lines(report)))
    if not report["passed"]:
        raise SystemExit(FAILED)


def _settings() -> Settings:
    from cli.servers import reachable_settings

    return reachable_settings()


def _confirm(settings: Settings) -> None:
    click.confirm(
        f"make topics, a consumer group and a dataset group that are named drill-… at Kafka "
        f"{settings.kafka} and Redis, send events there, and remove all of them at the end?",
        abort=True,
        err=True,
    )
