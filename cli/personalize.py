"""Commands for Amazon Personalize: prepare data, provision resources, run batch pipelines."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import click

from cli.group import main, say
from cli.reading_options import read_options, reading_options
from cli.servers import reachable_settings, serve_metrics, settings_with_servers
from models.settings import Settings


@main.command()
@click.argument("source")
@click.argument("target", required=False)
@click.option(
    "--dataset",
    "kind",
    type=click.Choice(["interactions", "items", "users"]),
    default="interactions",
    show_default=True,
)
@reading_options()
@click.option("--keep", multiple=True, metavar="COLUMN", help="Keep a column as metadata.")
@click.option("--drop", multiple=True, metavar="COLUMN", help="Leave a column out.")
@click.option(
    "--where", default="", metavar="CONDITION", help='Only rows that match: "rating >= 3.5".'
)
@click.option("--scale-values", is_flag=True, help="Scale EVENT_VALUE to 0 to 1.")
@click.option(
    "--strict/--relaxed", default=True, help="Refuse too few interactions, or warn of them."
)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
def prepare(source: str, target: str | None, **options: Any) -> None:  # noqa: ANN401
    """Convert SOURCE to files that Amazon Personalize imports, in the folder TARGET.

    SOURCE is a file or a folder, TARGET a folder: s3://bucket/key, or a path. Without TARGET, the
    source is only checked. Exit code 3: it breaks rules of an import, and nothing was written.
    """
    import signal

    import msgspec
    from tqdm import tqdm

    from models.extras import require_extra

    require_extra("duckdb", "prepare", "`recommender prepare`")
    from streams.preparation.prepare import PrepareOptions
    from streams.preparation.prepare import prepare as make
    from streams.preparation.report import as_text

    # SIGTERM ends it like Ctrl-C, so that it removes its temporary files.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wanted = PrepareOptions(
        kind=options["kind"],
        read_options=read_options(options, options["keep"], options["drop"]),
        where=options["where"],
        is_strict=options["strict"],
        scales_values=options["scale_values"],
    )
    shown = "{desc} {percentage:3.0f} %|{bar}| {elapsed}"
    with tqdm(total=100, disable=None, leave=False, bar_format=shown) as bar:

        def progress(doing: str, share: float) -> None:
            bar.set_description_str(doing, refresh=False)
            bar.update(100 * share - bar.n)

        try:
            report = make(source, target, Settings(), wanted, now_s=time.time(), progress=progress)
        except KeyboardInterrupt:
            sys.exit(130)
    click.echo(msgspec.json.encode(report).decode() if options["as_json"] else as_text(report))
    if report.problems:
        sys.exit(3)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--plan", "only_plan", is_flag=True, help="Only show what exists and what would be apply."
)
@click.option("--policies", is_flag=True, help="Only print the IAM policy documents.")
@click.option("--destroy", is_flag=True, help="Remove everything that FILE names.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--timeout-s", type=click.FloatRange(1), help="Longest wait for one step; 6 hours.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def provision(
    file: Path,
    only_plan: bool,
    policies: bool,
    destroy: bool,
    yes: bool,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Make all resources at Amazon Personalize that FILE declares, and wait until they are ready.

    Existing resources stay; an interrupted run continues where it stopped.
    """
    import msgspec

    from streams.provisioning import apply
    from streams.provisioning.declaration import read_declaration
    from streams.provisioning.iam_policies import policies as documents

    declaration, settings = read_declaration(file), Settings()
    if policies:
        click.echo(msgspec.json.format(msgspec.json.encode(documents(declaration))).decode())
        return
    context = apply.context_of(declaration, settings)
    resources = apply.resources_of(context, settings)
    planned = apply.plan(context, resources)
    if only_plan and as_json:
        click.echo(msgspec.json.encode(planned).decode())
        return
    click.echo(apply.as_text(planned, is_removal=destroy), err=not only_plan)
    if only_plan:
        return
    if not yes:
        click.confirm("Remove all of it?" if destroy else "Go on?", abort=True, err=True)
    wait_options = apply.WaitOptions(
        timeout_s=timeout_s or apply.DEFAULT_TIMEOUT_S,
        say=lambda label, status: say(f"{label}: {status}"),
    )
    try:
        done = (apply.destroy if destroy else apply.run)(context, resources, wait_options)
    except KeyboardInterrupt:
        say("interrupted: run the same command again to go on")
        sys.exit(130)
    click.echo(msgspec.json.encode(done).decode() if as_json else apply.as_lines(done))


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--cron", help='Keep running, on this schedule in UTC: "0 3 * * *".')
@click.option("--history", is_flag=True, help="Only show earlier runs.")
@click.option("--timeout-s", type=click.FloatRange(1), help="Longest wait for one step; 6 hours.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def batch(
    file: Path, cron: str | None, history: bool, timeout_s: float | None, as_json: bool
) -> None:
    """Import new data, train a solution version and run batch inference, by [batch] of FILE."""
    import signal

    import msgspec

    from models.personalize.batches import pipeline_runs
    from models.state.clients.client import client_of
    from streams.provisioning import batch_pipeline
    from streams.provisioning.apply import DEFAULT_TIMEOUT_S, WaitOptions, context_of, resources_of
    from streams.provisioning.declaration import read_declaration

    # SIGTERM ends a run like Ctrl-C, so that it is recorded and releases its lease.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # If Kafka is away, the run fails in the step that needs it, and the history says so.
    declaration, settings = read_declaration(file), reachable_settings(needs_kafka=False)
    wait_options = WaitOptions(
        timeout_s=timeout_s or DEFAULT_TIMEOUT_S,
        say=lambda label, status: say(f"{label}: {status}"),
    )

    def show(run: pipeline_runs.Run) -> None:
        text = f"{run.id}  {run.outcome}  {run.step}  {run.reason or run.output}"
        click.echo(msgspec.json.encode(run).decode() if as_json else text)

    async def once(now_s: float) -> pipeline_runs.Run | None:
        context = context_of(declaration, settings)
        async with client_of(settings) as client:
            run = await batch_pipeline.run_once(
                context,
                resources_of(context, settings),
                client,
                wait_options,
                run_id=batch_pipeline.run_id_of(now_s),
            )
        if run is None:
            say("another run is under way")
        else:
            show(run)
        return run

    async def scheduled(cron: str) -> None:
        async with client_of(settings) as client:
            await batch_pipeline.restore_last_success(client, declaration.group)
        await batch_pipeline.run_on_schedule(cron, once)

    async def past() -> list[pipeline_runs.Run]:
        async with client_of(settings) as client:
            return await pipeline_runs.history(client, declaration.group)

    if history:
        for run in asyncio.run(past()):
            show(run)
    elif cron:
        serve_metrics(settings_with_servers())
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(scheduled(cron))
    else:
        done = asyncio.run(once(time.time()))
        if done is None or done.outcome != "succeeded":
            sys.exit(1)
