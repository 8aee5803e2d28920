"""The command that evaluates recommendations on recorded events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.group import main, say
from cli.reading_options import read_options, reading_options
from models.code_cache import compile_once
from models.errors import UnreadableRecording
from models.settings import Settings

if TYPE_CHECKING:
    from models.evaluation.protocol import ModelResult
    from models.evaluation.query_steps import Step
    from models.metadata_records import Properties
    from models.state.users.interactions import Interaction


@main.command()
@click.argument("source", metavar="FILE")
@reading_options()
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
    "--hide-seen",
    is_flag=True,
    help="Ask for items that are new to the user only, with all others barred.",
)
@click.option(
    "--items",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file of items and their texts, which are known from the start.",
)
@click.option(
    "--diversity",
    "diversities",
    type=click.FloatRange(0, 1),
    multiple=True,
    help="Also the served order with this dial of diversity; any number of times.",
)
@click.option(
    "--cold",
    is_flag=True,
    help="With --items: measure targets with fewer than 5 events apart from others.",
)
@click.option(
    "--curve",
    is_flag=True,
    help="Ask from the first event on, and show the measures after 100, 300, 1,000 and 3,000.",
)
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
    recipes: str | None,
    items: Path | None,
    plot: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401
) -> None:
    """Evaluate recommendations on a recorded FILE: each event is predicted, then learned."""
    _check(options, items)
    compile_once(say)
    import json

    from models.evaluation.basket_recalls import baskets_as_text
    from models.evaluation.protocol import TOP, as_text, over_time, report
    from models.evaluation.query_kinds import (
        COLD_AND_WARM,
        REPEATED_AND_NEW,
        by_kind,
        curve_kinds,
        kinds_as_text,
    )
    from ops.plots import plot_over_time
    from streams.recordings.catalogue import read_catalogue

    read = _reader(options)
    planned = _planned(source, read, options)
    catalogue = read_catalogue(items) if items else {}
    outcomes = _evaluated(
        planned,
        recipes,
        catalogue,
        learn_every=options["learn_every"],
        diversities=options["diversities"],
    )
    n_items = len({step.event.item for step in planned} | catalogue.keys())
    n_queries = len(next(iter(outcomes.values())).ranks)
    compared = report(outcomes, len(planned), n_items)
    kinds = COLD_AND_WARM if options["cold"] else REPEATED_AND_NEW
    apart = by_kind(outcomes, curve_kinds() if options["curve"] else kinds)
    if plot:
        plot_over_time({name: over_time(outcome) for name, outcome in outcomes.items()}, plot)
    if as_json:
        counts = {"events": len(planned), "items": n_items, "queries": n_queries}
        options["items"] = items and str(items)
        found = {"rivals": compared, "queries_apart": apart}
        asked = options | {"as": options["kind"]}
        del asked["kind"]
        click.echo(json.dumps({"file": source} | asked | counts | found, indent=1))
    else:
        chance = f"chance has HR@20 {min(1.0, TOP / n_items):.4f}"
        click.echo(f"{len(planned)} events, {n_items} items, {n_queries} queries; {chance}")
        click.echo(as_text(compared))
        if any(outcome.recalls for outcome in outcomes.values()):
            click.echo(baskets_as_text(compared))
        if len(apart) > 1:
            click.echo(kinds_as_text(apart))


def _check(options: Mapping[str, Any], items: Path | None) -> None:
    """Refuse options that would do nothing."""
    if options["cold"] and items is None:
        raise click.BadParameter("only with --items", param_hint="--cold")
    if options["cold"] and options["curve"]:
        raise click.BadParameter("not with --curve", param_hint="--cold")
    if options["frozen"] and options["test"] is None:
        raise click.BadParameter("only with --test", param_hint="--frozen")
    if options["hide_seen"] and options["kind"] != "sessions":
        raise click.BadParameter("only with --as sessions", param_hint="--hide-seen")
    if options["curve"] and options["test"] is not None:
        raise click.BadParameter("not with --test", param_hint="--curve")


def _reader(options: dict[str, Any]) -> Callable[[str], list[Interaction]]:
    """Reads the events of a source, in the order of the protocol; takes options of reading out."""
    from models.evaluation.query_kinds import CURVE
    from models.evaluation.query_steps import sort_and_shuffle
    from streams.object_store import Objects
    from streams.recordings.interactions import MAX_SHOWN, interactions
    from streams.recordings.recorded_events import Recording, no_good_rows

    as_: Any = "sessions" if options["kind"] == "sessions" else "users"
    limit = options["limit"]
    if options["curve"]:
        limit = min(limit or max(CURVE), max(CURVE))
    reading = read_options(options)
    settings = Settings()
    objects, negative_types = Objects(settings.buckets_dir), settings.negative_types

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
        positive = [one for one in found if one.type.lower() not in negative_types]
        if len(positive) < len(found):
            # Baselines would take them for interest.
            say(f"{source}: {len(found) - len(positive)} negative events are left out")
        if not positive:
            raise UnreadableRecording(f"{source}: all of its events are negative")
        return sort_and_shuffle(positive, seed=options["seed"])[:limit]

    return recorded


def _planned(
    source: str, read: Callable[[str], list[Interaction]], options: Mapping[str, Any]
) -> list[Step]:
    """Steps of the source by the options."""
    from models.evaluation.query_steps import WARM_UP, split_steps, steps

    kind: Any = "users" if options["hide_seen"] else options["kind"]
    events = read(source)
    if options["test"]:
        return split_steps(events, read(options["test"]), frozen=options["frozen"], kind=kind)
    is_curve = options["curve"]
    return steps(
        events,
        kind,
        max_queries=len(events) if is_curve else options["max_queries"],
        seed=options["seed"],
        warm_up=0.0 if is_curve else WARM_UP,
    )


def _evaluated(
    planned: list[Step],
    recipes: str | None,
    catalogue: Mapping[str, Properties],
    *,
    learn_every: int,
    diversities: Sequence[float],
) -> dict[str, ModelResult]:
    import gc
    import tempfile

    from tqdm import tqdm

    from models.evaluation.baselines import (
        BASELINES,
        OF_BASKETS,
        SLOW,
        SharedRecommender,
        own_orders,
        variants,
    )
    from models.evaluation.categories import CategoriesOnly
    from models.evaluation.diverse_order import DiverseOrder
    from models.evaluation.list_measures import CategoryMeasures
    from models.evaluation.protocol import run
    from models.retrieval.candidates import TOP_LIST_SIZES
    from models.serving.local import LocalRecommender
    from ops.embedded_servers import start_scratch_redis

    baselines = dict(BASELINES)
    if catalogue:
        baselines["categories"] = lambda: CategoriesOnly(catalogue.values())
    orders = own_orders(Settings())
    left_out = SLOW if any(step.basket for step in planned) else SLOW | OF_BASKETS
    everybody = [*orders, *(name for name in baselines if name not in left_out)]
    names = recipes.split(",") if recipes else everybody
    unknown = [name for name in names if name not in {**orders, **baselines}]
    if unknown:
        known = ", ".join([*orders, *baselines])
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
                live = SharedRecommender(local)
                made = variants(live, [name for name in names if name in orders])
                made |= {name: baselines[name]() for name in names if name in baselines}
                rivals = {name: made[name] for name in names}
                for dial in diversities:
                    rivals[f"diversity {dial:g}"] = DiverseOrder(live, dial)
                if catalogue:
                    # The store knows an item by its number: see `SharedRecommender`.
                    local.describe({str(n): one for n, one in enumerate(catalogue.values())})
                return run(
                    planned,
                    rivals,
                    clock=time.perf_counter,
                    progress=bar.update,
                    catalogue=tuple(catalogue),
                    list_measures=CategoryMeasures(catalogue.values()) if catalogue else None,
                )
        finally:
            server.stop()
