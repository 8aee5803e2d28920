"""The command `recommender`: wires streams, api and ops together, starts and stops processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Matrices here are small: what BLAS would save in threads of its own, waking them costs.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click
from pydantic import ValidationError

from models.code_cache import compile_once
from models.environment import READY_FILE, variable
from models.errors import CannotStart, RecommenderError, Unavailable
from models.secrets import redact_output
from models.settings import Settings

if TYPE_CHECKING:
    from api.dependencies import Kafka
    from models.evaluation.protocol import Interaction, Outcome, Step
    from ops.stack import Messages
    from streams.reading.asked import Asked

WAIT_FOR_KAFKA_S = 2.0


class _Commands(click.Group):
    """Says what is wrong in one line, with exit code 1, where the project raised on purpose."""

    def invoke(self, ctx: click.Context) -> object:
        redact_output()
        try:
            return super().invoke(ctx)
        except ValidationError as error:
            problems = "; ".join(
                ": ".join([variable(str(e["loc"][0])), *map(str, e["loc"][1:]), e["msg"]])
                for e in error.errors()
            )
            raise click.ClickException(problems) from error
        except RecommenderError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streaming-recommender")
@click.pass_context
def main(context: click.Context) -> None:
    """A recommender that learns from every event as it happens.

    Settings are RECOMMENDER_* environment variables; see the README.
    """
    from ops.logs import DEFAULT, LEVELS, configure

    # A level that there is not is an error of the command, with those of other settings.
    asked = os.environ.get("RECOMMENDER_LOG_LEVEL", "").lower()
    level = next((one for one in LEVELS if one == asked), DEFAULT)
    configure(context.invoked_subcommand or "recommender", level)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _located(*, needs_redis: bool = True) -> Settings:
    from models.running_servers import located

    return located(Settings(), needs_redis=needs_redis)


def _reachable(*, needs_kafka: bool = True, needs_redis: bool = True) -> Settings:
    """The settings of a command that ends by itself: its servers answer, or that is its error."""
    settings = _located(needs_redis=needs_redis)
    _check(settings, needs_kafka=needs_kafka, needs_redis=needs_redis)
    return settings


def _check(settings: Settings, *, needs_kafka: bool = True, needs_redis: bool = True) -> None:
    """See that the servers which the settings name can be used; what they do not name is left."""
    from models.server_checks import check_redis
    from streams.kafka.connection import check_kafka

    if settings.kafka and needs_kafka:
        check_kafka(settings)
    if settings.redis and needs_redis:
        check_redis(settings)


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the API; default 8080.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
def up(port: int | None, workers: int) -> None:
    """Run everything: embedded broker and Redis unless configured, workers, API."""
    settings = Settings() if port is None else Settings(port=port)
    _check(settings)
    compile_once(_say)

    from ops.stack import running
    from streams.kafka.topics import ensure_topics

    with (
        contextlib.suppress(KeyboardInterrupt),
        running(
            settings, say=_say, make_topics=ensure_topics, messages=_messages(), workers=workers
        ) as stack,
    ):
        _say(f"recommender: {stack.api_url}  (API reference: {stack.api_url}/docs)")
        _memory_checked(stack.settings)
        stack.supervisor.run()


@main.command()
def worker() -> None:
    """Bring events into effect and learn the ranking."""
    settings = _memory_checked(_awaited(_served(_child())))
    compile_once(_say)

    from streams.agents.worker import worker_app
    from streams.kafka.faust_app import run

    run(worker_app(settings, ready=_tell_ready))


@main.command()
def jobs() -> None:
    """Run imports, solution versions, batch jobs and deletions as they are asked for."""
    settings = _awaited(_served(_child()))
    compile_once(_say)

    from streams.jobs.runner import run

    run(settings, ready=_tell_ready)


@main.command()
def forward() -> None:
    """Forward every event to Amazon Personalize."""
    settings = _awaited(_served(_child()))
    compile_once(_say)

    from streams.forwarding.forwarder import forward_app
    from streams.kafka.faust_app import run

    run(forward_app(settings))


@main.command()
def api() -> None:
    """Answer over HTTP."""
    settings = _child()
    _see_free(settings.host, settings.port, "RECOMMENDER_PORT")
    try:
        _check(settings)
    except Unavailable as error:
        # It answers what it can meanwhile; `/readyz` says when that is all.
        _say(f"not ready yet: {error}")
    _memory_checked(settings)
    compile_once(_say)

    import uvicorn

    from api.app import create_app
    from api.server.connections import allow_connections
    from api.server.uvicorn_protocol import server_options
    from models.state.store import Store, connect

    allow_connections(settings.max_connections)
    with _kafka_for_api(settings) as kafka:
        app = create_app(settings, Store(connect(settings.redis), settings), kafka)
        uvicorn.run(app, **server_options(settings))


@contextlib.contextmanager
def _kafka_for_api(settings: Settings) -> Iterator[Kafka]:
    """Kafka as the API sees it; an API that starts before Kafka answers what it can meanwhile."""
    from api.dependencies import Kafka
    from streams.kafka.publisher import Publisher

    publisher = Publisher(settings)
    try:
        yield Kafka(publisher.publish, publisher.put, publisher.incarnations, publisher.missing)
    finally:
        publisher.close()


@main.command()
def topics() -> None:
    """Make the topics that do not exist yet."""
    from streams.kafka.topics import ensure_topics

    made = ensure_topics(_reachable(needs_redis=False))
    click.echo(f"made {', '.join(made)}" if made else "all topics exist")


def reading_options(command: Any) -> Any:  # noqa: ANN401
    """The options of all commands that read files of people's own: docs/formats.md."""
    options = [
        click.option("--format", "format_", default="", help="Its format: docs/formats.md."),
        click.option("--columns", default="", help="Names of columns without a header: a,b,c."),
        click.option("--map", "maps", multiple=True, metavar="FIELD=COLUMN", help="A field's"
                     " column, as in USER_ID=who."),
        click.option("--event-type", default="", help="The type of every event; a column: --map."),
        click.option("--separator", default="", help="Between fields: comma, tab, semicolon, …"),
        click.option("--encoding", default="", help="Such as cp1252; UTF-8 and UTF-16 are seen."),
        click.option("--time-format", default="", help='"%d/%m/%Y %H:%M", or milliseconds, ….'),
        click.option("--records", default="", help="Where JSON has its list, as in data.rows."),
        click.option("--each", default="", help="A list in a record: a row for each of it."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _asked(options: dict[str, Any], keep: Sequence[str] = (), drop: Sequence[str] = ()) -> Asked:
    """What `reading_options` say; they are taken out of the options."""
    from streams.reading.asked import Asked
    from streams.reading.column_mapping import Told

    columns, records = options.pop("columns"), options.pop("records")
    fields = dict(map(_pair, options.pop("maps")))
    return Asked(
        format=options.pop("format_"),
        columns=[name.strip() for name in columns.split(",")] if columns else (),
        records=records.split(".") if records else (),
        told=Told(fields, keep, drop, options.pop("event_type")),
        **{name: options.pop(name) for name in ("separator", "encoding", "time_format", "each")},
    )


@main.command()
@click.argument("source", metavar="FILE")
@reading_options
@click.option("--as", "as_", type=click.Choice(["users", "sessions"]), default="users")
@click.option("--rate", default="max", show_default=True, help="Events a second, or max.")
@click.option("--speed", type=click.FloatRange(0, min_open=True), help="Times the recorded pace.")
@click.option("--events-per-message", type=click.IntRange(1, 10), default=1, show_default=True)
@click.option("--resume", is_flag=True, help="Go on where the last replay of this file ended.")
def replay(source: str, rate: str, **options: Any) -> None:  # noqa: ANN401
    """Send recorded events to the event topics.

    FILE is a file, a folder, a pattern such as "logs/*.csv", or s3://bucket/key.
    """
    from streams.recordings.recorded_events import Recording
    from streams.recordings.replay import replay as send

    recordings: list[Recording] = []

    def show(recording: Recording) -> None:
        _say(recording.said)
        recordings.append(recording)

    asked = _asked(options)
    settings = _reachable(needs_redis=False)
    report = send(source, settings, asked=asked, rate=_rate(rate), on_recognised=show, **options)
    for place, reason in report.bad_rows:
        _say(f"{recordings[0].found.where(place)}: {reason}")
    click.echo(
        f"{report.rows} rows, {report.events} events in {report.messages} messages,"
        f" {report.n_bad_rows} bad rows, {report.seconds:.1f} s"
    )
    if not report.is_finished:
        sys.exit(130)


@main.command()
@click.argument("source", metavar="FILE")
@reading_options
@click.option(
    "--as",
    "kind",
    type=click.Choice(["sessions", "users", "baskets"]),
    default="sessions",
    show_default=True,
    help="What repeats mean: wanted again, known already, or bought together.",
)
@click.option(
    "--recipes",
    help="Rivals to compare, separated by commas; the first is the reference.",
)
@click.option("--max-queries", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Only the first so many events.")
@click.option("--min-value", type=float, help="Only events with at least this eventValue.")
@click.option(
    "--learn-every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Learn the ranking from each n-th event.",
)
@click.option(
    "--test",
    help="Learn all of FILE first, then ask for every event of this file.",
)
@click.option("--frozen", is_flag=True, help="With --test: learn nothing from the test.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=7,
    show_default=True,
    help="Of the shuffle of events of one moment.",
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="PNG or SVG file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def evaluate(
    source: str,
    kind: Any,  # noqa: ANN401
    recipes: str | None,
    test: str | None,
    plot: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Measure recommendations on a recorded FILE: predicted first, learned after."""
    compile_once(_say)
    import json

    from models.evaluation.protocol import as_text, in_order, over_time, report, split_steps, steps
    from ops.plots import plot_over_time
    from streams.object_store import Objects
    from streams.recordings.interactions import MAX_SHOWN, interactions
    from streams.recordings.recorded_events import Recording, none_good

    as_: Any = "sessions" if kind == "sessions" else "users"
    if options["frozen"] and test is None:
        raise click.BadParameter("only with --test", param_hint="--frozen")

    asked = _asked(options)
    objects = Objects(Settings().buckets_dir)

    def recorded(source: str) -> list[Interaction]:
        recording = Recording(source, asked, objects)
        _say(recording.said)
        rows = recording.events(now_s=time.time(), as_=as_)
        found, bad = interactions(rows, min_value=options["min_value"])
        if not found:
            raise none_good(recording, bad)
        for place, reason in bad[:MAX_SHOWN]:
            _say(f"{recording.found.where(place)}: {reason}")
        if bad:
            _say(f"{source}: {len(bad)} bad rows")
        return in_order(found, seed=options["seed"])[: options["limit"]]

    events = recorded(source)
    planned = (
        split_steps(events, recorded(test), frozen=options["frozen"])
        if test
        else steps(events, kind, max_queries=options["max_queries"], seed=options["seed"])
    )
    outcomes = _evaluated(planned, recipes, learn_every=options["learn_every"])
    n_items = len({step.event.item for step in planned})
    n_queries = len(next(iter(outcomes.values())).ranks)
    compared = report(outcomes, len(planned), n_items)
    if plot:
        plot_over_time({name: over_time(outcome) for name, outcome in outcomes.items()}, plot)
    if as_json:
        conditions = {"file": source, "test": test, "as": kind, **options}
        counts = {"events": len(planned), "items": n_items, "queries": n_queries}
        click.echo(json.dumps(conditions | counts | {"rivals": compared}, indent=1))
    else:
        click.echo(f"{len(planned)} events, {n_items} items, {n_queries} queries")
        click.echo(as_text(compared))


def _evaluated(planned: list[Step], recipes: str | None, *, learn_every: int) -> dict[str, Outcome]:
    import tempfile

    from tqdm import tqdm

    from models.evaluation.baselines import BASELINES, ORDERS, SLOW, orders
    from models.evaluation.protocol import run
    from models.serving.local import Local
    from ops.embedded_servers import start_redis

    everybody = [*ORDERS, *(name for name in BASELINES if name not in SLOW)]
    names = recipes.split(",") if recipes else everybody
    unknown = [name for name in names if name not in {**ORDERS, **BASELINES}]
    if unknown:
        known = ", ".join([*ORDERS, *BASELINES])
        raise click.BadParameter(f"{', '.join(unknown)}: not among {known}", param_hint="--recipes")
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=len(planned), unit=" events", disable=None) as bar,
    ):
        server = start_redis(Path(folder))
        try:
            settings = Settings(redis=server.url)
            with Local(settings, examples_of=learn_every) as local:
                made = orders(local, [name for name in names if name in ORDERS])
                made |= {name: BASELINES[name]() for name in names if name in BASELINES}
                rivals = {name: made[name] for name in names}
                return run(planned, rivals, clock=time.perf_counter, progress=bar.update)
        finally:
            server.stop()


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
@reading_options
@click.option("--keep", multiple=True, metavar="COLUMN", help="Keep a column as metadata.")
@click.option("--drop", multiple=True, metavar="COLUMN", help="Leave a column out.")
@click.option("--where", default="", metavar="CONDITION", help='Only such rows: "rating >= 3.5".')
@click.option("--scale-values", is_flag=True, help="Move EVENT_VALUE to 0 to 1.")
@click.option("--strict/--relaxed", default=True, help="Refuse too few interactions, or note it.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
def prepare(source: str, target: str | None, **options: Any) -> None:  # noqa: ANN401
    """Make what Amazon Personalize imports of SOURCE, and put it into the folder TARGET.

    SOURCE is a file or a folder, TARGET a folder: s3://bucket/key, or a path. Without TARGET, the
    source is only checked. Exit code 3: it breaks rules of an import, and nothing was written.
    """
    import signal

    import msgspec
    from tqdm import tqdm

    from streams.preparation.prepare import Options
    from streams.preparation.prepare import prepare as make
    from streams.preparation.report import as_text

    # Stopped either way, it takes its temporary files along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wanted = Options(
        kind=options["kind"],
        asked=_asked(options, options["keep"], options["drop"]),
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
@click.option("--plan", "only_plan", is_flag=True, help="Only show what exists and what is to do.")
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
    """Make everything at Amazon Personalize that FILE declares, and wait until it is ready.

    What is there stays; an interrupted run goes on where it stopped.
    """
    import msgspec

    from streams.provisioning import apply as made
    from streams.provisioning.declaration import read_declaration
    from streams.provisioning.iam_policies import policies as documents

    declaration, settings = read_declaration(file), Settings()
    if policies:
        click.echo(msgspec.json.format(msgspec.json.encode(documents(declaration))).decode())
        return
    world = made.world_of(declaration, settings)
    pieces = made.pieces_of(world, settings)
    planned = made.plan(world, pieces)
    if only_plan and as_json:
        click.echo(msgspec.json.encode(planned).decode())
        return
    click.echo(made.as_text(planned, is_removed=destroy), err=not only_plan)
    if only_plan:
        return
    if not yes:
        click.confirm("Remove all of it?" if destroy else "Go on?", abort=True, err=True)
    pace = made.Pace(
        timeout_s=timeout_s or made.DEFAULT_TIMEOUT_S,
        say=lambda label, status: _say(f"{label}: {status}"),
    )
    try:
        done = (made.destroy if destroy else made.run)(world, pieces, pace)
    except KeyboardInterrupt:
        _say("interrupted: run the same command again to go on")
        sys.exit(130)
    click.echo(msgspec.json.encode(done).decode() if as_json else made.as_lines(done))


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--cron", help='Go on, and run whenever it is time, in UTC: "0 3 * * *".')
@click.option("--history", is_flag=True, help="Only show the runs so far.")
@click.option("--timeout-s", type=click.FloatRange(1), help="Longest wait for one step; 6 hours.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def batch(
    file: Path, cron: str | None, history: bool, timeout_s: float | None, as_json: bool
) -> None:
    """Import new data, train a version and infer for many users, as [batch] of FILE says."""
    import signal

    import msgspec

    from models.personalize import pipeline_runs
    from models.state.store import connect
    from streams.provisioning import batch_pipeline
    from streams.provisioning.apply import DEFAULT_TIMEOUT_S, Pace, pieces_of, world_of
    from streams.provisioning.declaration import read_declaration

    # Stopped either way, a run is remembered and lets the next begin.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Where Kafka is away, the run fails in the step that needs it, and the history says so.
    declaration, settings = read_declaration(file), _reachable(needs_kafka=False)
    pace = Pace(
        timeout_s=timeout_s or DEFAULT_TIMEOUT_S,
        say=lambda label, status: _say(f"{label}: {status}"),
    )

    def show(run: pipeline_runs.Run) -> None:
        text = f"{run.id}  {run.outcome}  {run.step}  {run.reason or run.output}"
        click.echo(msgspec.json.encode(run).decode() if as_json else text)

    async def once(now_s: float) -> pipeline_runs.Run | None:
        world = world_of(declaration, settings)
        async with connect(settings.redis) as client:
            run = await batch_pipeline.run_once(
                world,
                pieces_of(world, settings),
                client,
                pace,
                run_id=batch_pipeline.run_id_of(now_s),
            )
        if run is None:
            _say("another run is under way")
        else:
            show(run)
        return run

    async def scheduled(cron: str) -> None:
        async with connect(settings.redis) as client:
            await batch_pipeline.recall(client, declaration.group)
        await batch_pipeline.on_schedule(cron, once)

    async def past() -> list[pipeline_runs.Run]:
        async with connect(settings.redis) as client:
            return await pipeline_runs.history(client, declaration.group)

    if history:
        for run in asyncio.run(past()):
            show(run)
    elif cron:
        _served(_child())
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(scheduled(cron))
    else:
        done = asyncio.run(once(time.time()))
        if done is None or done.outcome != "succeeded":
            sys.exit(1)


def _pair(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text}: not FIELD=COLUMN", param_hint="--map")
    return name, column


def _rate(text: str) -> float | None:
    if text == "max":
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not rate > 0:
        raise click.BadParameter("a positive number, or max", param_hint="--rate")
    return rate


@main.command()
@click.option("--partitions", is_flag=True, help="Also end, watermark and lag of each partition.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
def status(partitions: bool, as_json: bool) -> None:
    """What is wrong, if anything; lag, freshness, dead letters, quality, memory."""
    import msgspec

    from streams.operations.status import read_status
    from streams.operations.status_text import as_text

    read = asyncio.run(read_status(_reachable(), now_s=time.time()))
    click.echo(
        msgspec.json.encode(read).decode() if as_json else as_text(read, partitions=partitions)
    )


@main.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(0))
@click.argument("offset", type=click.IntRange(0))
@click.option("--yes", is_flag=True, help="Do it; without it, nothing is skipped.")
def skip(topic: str, partition: int, offset: int, yes: bool) -> None:
    """Go past messages that nobody can decode, where a partition stands still at them.

    `recommender status` names TOPIC, PARTITION and OFFSET. A dead letter with the position takes
    their place. A message that can be decoded is never skipped.
    """
    from streams.operations.skip import skip as go_past

    if not yes:
        raise click.UsageError("what is skipped takes no effect: say --yes to skip it")
    done = asyncio.run(go_past(_reachable(), topic, partition, offset))
    click.echo(f"{done.what}: skipped by the {' and the '.join(done.readers)}")


@main.group("dead-letters")
def dead_letters() -> None:
    """What could not be processed."""


@dead_letters.command("list")
@click.option("--all", "again", is_flag=True, help="Also those that were replayed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_dead_letters(again: bool, as_json: bool) -> None:
    """Show the dead letters that were not replayed: time, origin, stage, reason and payload."""
    import msgspec

    from streams.kafka.dead_letters import letters
    from streams.operations.letter_text import as_line

    n = 0
    for letter, _ in letters(_reachable(needs_redis=False), again=again):
        n += 1
        click.echo(msgspec.json.encode(letter).decode() if as_json else as_line(letter))
    _say(f"{n} dead letters")


@dead_letters.command("replay")
def replay_dead_letters() -> None:
    """Send them to where they came from again.

    Of a message that was too long for its letter, the whole is read from where it came from. What
    Kafka no longer has, or refuses, stays a dead letter, and the exit code is 1.
    """
    from streams.operations.resending import resend

    done = resend(_reachable(needs_redis=False))
    for letter, reason in done.kept:
        source = letter.source
        _say(f"{source.topic}/{source.partition}/{source.offset}  not sent: {reason}")
    click.echo(f"{done.sent} dead letters sent again")
    if done.kept:
        sys.exit(1)


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the API; default 8080.")
@click.option("--once", is_flag=True, help="Show the proof, then stop.")
@click.option("--json", "as_json", is_flag=True, help="The proof as one JSON object.")
def demo(port: int | None, once: bool, as_json: bool) -> None:
    """Run everything with simulated shoppers, and show a click change an answer."""
    from models.running_servers import DEMO
    from ops import demo as shown
    from ops.stack import running
    from streams.kafka.topics import ensure_topics

    settings = Settings() if port is None else Settings(port=port)
    update = {"data_dir": settings.data_dir / DEMO, "cache_s": shown.DEMO_CACHE_S}
    settings = settings.model_copy(update=update)
    _check(settings)
    compile_once(_say)
    with (
        contextlib.suppress(KeyboardInterrupt),
        running(
            settings, say=_say, make_topics=ensure_topics, messages=_messages(), is_fresh=True
        ) as stack,
    ):
        shown.show(stack, once=once, as_json=as_json, say=_say, write=click.echo)
    # Its shoppers are made up: only where it failed do its logs stay.
    shutil.rmtree(settings.data_dir)
    with contextlib.suppress(OSError):
        settings.data_dir.parent.rmdir()


def _child() -> Settings:
    """What a long-running command does first: read settings.

    What cannot be right shows before anything large is loaded.
    """
    return _located()


def _messages() -> Messages:
    """What counts messages that are not in effect; loaded now, for use at the end."""
    from ops.stack import Messages
    from streams.kafka import acknowledged
    from streams.operations.status import read_status

    told: dict[str, int] = {}

    def lag(settings: Settings) -> int:
        try:
            return asyncio.run(read_status(settings, now_s=time.time())).lag
        except Unavailable as error:
            _say(str(error))
            return 0

    def lost(settings: Settings) -> int | None:
        try:
            found = asyncio.run(acknowledged.lost(settings))
        except Unavailable as error:
            _say(str(error))
            return None
        n_new = sum(n for field, n in found.items() if field not in told)
        told.update(found)
        return n_new

    return Messages(lag, acknowledged.begin, lost)


def _tell_ready() -> None:
    """Tell the supervisor, where there is one, that this process does its work now."""
    file = os.environ.pop(READY_FILE, None)
    if file:
        Path(file).touch()


def _memory_checked(settings: Settings) -> Settings:
    """Say what is wrong with the memory of Redis; whether Redis is there others find out."""
    from models.state.memory import risks, shortages
    from models.state.redis_errors import AWAY_ERRORS
    from models.state.store import Store, connect

    async def told() -> list[str]:
        async with connect(settings.redis) as client:
            memory = await Store(client, settings).memory()
        return [*shortages(memory), *risks(memory)]

    try:
        for text in asyncio.run(told()):
            _say(f"WARNING: {text}")
    except AWAY_ERRORS as error:
        logging.getLogger(__name__).info("the memory of Redis was not looked at: %s", error)
    return settings


def _served(settings: Settings) -> Settings:
    """Serve this process's metrics where a port is configured."""
    if settings.metrics_port:
        from prometheus_client import start_http_server

        _see_free(settings.host, settings.metrics_port, "RECOMMENDER_METRICS_PORT")
        start_http_server(settings.metrics_port, settings.host)
    return settings


def _see_free(host: str, port: int, name: str) -> None:
    from ops.ports import holder, is_free

    if port and not is_free(port, host):
        raise CannotStart(f"port {port} is taken by {holder(port)}: set {name} to another")


def _awaited(settings: Settings) -> Settings:
    """Wait until the servers answer and there are topics: a worker may start before all of them.

    What waiting does not heal, such as a wrong password, is an error.
    """
    from streams.kafka.topics import Topics, topic_ids

    topics, said = Topics.of(settings), ""
    # Its client logs every refused connection; the line below has the reason once.
    client = logging.getLogger("kafka")
    level = client.level
    client.setLevel(logging.CRITICAL)
    while True:
        try:
            _check(settings)
            topic_ids(settings, [topics.clicks, topics.purchases])
        except Unavailable as error:
            if str(error) != said:
                said = str(error)
                _say(f"waiting: {said}")
            time.sleep(WAIT_FOR_KAFKA_S)
        else:
            client.setLevel(level)
            return settings


if __name__ == "__main__":
    main()
