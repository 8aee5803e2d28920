"""Commands of operators: status, dead letters, and the way past unreadable messages."""

from __future__ import annotations

import asyncio
import sys
import time

import click

from cli.group import main, say
from cli.servers import reachable_settings


@main.command()
@click.option("--partitions", is_flag=True, help="Also end, watermark and lag of each partition.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
def status(partitions: bool, as_json: bool) -> None:
    """What is wrong, if anything; lag, freshness, dead letters, quality, memory."""
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
@click.option("--yes", is_flag=True, help="Do it; without it, nothing is skipped.")
def skip(topic: str, partition: int, offset: int, yes: bool) -> None:
    """Go past messages that nobody can decode, where a partition stands still at them.

    `recommender status` names TOPIC, PARTITION and OFFSET. A dead letter with the position takes
    their place. A message that can be decoded is never skipped.
    """
    from streams.operations.skip import skip as go_past

    if not yes:
        raise click.UsageError("what is skipped takes no effect: say --yes to skip it")
    done = asyncio.run(go_past(reachable_settings(), topic, partition, offset))
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
    for letter, _ in letters(reachable_settings(needs_redis=False), again=again):
        n += 1
        click.echo(msgspec.json.encode(letter).decode() if as_json else as_line(letter))
    say(f"{n} dead letters")


@dead_letters.command("replay")
def replay_dead_letters() -> None:
    """Send them to where they came from again.

    Of a message that was too long for its letter, the whole is read from where it came from. What
    Kafka no longer has, or refuses, stays a dead letter, and the exit code is 1.
    """
    from streams.operations.resending import resend

    done = resend(reachable_settings(needs_redis=False))
    for letter, reason in done.kept:
        source = letter.source
        say(f"{source.topic}/{source.partition}/{source.offset}  not sent: {reason}")
    click.echo(f"{done.sent} dead letters sent again")
    if done.kept:
        sys.exit(1)
