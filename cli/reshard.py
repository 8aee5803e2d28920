"""The command that moves a group to another number of shards."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Callable

import click

from cli.audit import record
from cli.group import main, say
from cli.servers import reachable_settings

TELL_EVERY_S = 2.0


@main.command()
@click.argument("shards", type=click.IntRange(1, 256))
@click.option(
    "--longest-pause",
    type=click.FloatRange(0, min_open=True),
    default=math.inf,
    help="Seconds for which events may wait, at most; beyond, nothing is changed.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def reshard(shards: int, longest_pause: float, as_json: bool) -> None:
    """Move the group to SHARDS shards, while events come and answers are asked.

    Events wait in Kafka while the state is copied; answers are given all the time. Ctrl-C before
    the end leaves everything as it was. One that was killed is run again.
    """
    import json

    from streams.operations import reshard as moving

    settings = reachable_settings()
    try:
        done = asyncio.run(
            moving.reshard(settings, shards, longest_pause_s=longest_pause, tell=_told())
        )
    except KeyboardInterrupt:
        say("broken off: `recommender status` says on how many shards the group is")
        sys.exit(130)
    if done.before == done.after and not as_json:
        say(f"group {settings.group} is on {shards} shard(s) already")
    else:
        record(settings, "reshard", [f"{done.before} to {done.after} shards"])
    if as_json:
        click.echo(json.dumps(done._asdict()))
    elif done.before != done.after:
        click.echo(
            f"group {settings.group} moved from {done.before} to {done.after} shard(s): "
            f"{done.n_histories:,} histories, {done.n_items:,} items; "
            f"events waited {done.pause_s:.1f} s"
        )


def _told() -> Callable[[str, float], None]:
    """Prints what is done when that changes, and every `TELL_EVERY_S` meanwhile."""
    last, told_s = "", -TELL_EVERY_S

    def tell(what: str, share: float) -> None:
        nonlocal last, told_s
        kind, now_s = what.partition(":")[0], time.monotonic()
        if kind != last or now_s >= told_s + TELL_EVERY_S:
            last, told_s = kind, now_s
            say(_line(what, share))

    return tell


def _line(what: str, share: float) -> str:
    """A line of progress.

    >>> _line("copying: 7 histories", 0.25)
    'copying: 7 histories (25 %)'
    """
    return f"{what} ({share:.0%})".replace("%", " %") if share else what
