"""Processes and commands load what they need: no ranker where nothing is ranked, no tracing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from cli import main
from cli.group import MODULES as COMMANDS
from tests.forked_processes import MODULES
from tests.servers import ROOT

HEAVY = {"numba", "llvmlite", "river", "scipy", "lark"}

LEAN = [
    *sorted({f"cli.{module}" for module in COMMANDS.values()}),
    "streams.forwarding.app",
    "streams.jobs.runner",
    "streams.kafka.dead_letters",
    "streams.kafka.topics",
    "streams.object_store",
    "streams.operations.resending",
    "streams.operations.skip",
    "streams.operations.status",
]

RANKING = ["models.serving.recommender", "api.app", "streams.agents.worker"]

OF_TRACES = ("opentelemetry.exporter", "opentelemetry.sdk.trace", "google.protobuf")
"""The SDK's metrics are loaded by redis-py wherever they are installed."""

LOADED = """
import importlib, json, os, sys

names = json.loads(sys.argv[1])
for name in json.loads(sys.argv[2]):
    importlib.import_module(name)
for name in names:
    child = os.fork()
    if child == 0:
        importlib.import_module(name)
        print(json.dumps([*sys.modules]), flush=True)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{name} cannot be imported")
"""
"""Imports each module in a process of its own, forked from one that has loaded only some others."""

SHARED = ("click", "kafka", "msgspec", "numpy", "pydantic_settings", "redis.asyncio")
"""What most of them need takes a third of a second to load: it is loaded once."""


def loaded(*modules: str, before: Sequence[str] = ()) -> dict[str, set[str]]:
    """Names of all modules after the import of each, in interpreters without any other."""
    ended = subprocess.run(
        [sys.executable, "-c", LOADED, json.dumps(modules), json.dumps(before)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = [set(json.loads(line)) for line in ended.stdout.splitlines()]
    return dict(zip(modules, found, strict=True))


@pytest.fixture(scope="module")
def of_lean() -> dict[str, set[str]]:
    """Modules loaded by each of those that rank nothing."""
    return loaded(*LEAN, before=SHARED)


@pytest.fixture(scope="module")
def of_ranking() -> dict[str, set[str]]:
    """Modules loaded by the recommender, and by the processes that have one."""
    return loaded(*RANKING, before=(*SHARED, RANKING[0]))


@pytest.mark.parametrize("module", LEAN)
def test_what_ranks_nothing_loads_no_ranker(of_lean: dict[str, set[str]], module: str) -> None:
    """A second of CPU and 150 MB for each process that needs none of it."""
    assert of_lean[module] & HEAVY == set()


@pytest.mark.parametrize("module", ["streams.jobs.runner", "streams.object_store"])
def test_local_files_need_no_client_of_s3(of_lean: dict[str, set[str]], module: str) -> None:
    """It is loaded where an object of S3 is used."""
    assert of_lean[module] & {"boto3", "botocore"} == set()


def test_the_command_line_loads_what_a_command_needs() -> None:
    """Its own module, and neither arrays nor a client before."""
    assert loaded("cli")["cli"] & {"numpy", "redis"} == set()
    for name, module in COMMANDS.items():
        assert name in importlib.import_module(f"cli.{module}").main.commands


def test_every_command_has_its_module() -> None:
    """One that is missing in the table would be found by nobody."""
    for path in (ROOT / "cli").glob("*.py"):
        if path.stem not in {"__main__", "preloaded"}:  # this one changes its process
            importlib.import_module(f"cli.{path.stem}")
    assert set(main.commands) == set(COMMANDS)


def test_what_ranks_loads_it(of_ranking: dict[str, set[str]]) -> None:
    """The names above are those that the recommender loads."""
    assert {"numba", "scipy"} < of_ranking["models.serving.recommender"]


def test_without_traces_nothing_of_them_is_loaded(
    of_lean: dict[str, set[str]], of_ranking: dict[str, set[str]]
) -> None:
    """Neither what makes spans nor what sends them, by any process that could."""
    for names in (of_lean["cli.processes"], *of_ranking.values()):
        assert [name for name in names if name.startswith(OF_TRACES)] == []


def test_forked_processes_have_their_modules_loaded() -> None:
    """A name that is gone would only make every start slow."""
    assert [name for name in MODULES if importlib.util.find_spec(name) is None] == []
