"""Only models.state speaks Redis: elsewhere a client is handed on, and no command is sent."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]

ALLOWED = {
    # Documents of the emulator, which the recommender does not know.
    "models/personalize/resources/job_queue.py",
    "models/personalize/resources/registry.py",
}

CLIENTS = {"redis", "_redis"}
"""Attributes that hold a client."""

LIFETIME = {"aclose"}
"""Attributes that the owner of a client may use."""


def sources() -> Iterator[Path]:
    """Every module outside models.state; the drill tampers with servers and reads all they have."""
    for package in ("api", "cli", "models", "ops", "streams"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(("models/state/", "ops/drill/")) and name not in ALLOWED:
                yield path


def commands(text: str) -> list[str]:
    """Attributes of clients that a module uses, such as `hget` of `store.redis.hget`."""
    return [
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr in CLIENTS
        and node.attr not in LIFETIME
    ]


def test_no_other_module_sends_commands() -> None:
    """Modules call functions of models.state instead."""
    used = {path.as_posix(): commands(path.read_text()) for path in sources()}

    assert len(used) > 100
    assert {path: names for path, names in used.items() if names} == {}


def test_a_command_is_noticed() -> None:
    """So is an attribute that gives commands."""
    text = "await self.store.redis.reads.get(keys)\nawait client.redis.aclose()"

    assert commands(text) == ["reads"]


def test_clients_are_made_of_all_settings() -> None:
    """One made of the URL alone would know neither certificates nor Sentinels."""
    made = [path for path in sources() if re.search(r"\bconnect\(\w*settings\.", path.read_text())]

    assert made == []
