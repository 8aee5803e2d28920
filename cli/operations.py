"""Commands for operators: status, dead letters, and skipping of undecodable messages."""

from __future__ import annotations

import asyncio
import sys
import time

import click

from cli.audit import record
from cli.group import main, say
from cli.servers import reachable_settings


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def config(as_json: bool) -> None:
    """Show the settings in effect and where each comes from, as a settings file; no secrets."""
    import json

    from models.settings import Settings
    from models.settings.effective import as_toml, effective_settings

    effective = effective_settings(Settings())
    if as_json:
        click.echo(json.dumps({name: one._asdict() for name, one in effective.items()}))
    else:
        click.echo(as_toml(effective))


@main.command()
@click.option(
    "--partitions", is_flag=True, help="Also end offset, watermark and lag of each partition."
)
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
def status(partitions: bool, as_json: bool) -> None:
    """Show what is wrong, if anything; lag, freshness, dead letters, quality, memory."""
    import msgspec

    from streams.operations.status import read_status
    from streams.operations.status_text import as_text

    read = asyncio.run(read_status(reachable_settings(), now_s=time.time()))
    click.echo(
        msgspec.json.encode(read).decode() if as_json else as_text(read, partitions=partitions)
    )


@main.command()
@click.argument("topic")
@click.argument("partition", type=click.IntRange(0))
@click.argument("offset", type=click.IntRange(0))
@click.option("--yes", is_flag=True, help="Confirm; without it, nothing is skipped.")
def skip(topic: str, partition: int, offset: int, yes: bool) -> None:
    """Skip messages that cannot be decoded and stop a partition.

    `recommender status` names TOPIC, PARTITION and OFFSET. A dead letter records the position. A
    message that can be decoded is never skipped.
    """
    from streams.operations.skip import skip as go_past

    if not yes:
        raise click.UsageError("skipped messages take no effect: confirm with --yes")
    settings = reachable_settings()
    done = asyncio.run(go_past(settings, topic, partition, offset))
    record(settings, "skip", [f"{topic}/{partition}/{offset}"])
    click.echo(f"{done.unreadable}: skipped by the {' and the '.join(done.readers)}")


@main.group("dead-letters")
def dead_letters() -> None:
    """Show, replay or discard messages that could not be processed."""


@dead_letters.command("list")
@click.option("--all", "again", is_flag=True, help="Also letters that were replayed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_dead_letters(again: bool, as_json: bool) -> None:
    """Show dead letters that were not replayed: time, origin, stage, reason and payload."""
    import msgspec

    from streams.kafka.dead_letters import letters
    from streams.operations.letter_text import as_line

    n = 0
    for letter, _ in letters(reachable_settings(needs_redis=False), again=again):
        n += 1
        click.echo(msgspec.json.encode(letter).decode() if as_json else as_line(letter))
    say(f"{n} dead letters")


@dead_letters.command("replay")
def replay_dead_letters() -> None:
    """Send dead letters to their topics again.

    A message that was too long for its letter is read from its topic. A message that Kafka no
    longer has, or refuses, stays a dead letter, and the exit code is 1.
    """
    from streams.operations.resending import resend

    settings = reachable_settings(needs_redis=False)
    done = resend(settings)
    record(settings, "replay_dead_letters", [f"{done.sent} sent again"])
    for letter, reason in done.kept:
        source = letter.source
        say(f"{source.topic}/{source.partition}/{source.offset}  not sent: {reason}")
    click.echo(f"{done.sent} dead letters sent again")
    if done.kept:
        sys.exit(1)


@dead_letters.command("discard")
@click.option("--yes", is_flag=True, help="Confirm; without it, nothing is discarded.")
def discard_dead_letters(yes: bool) -> None:
    """Let dead letters be: they are shown no more, and `list --all` still has them."""
    from streams.operations.resending import discard

    if not yes:
        raise click.UsageError("discarded messages take no effect: confirm with --yes")
    settings = reachable_settings(needs_redis=False)
    n = discard(settings)
    record(settings, "discard_dead_letters", [f"{n} discarded"])
    click.echo(f"{n} dead letters discarded")
