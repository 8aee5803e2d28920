"""The audit log: what changes something is in it, with who, and without a secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.servers import check_access
from models.audit_entries import AuditEntry, pseudonym
from models.errors import Unavailable
from tests.access.api_key_fixtures import EVENT, keyed_api
from tests.api_server import accepting_publisher
from tests.stack import Stack

TARGET = "X-Amz-Target: AmazonPersonalize.CreateSchema"
SCHEMA = json.dumps({"name": "s", "schema": "{}"}).encode()


def test_changes_are_written_before_they_are_done(tmp_path: Path) -> None:
    """Who, what and from where; other reads and events are not in it, users by a pseudonym."""
    written: list[AuditEntry] = []
    is_away = False

    async def write(entry: AuditEntry) -> None:
        if is_away:
            raise Unavailable("Kafka does not answer")
        written.append(entry)

    with keyed_api(tmp_path, kafka=accepting_publisher(audit=write)) as one:
        key, text = one.made("send", "read", "manage", groups=("*",))
        header = f"X-Api-Key: {text}"
        items = b'{"items": [{"itemId": "tent", "properties": {}}]}'
        assert one.status("POST", "/events", header, body=EVENT) == 202
        assert one.status("GET", "/recommend", header) == 200
        assert one.status("GET", "/items/tent", header) == 404
        assert written == []
        assert one.status("DELETE", "/users/ada", header) in {200, 202}
        assert one.status("PUT", "/items", header, body=items) == 202
        exported = one.ask("GET", "/users/ada/export", header)
        assert (exported.status, exported.headers["content-type"]) == (200, "application/json")
        one.status("POST", "/personalize", header, TARGET, body=SCHEMA)
        # This API has no access to Kafka's events; who asks for them is in the log all the same.
        assert one.status("GET", "/live/events?user_id=ada", header) == 503
        assert one.status("GET", "/events?event_id=ada-1", header) == 503
        refused = one.key("read")
        for method, path in (("DELETE", "/users/ada"), ("GET", "/users/ada/export")):
            assert one.status(method, path, f"X-Api-Key: {refused}") == 403

        assert [(one.actor, one.action, one.targets, one.address) for one in written] == [
            (key.id, "erase_user", [pseudonym("shop", "ada")], "127.0.0.1"),
            (key.id, "put_items", ["tent"], "127.0.0.1"),
            (key.id, "export_user", [pseudonym("shop", "ada")], "127.0.0.1"),
            (key.id, "CreateSchema", ["s"], "127.0.0.1"),
            (key.id, "follow_events", [pseudonym("shop", "ada")], "127.0.0.1"),
            (key.id, "find_events", [], "127.0.0.1"),
        ]
        assert text[17:] not in repr(written)
        is_away = True
        assert one.status("DELETE", "/users/ada", header) == 503


def test_the_commands_show_and_write_it(stack: Callable[..., Stack]) -> None:
    """Keys that are made and revoked are in it, and what an API with keys did."""
    one = stack()
    assert one.run("topics").returncode == 0
    made = one.run("keys", "create", "shop backend", "--role", "manage", "--days", "30")
    assert made.returncode == 0, made.stderr
    text = made.stdout.strip()
    key_id = text[4:16]
    listed = one.run("keys", "list")
    assert listed.stdout.startswith(f"{key_id}  shop backend  manage  groups {one.settings.group}")
    assert one.run("keys", "revoke", key_id).returncode == 0
    again = one.run("keys", "revoke", key_id)
    assert (again.returncode, "no key has the id" in again.stderr) == (1, True)

    shown = one.run("audit", "--json")
    entries = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [(entry["actor"], entry["action"]) for entry in entries] == [
        ("cli", "create_key"),
        ("cli", "revoke_key"),
    ]
    assert all(key_id in entry["targets"] for entry in entries)
    lines = one.run("audit", "--days", "1").stdout
    assert "revoke_key" in lines
    assert text[17:] not in lines + shown.stdout + listed.stdout + made.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--role", "read", "--origin", "shop.example"), "is no origin"),
        (("--role", "manage", "--origin", "https://shop.example"), "may only send and read"),
        (("--role", "read", "--group", "a b"), "not a dataset group"),
        (("--role", "read", "--group", "a", "--all-groups"), "either --group or --all-groups"),
    ],
)
def test_keys_that_break_a_rule_are_not_made(
    stack: Callable[..., Stack], arguments: tuple[str, ...], error: str
) -> None:
    """One sentence says which, and nothing is stored."""
    one = stack()
    refused = one.run("keys", "create", "k", *arguments)

    assert refused.returncode != 0
    assert error in refused.stderr
    assert refused.stdout == ""


def test_an_api_beyond_loopback_does_not_start_without_keys(stack: Callable[..., Stack]) -> None:
    """It says how to make one, and which setting lets everybody in."""
    one = stack()
    refused = one.run("api", RECOMMENDER_HOST="0.0.0.0")

    assert refused.returncode == 1
    assert "recommender keys create" in refused.stderr
    assert "RECOMMENDER_ACCESS=open" in refused.stderr


def test_on_loopback_a_missing_key_is_a_warning(
    stack: Callable[..., Stack], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first key of embedded servers is made while they run."""
    settings = stack().settings

    check_access(settings)
    assert capsys.readouterr().err == ""
    check_access(settings.model_copy(update={"access": "keys"}))
    assert "no API keys, so every caller is refused" in capsys.readouterr().err
