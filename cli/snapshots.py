"""Commands that save and restore state, and that have it learned again from Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cli.audit import record
from cli.group import main, say
from cli.servers import reachable_settings, settings_with_servers

if TYPE_CHECKING:
    from streams.operations.snapshots import Progress

TELL_EVERY_S = 2.0


@main.group()
def snapshot() -> None:
    """Save all state, list what was saved, and restore it.

    FOLDER is a folder, or s3://bucket/prefix.
    """


@snapshot.command()
@click.argument("folder")
@click.option(
    "--longest-pause",
    type=click.FloatRange(0, 60, min_open=True),
    default=3.0,
    show_default=True,
    help="Seconds for which what is written to Redis may wait, at most.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def save(folder: str, longest_pause: float, as_json: bool) -> None:
    """Save all state as it is at one moment, while everything goes on.

    Prints the snapshot's name. Ctrl-C leaves none.
    """
    import msgspec

    from streams.operations import snapshots

    settings = reachable_settings(needs_kafka=False)
    saved = snapshots.save(settings, folder, longest_pause_s=longest_pause, tell=_told("saved"))
    if as_json:
        shown = {"name": saved.name, "bytes": saved.bytes, **msgspec.to_builtins(saved.manifest)}
        click.echo(msgspec.json.encode(shown).decode())
    else:
        say(f"writes waited {saved.manifest.pause_s:.3f} s")
        click.echo(saved.name)


@snapshot.command("list")
@click.argument("folder")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_snapshots(folder: str, as_json: bool) -> None:
    """Show the snapshots in a folder, oldest first: name, moment, size, group, release."""
    import msgspec

    from streams.operations.snapshots import Snapshot, listed

    for one in listed(settings_with_servers(needs_redis=False), folder):
        if not isinstance(one, Snapshot):
            say(f"{one[0]}  is no snapshot: {one[1]}")
        elif as_json:
            shown = {"name": one.name, "bytes": one.bytes, **msgspec.to_builtins(one.manifest)}
            click.echo(msgspec.json.encode(shown).decode())
        else:
            click.echo(
                f"{one.name}  {_utc(one.manifest.saved_at)}  {one.bytes / 2**20:.1f} MB  "
                f"group {one.manifest.group}  release {one.manifest.release}"
            )


@snapshot.command()
@click.argument("folder")
@click.argument("name", required=False)
@click.option(
    "--replace", is_flag=True, help="Remove the state that there is, and API keys, first."
)
def restore(folder: str, name: str | None, replace: bool) -> None:
    """Restore a snapshot into Redis, the newest unless NAME says which; no process may run.

    Workers then apply from Kafka what came since. It is checked whole before anything is written.
    """
    from models.errors import RecommenderError
    from models.servers.server_checks import check_redis
    from streams.operations import snapshots
    from streams.operations.kept_messages import messages_behind_text

    settings = settings_with_servers()
    check_redis(settings)
    chosen = name or snapshots.newest(settings, folder)
    done = snapshots.restore(settings, folder, chosen, replaces=replace, tell=_told("restored"))
    record(settings, "restore_snapshot", [chosen])
    click.echo(f"{chosen} is restored: the state of {_utc(done.manifest.saved_at)}")
    try:
        for line in messages_behind_text(settings, done.manifest.watermarks):
            click.echo(line)
    except RecommenderError as error:
        say(f"WARNING: what came since was not looked for: {error}")


@main.command()
@click.option("--yes", is_flag=True, help="Remove what is learned; no process may run.")
def rebuild(yes: bool) -> None:
    """Have all state learned again from Kafka; says first how far back it has messages.

    API keys, tracking ids, Amazon Personalize's resources and the forwarder's positions stay.
    """
    from models.servers.server_checks import check_redis
    from models.state.copies.format_check import on_stored_shards
    from models.state.copies.state_replacements import forget_learned
    from streams.kafka.connections.connection import check_kafka
    from streams.kafka.consuming.delta_offsets import last_deltas
    from streams.operations.kept_messages import kept_text

    settings = settings_with_servers()
    check_redis(settings)
    settings = on_stored_shards(settings)
    check_kafka(settings)
    for line in kept_text(settings):
        click.echo(line)
    if not yes:
        click.echo("nothing was removed: stop all processes, then confirm with --yes")
        return
    throttled = _throttled()
    n = forget_learned(
        settings,
        what="recommender rebuild",
        progress=lambda n: throttled(lambda: f"removed {n:,} keys"),
        skipped=last_deltas(settings),
    )
    record(settings, "rebuild", [f"{n} keys removed"])
    click.echo(f"{n:,} keys removed: start the workers, which learn from Kafka")


def _told(done: str) -> Callable[[Progress], None]:
    throttled = _throttled()

    def tell(progress: Progress) -> None:
        changed = f", {progress.changed:,} have changed meanwhile" if progress.changed else ""
        throttled(
            lambda: f"{done} {progress.values:,} values, {progress.bytes / 2**20:.1f} MB{changed}"
        )

    return tell


def _throttled() -> Callable[[Callable[[], str]], Any]:
    """Prints a line every other second."""
    next_s = time.monotonic() + TELL_EVERY_S

    def show(line: Callable[[], str]) -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + TELL_EVERY_S
            say(line())

    return show


def _utc(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_s))
