"""Processes and commands that rank nothing load neither machine code nor the ranker's libraries."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from cli import main
from cli.group import MODULES as COMMANDS
from tests.forked_processes import MODULES
from tests.servers import ROOT

HEAVY = {"numba", "llvmlite", "river", "scipy", "lark"}

LOADED = "import json, sys, {module}; print(json.dumps([*sys.modules]))"


def loaded(module: str) -> set[str]:
    """Top-level packages in a new interpreter that has imported a module."""
    code = LOADED.format(module=module)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name.partition(".")[0] for name in json.loads(ended.stdout)}


@pytest.mark.parametrize(
    "module",
    [
        *sorted({f"cli.{module}" for module in COMMANDS.values()}),
        "streams.forwarding.app",
        "streams.jobs.runner",
        "streams.kafka.dead_letters",
        "streams.kafka.topics",
        "streams.operations.resending",
        "streams.operations.skip",
        "streams.operations.status",
    ],
)
def test_what_ranks_nothing_loads_no_ranker(module: str) -> None:
    """A second of CPU and 150 MB for each process that needs none of it."""
    assert loaded(module) & HEAVY == set()


@pytest.mark.parametrize("module", ["streams.jobs.runner", "streams.object_store"])
def test_local_files_need_no_client_of_s3(module: str) -> None:
    """It is loaded where an object of S3 is used."""
    assert loaded(module) & {"boto3", "botocore"} == set()


def test_the_command_line_loads_what_a_command_needs() -> None:
    """Its own module, and neither arrays nor a client before."""
    assert loaded("cli") & {"numpy", "redis"} == set()
    for name, module in COMMANDS.items():
        assert name in importlib.import_module(f"cli.{module}").main.commands


def test_every_command_has_its_module() -> None:
    """One that is missing in the table would be found by nobody."""
    for path in (ROOT / "cli").glob("*.py"):
        if path.stem not in {"__main__", "preloaded"}:  # this one changes its process
            importlib.import_module(f"cli.{path.stem}")
    assert set(main.commands) == set(COMMANDS)


def test_what_ranks_loads_it() -> None:
    """The names above are those that the recommender loads."""
    assert {"numba", "scipy"} < loaded("models.serving.recommender")


def test_forked_processes_have_their_modules_loaded() -> None:
    """A name that is gone would only make every start slow."""
    assert [name for name in MODULES if importlib.util.find_spec(name) is None] == []
