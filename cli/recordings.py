"""The command that replays recorded events."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.group import main, say
from cli.reading_options import read_options, reading_options
from cli.servers import reachable_settings


@main.command()
@click.argument("source", metavar="FILE")
@reading_options()
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
