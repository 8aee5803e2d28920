"""The command that shows the audit log, and the entries of the commands themselves."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Sequence

import click

from cli.group import main, say
from cli.servers import reachable_settings
from models.audit_entries import AuditEntry
from models.errors import RecommenderError
from models.settings import Settings


@main.command()
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Only the last so many days.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def audit(days: float | None, as_json: bool) -> None:
    """Show who changed what, when and from where, oldest first."""
    from models.audit_entries import encode_entry
    from streams.kafka.audit_log import audit_entries
    from streams.operations.audit_text import entry_line

    since_s = time.time() - days * 86400 if days else 0.0
    for entry in audit_entries(reachable_settings(needs_redis=False), since_s=since_s):
        click.echo(encode_entry(entry).decode() if as_json else entry_line(entry))


def record(settings: Settings, action: str, targets: Sequence[str], *, group: str = "") -> None:
    """Write what this command does to the audit log; without Kafka it says that it did not.

    A key must be revocable while Kafka is away.
    """
    from streams.kafka.audit_log import opened_audit_log
    from streams.kafka.connections.connection import check_kafka
    from streams.kafka.topics import Topics, topic_ids

    entry = AuditEntry(
        time.time(), "cli", _user(), action, group, list(targets), socket.gethostname()
    )
    try:
        # The client would try for ten seconds, and log each try.
        check_kafka(settings)
        topic_ids(settings, [Topics.of(settings).audit])
        with opened_audit_log(settings) as log:
            log.write(entry)
    except RecommenderError as error:
        say(f"WARNING: {action} is not in the audit log: {error}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
