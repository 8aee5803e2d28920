"""Commands for API keys: create, list, revoke."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from cli.audit import record
from cli.group import main, say
from cli.servers import reachable_settings
from models.api_keys import ALL_GROUPS, Role, new_key
from models.settings import Settings

if TYPE_CHECKING:
    from models.state.clients.client import RedisClient

Outcome = TypeVar("Outcome")


@main.group()
def keys() -> None:
    """Create, list or revoke API keys."""


@keys.command("create")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice([role.value for role in Role]),
    help="May repeat.",
)
@click.option(
    "--group", "groups", multiple=True, help="Dataset group, may repeat; default RECOMMENDER_GROUP."
)
@click.option("--all-groups", is_flag=True, help="For every dataset group instead.")
@click.option(
    "--origin",
    "origins",
    multiple=True,
    help="A public key for pages of this origin, https://shop.example; may repeat.",
)
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Refuse it after so long.")
@click.option(
    "--per-second",
    type=click.FloatRange(0, 1e6),
    default=0.0,
    help="Most requests a second, of each API process.",
)
@click.option(
    "--per-day", type=click.IntRange(0, 10**12), default=0, help="Most requests a day, of all."
)
def create_key(
    name: str,
    roles: tuple[str, ...],
    groups: tuple[str, ...],
    origins: tuple[str, ...],
    all_groups: bool,
    days: float | None,
    per_second: float,
    per_day: int,
) -> None:
    """Create a key called NAME, and print it: it is stored nowhere."""
    from models.state.groups import key_store

    if all_groups and groups:
        raise click.UsageError("either --group or --all-groups")
    settings = reachable_settings(needs_kafka=False)
    now_s = time.time()
    made = new_key(
        name,
        roles,
        [ALL_GROUPS] if all_groups else groups or [settings.group],
        now_s=now_s,
        origins=origins,
        expires_s=now_s + days * 86400 if days else 0.0,
        requests_per_s=per_second,
        requests_per_day=per_day,
    )
    _run(settings, lambda client: key_store.add_key(client, made.key, now_s=now_s))
    record(settings, "create_key", [made.key.id, name, *made.key.roles, *made.key.groups])
    say(f"key {made.key.id}: shown once, keep it")
    click.echo(made.text)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_keys(as_json: bool) -> None:
    """Show all keys, without their secrets."""
    import msgspec

    from models.state.groups import key_store
    from streams.operations.key_text import as_line, shown

    found = _run(reachable_settings(needs_kafka=False), key_store.stored_keys)
    for key in found:
        if key.is_listed:
            click.echo(
                msgspec.json.encode(shown(key)).decode()
                if as_json
                else as_line(key, now_s=time.time())
            )


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
def revoke_key(key_id: str) -> None:
    """Revoke the key with this ID: every API process refuses it within seconds."""
    from models.state.groups import key_store

    settings = reachable_settings(needs_kafka=False)
    removed = _run(settings, lambda client: key_store.remove_key(client, key_id))
    if removed is None:
        raise click.ClickException(f"no key has the id {key_id}: see `recommender keys list`")
    say(f"key {removed.id} ({removed.name}) is revoked")
    record(settings, "revoke_key", [removed.id, removed.name])


def _run(settings: Settings, work: Callable[[RedisClient], Awaitable[Outcome]]) -> Outcome:
    """Do this with a client of Redis; raises `Unavailable` if it is away."""
    from models.state.clients.client import client_of
    from models.state.clients.redis_errors import unavailable

    async def connected() -> Outcome:
        with unavailable():
            async with client_of(settings) as client:
                return await work(client)

    return asyncio.run(connected())
