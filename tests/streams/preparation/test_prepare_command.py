"""The command `recommender prepare` as a process: output, exit codes, and interrupts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.forked_processes import command_result
from tests.servers import ROOT

HEAD = "customer,sku,when,stars\n"
PATIENCE_S = 120.0


def command(*arguments: str, tmp: Path) -> list[Any]:
    """The command line, and an environment in which temporary files are in one folder."""
    tmp.mkdir(exist_ok=True)
    argv = [sys.executable, "-m", "cli", "prepare", *arguments]
    return [argv, {**os.environ, "TMPDIR": str(tmp), "PYTHONPATH": str(ROOT)}]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, ended; it leaves no temporary file."""
    [_, _, _, *argv], env = command(*arguments, tmp=folder / "tmp")
    done = command_result(argv, environment=env, directory=folder, within_s=PATIENCE_S)
    assert list((folder / "tmp").iterdir()) == []
    return done


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Enough interactions, and one bad one."""
    path = tmp_path / "events.csv"
    rows = "".join(f"u{n % 27},i{n},{1_600_000_000 + n},{n % 5}\n" for n in range(1250))
    path.write_text(HEAD + rows + "u,i,soon,1\n")
    return path


def test_the_report_has_columns_rows_reasons_and_files(tmp_path: Path, source: Path) -> None:
    """The report names columns, rows, reasons and files; the files exist."""
    done = run(tmp_path, source.name, "out", "--map", "TIMESTAMP=when", "--keep", "stars",
               "--where", "stars >= 1", "--event-type", "rate")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "events.csv: interactions from csv\n"
        "  customer  -> USER_ID (guessed)\n"
        "  sku       -> ITEM_ID (guessed)\n"
        "  when      -> TIMESTAMP (by --map)\n"
        "  stars     -> STARS (kept)\n"
        "  'rate' -> EVENT_TYPE in every row\n"
        "1251 rows read, 1000 kept, 1 dropped, 250 left out by --where\n"
        "           1  TIMESTAMP: not a time  (line 1252)\n"
        "kept: 27 users, 1000 items, 1 types of events, 2020-09-13 to 2020-09-13,"
        " 1000 times in seconds\n"
        "wrote out/interactions.schema.json\n"
        "wrote out/batch-users.jsonl\n"
        "wrote out/interactions.csv\n"
    )
    assert (tmp_path / "out" / "interactions.csv").read_text().startswith(
        "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,STARS\nu1,i1,1600000001,rate,1\n"
    )  # fmt: skip


def test_the_report_as_json(tmp_path: Path, source: Path) -> None:
    """One object with the same counts."""
    done = run(tmp_path, source.name, "--map", "TIMESTAMP=when", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["rows"], report["kept"]["rows"]) == (0, 1251, 1250)
    assert report["dropped"] == [
        {"reason": "TIMESTAMP: not a time", "rows": 1, "first": ["line 1252"]}
    ]
    assert report["written"] == []


def test_broken_rules_have_an_exit_code_of_their_own(tmp_path: Path, source: Path) -> None:
    """Strictly 3 and nothing written; relaxed 0 and a note."""
    arguments = (source.name, "out", "--map", "TIMESTAMP=when", "--where", "stars = 4")
    done = run(tmp_path, *arguments)
    assert done.returncode == 3
    assert "problem: 250 interactions, and 1000 are the least" in done.stdout
    assert not (tmp_path / "out").exists()
    done = run(tmp_path, *arguments, "--relaxed")
    assert done.returncode == 0
    assert "note: 250 interactions, and 1000 are the least" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.csv"], 1, "no object at none.csv"),
        (["events.csv"], 1, "name it with --map TIMESTAMP=COLUMN"),
        (["events.csv", "--map", "when"], 2, "not FIELD=COLUMN"),
        (["events.csv", "--format", "yaml"], 1, "no format 'yaml'"),
        (["events.csv", "--map", "TIMESTAMP=when", "--where", "(SELECT 1)"], 1, "--where"),
        (["http://example.org/a.csv"], 1, "neither s3://bucket/key nor a path"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, source: Path, arguments: list[str], code: int, said: str
) -> None:
    """The error without a traceback."""
    done = run(tmp_path, *arguments)
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert source.exists()


def engine_works(tmp: Path) -> bool:
    """True once all rows are staged and are being checked."""
    return any(tmp.glob("*/prepare.duckdb")) and any(tmp.glob("*/output")) and not any(
        tmp.glob("*/staging")
    )  # fmt: skip


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough for seconds of work."""
    path = tmp_path_factory.mktemp("large") / "large.csv"
    with path.open("w") as file:
        file.write(HEAD)
        file.writelines(f"u{n},i{n},{1_600_000_000 + n},{n % 5}\n" for n in range(600_000))
    return path


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "is_reached",
    [lambda tmp: any(tmp.glob("*/staging")), engine_works],
    ids=["reading", "checking"],
)
@pytest.mark.slow
def test_an_interrupt_leaves_no_files(
    tmp_path: Path, large: Path, sent: signal.Signals, is_reached: Callable[[Path], bool]
) -> None:
    """Stopped anywhere it ends at once with 130, without temporary files and without output."""
    tmp = tmp_path / "tmp"
    argv, env = command(str(large), "out", "--map", "TIMESTAMP=when", tmp=tmp)
    was_staging = False
    with subprocess.Popen(argv, env=env, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        deadline_s = time.monotonic() + PATIENCE_S
        while not (was_staging and is_reached(tmp)):
            was_staging = was_staging or any(tmp.glob("*/staging"))
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.send_signal(sent)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert said == b""
    assert list(tmp.iterdir()) == []
    assert not (tmp_path / "out").exists()
