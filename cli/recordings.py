"""Commands on recorded events: replay, and evaluation of recommendations."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.code_cache import compile_once
from models.settings import Settings

if TYPE_CHECKING:
    from models.evaluation.protocol import ModelResult, Step
    from models.state.interactions import Interaction

from cli.group import main, say
from cli.reading_options import read_options, reading_options
from cli.servers import reachable_settings


@main.command()
@click.argument("source", metavar="FILE")
@reading_options
@click.option("--as", "as_", type=click.Choice(["users", "sessions"]), default="users")
@click.option("--rate", default="max", show_default=True, help="Events a second, or max.")
@click.option(
    "--speed", type=click.FloatRange(0, min_open=True), help="Multiple of the recorded pace."
)
@click.option("--events-per-message", type=click.IntRange(1, 10), default=1, show_default=True)
@click.option("--resume", is_flag=True, help="Continue where the last replay of this file ended.")
def replay(source: str, rate: str, **options: Any) -> None:  # noqa: ANN401
    """Send recorded events to the event topics.

    FILE is a file, a folder, a pattern such as "logs/*.csv", or s3://bucket/key.
    """
    from streams.recordings.recorded_events import Recording
    from streams.recordings.replay import replay as send

    recordings: list[Recording] = []

    def show(recording: Recording) -> None:
        say(recording.description)
        recordings.append(recording)

    reading = read_options(options)
    settings = reachable_settings(needs_redis=False)
    report = send(
        source, settings, options=reading, rate=_rate(rate), on_recognised=show, **options
    )
    for place, reason in report.bad_rows:
        say(f"{recordings[0].source.row_label(place)}: {reason}")
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
    help="Meaning of repeated items: wanted again, known already, or bought together.",
)
@click.option(
    "--recipes",
    help="Models to compare, separated by commas; the first is the reference.",
)
@click.option("--max-queries", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Only this many first events.")
@click.option("--min-value", type=float, help="Only events with at least this eventValue.")
@click.option(
    "--learn-every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Train the ranker on every n-th event.",
)
@click.option(
    "--test",
    help="Learn all of FILE first, then predict every event of this file.",
)
@click.option("--frozen", is_flag=True, help="With --test: learn nothing from the test.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=7,
    show_default=True,
    help="Seed of the shuffle of simultaneous events.",
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
    """Evaluate recommendations on a recorded FILE: each event is predicted, then learned."""
    compile_once(say)
    import json

    from models.evaluation.protocol import (
        as_text,
        over_time,
        report,
        sort_and_shuffle,
        split_steps,
        steps,
    )
    from ops.plots import plot_over_time
    from streams.object_store import Objects
    from streams.recordings.interactions import MAX_SHOWN, interactions
    from streams.recordings.recorded_events import Recording, no_good_rows

    as_: Any = "sessions" if kind == "sessions" else "users"
    if options["frozen"] and test is None:
        raise click.BadParameter("only with --test", param_hint="--frozen")

    reading = read_options(options)
    objects = Objects(Settings().buckets_dir)

    def recorded(source: str) -> list[Interaction]:
        recording = Recording(source, reading, objects)
        say(recording.description)
        rows = recording.events(now_s=time.time(), as_=as_)
        found, bad = interactions(rows, min_value=options["min_value"])
        if not found:
            raise no_good_rows(recording, bad)
        for place, reason in bad[:MAX_SHOWN]:
            say(f"{recording.source.row_label(place)}: {reason}")
        if bad:
            say(f"{source}: {len(bad)} bad rows")
        return sort_and_shuffle(found, seed=options["seed"])[: options["limit"]]

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


def _evaluated(
    planned: list[Step], recipes: str | None, *, learn_every: int
) -> dict[str, ModelResult]:
    import gc
    import tempfile

    from tqdm import tqdm

    from models.evaluation.baselines import BASELINES, SLOW, VARIANTS, variants
    from models.evaluation.protocol import run
    from models.retrieval.candidates import TOP_LIST_SIZES
    from models.serving.local import LocalRecommender
    from ops.embedded_servers import start_scratch_redis

    everybody = [*VARIANTS, *(name for name in BASELINES if name not in SLOW)]
    names = recipes.split(",") if recipes else everybody
    unknown = [name for name in names if name not in {**VARIANTS, **BASELINES}]
    if unknown:
        known = ", ".join([*VARIANTS, *BASELINES])
        raise click.BadParameter(f"{', '.join(unknown)}: not among {known}", param_hint="--recipes")
    # What is loaded lives until the end, and hardly anything of an event is in a cycle: looking for
    # garbage as often as by default would take a twentieth of the time.
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=len(planned), unit=" events", disable=None) as bar,
    ):
        server = start_scratch_redis(Path(folder))
        try:
            settings = Settings(redis=server.url)
            with LocalRecommender(
                settings, examples_of=learn_every, list_sizes=TOP_LIST_SIZES
            ) as local:
                made = variants(local, [name for name in names if name in VARIANTS])
                made |= {name: BASELINES[name]() for name in names if name in BASELINES}
                rivals = {name: made[name] for name in names}
                return run(planned, rivals, clock=time.perf_counter, progress=bar.update)
        finally:
            server.stop()


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
