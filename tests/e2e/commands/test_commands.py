"""The commands, as operators run them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import psutil
import pytest

from tests.conftest import recorded
from tests.forked_processes import command_result
from tests.servers import ROOT, own_port, wait_until
from tests.stack import Stack

BARE = {name: value for name, value in os.environ.items() if not name.startswith("RECOMMENDER_")}


def command(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command of the product in a folder, with only these settings."""
    environment = BARE | {"PYTHONPATH": str(ROOT)} | settings
    return command_result(arguments, environment=environment, directory=cwd, within_s=120)


def children_of(folder: Path) -> list[psutil.Process]:
    """Processes that work in this folder, or whose command names it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)) or str(folder) in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def started_up(folder: Path) -> subprocess.Popen[bytes]:
    """A running `recommender up` whose commands find its servers; it prints to up.log."""
    said = folder / "up.log"
    with said.open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", "--port", "0"],
            cwd=folder, env=BARE | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    wait_until(lambda: "Ctrl-C stops" in said.read_text(), within_s=180, what="up is running")
    assert command("topics", cwd=folder).stdout == "all topics exist\n"
    assert json.loads(command("status", "--json", cwd=folder).stdout)["lag"] == 0
    return up


def test_ctrl_c_leaves_no_process_of_up(tmp_path: Path) -> None:
    """It ends every child."""
    up = started_up(tmp_path)
    up.send_signal(signal.SIGINT)

    assert up.wait(40) == 0
    assert children_of(tmp_path) == []


@pytest.mark.slow
def test_kill_and_sigterm_leave_no_process_of_up(tmp_path: Path) -> None:
    """After kill -9 children end by themselves, the next run says so, and SIGTERM ends its own."""
    up = started_up(tmp_path)
    up.kill()
    up.wait(40)
    wait_until(lambda: children_of(tmp_path) == [], within_s=60, what="nothing is left")

    again = started_up(tmp_path)
    again.terminate()

    assert again.wait(40) == 0
    assert children_of(tmp_path) == []
    lines = (tmp_path / "up.log").read_text().splitlines()
    assert "the last run was killed: all that it had accepted had taken effect" in lines


def test_no_servers_is_one_clear_line(tmp_path: Path) -> None:
    """Commands without servers name the settings or commands that help."""
    for arguments in (("topics",), ("status",), ("worker",), ("dead-letters", "list")):
        ended = command(*arguments, cwd=tmp_path)
        assert ended.returncode == 1
        assert ended.stderr.strip().splitlines()[-1].startswith("Error: no servers: start")


def test_unreachable_servers_are_one_clear_line(tmp_path: Path) -> None:
    """Commands name the address of a configured server that does not answer, and end."""
    recording = tmp_path / "events.csv"
    recording.write_text("user,item,type,ts\nu,i,click,1700000000\n")
    nobody = f"127.0.0.1:{own_port()}"
    servers = {
        "RECOMMENDER_KAFKA": nobody,
        "RECOMMENDER_REDIS": f"redis://{nobody}/0",
        "RECOMMENDER_PUBLISH_TIMEOUT_S": "1",
    }
    for arguments in (("topics",), ("status",), ("dead-letters", "list"), ("replay", "events.csv")):
        ended = command(*arguments, cwd=tmp_path, **servers)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert ended.stderr.strip().splitlines()[-1].startswith("Error: ")
        assert nobody in ended.stderr.strip().splitlines()[-1]


def test_a_worker_waits_for_kafka(tmp_path: Path) -> None:
    """A worker that starts before Kafka says once that it waits."""
    nobody = f"127.0.0.1:{own_port()}"
    servers = {
        "RECOMMENDER_KAFKA": nobody,
        "RECOMMENDER_REDIS": f"redis://{nobody}/0",
        "RECOMMENDER_PUBLISH_TIMEOUT_S": "0.2",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "worker"],
        cwd=tmp_path, env=BARE | {"PYTHONPATH": str(ROOT)} | servers, text=True,
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as worker:  # fmt: skip
        try:
            assert worker.stderr is not None
            line = worker.stderr.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(5)
        finally:
            worker.terminate()
        rest = worker.stderr.read()

    assert line.startswith(f"waiting: Kafka at {nobody}")
    assert rest == ""


def test_wrong_setting_is_one_clear_line(tmp_path: Path) -> None:
    """The error names a setting out of range."""
    ended = command("topics", cwd=tmp_path, RECOMMENDER_PARTITIONS="0")
    assert ended.returncode == 1
    assert "RECOMMENDER_PARTITIONS" in ended.stderr


def distinct(path: Path) -> int:
    """Distinct events of a recorded file."""
    with gzip.open(path, "rt") as file:
        return len({tuple(row) for row in csv.reader(file)}) - 1


def first_rows(path: Path, n_rows: int, part: Path) -> Path:
    """A recorded file's head and first rows, as another file."""
    with gzip.open(path, "rt") as file, gzip.open(part, "wt") as written:
        written.writelines(islice(file, n_rows + 1))
    return part


def replayed_exactly(one: Stack, path: Path, *options: str) -> None:
    """Replay a data set to its end, and compare the counts with the file."""
    expected = distinct(path)
    one.start("worker")

    ended = one.run("replay", str(path), *options)

    assert ended.returncode == 0, ended.stderr
    rows = int(re.match(r"(\d+) rows", ended.stdout)[1])  # type: ignore[index]
    one.wait(
        lambda: sum(one.counts().get(n, 0) for n in ("events", "duplicates")) >= rows,
        "all rows are in effect",
        600,
    )
    counts = one.counts()
    assert counts["events"] == expected
    assert counts.get("duplicates", 0) == rows - expected
    assert ", 0 bad rows" in ended.stdout


def test_replay_of_a_real_data_set(stack: Callable[..., Stack]) -> None:
    """All events of the small real data set take effect."""
    replayed_exactly(stack(), recorded("otto-fixture"))


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.any_broker
@pytest.mark.parametrize(("name", "n_rows"), [("serenade-toy", 40_000), ("online-retail", 16_000)])
def test_replay_of_large_real_data_sets(
    stack: Callable[..., Stack], tmp_path: Path, name: str, n_rows: int
) -> None:
    """All events of the large ones, too; of purchases, until some users have too many to keep."""
    part = first_rows(recorded(name), n_rows, tmp_path / "events.csv.gz")
    one = stack()
    replayed_exactly(one, part, "--events-per-message", "10")

    assert one.counts()["events"] == n_rows
    if name == "online-retail":
        with gzip.open(part, "rt") as file:
            of_users = Counter(line.partition(",")[0] for line in file)
        assert max(of_users.values()) > 2 * one.settings.history_events


@pytest.mark.slow
def test_evaluate_compares_on_a_recording(tmp_path: Path) -> None:
    """The table, the same as JSON, and a plot; unknown models are named; no process is left."""
    recording = recorded("otto-fixture")
    wanted = ("--recipes", "user-personalization,popularity,item-neighbours")

    ended = command("evaluate", str(recording), *wanted, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    names = [line.split()[0] for line in ended.stdout.splitlines()]
    # The second table has repeated and new targets apart.
    of_table = wanted[1].split(",")
    assert [names[2:5], names[7:]] == [of_table, of_table]

    ended = command("evaluate", str(recording), *wanted, "--json", "--plot", "x.svg", cwd=tmp_path)
    found = json.loads(ended.stdout)
    assert (found["events"], found["items"]) == (862, 510)
    assert set(found["rivals"]) == set(wanted[1].split(","))
    assert found["queries"] > 100
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]
    assert "MRR@20" in (tmp_path / "x.svg").read_text()

    ended = command("evaluate", str(recording), "--recipes", "magic", cwd=tmp_path)
    assert ended.returncode == 2
    assert "magic: not among user-personalization" in ended.stderr


def test_commands_take_settings_from_a_file(tmp_path: Path) -> None:
    """`config` shows them; a wrong value is named as it stands in the file."""
    (tmp_path / "recommender.toml").write_text('group = "filed"\nlog_level = "info"\n')
    (tmp_path / "redis").write_text("redis://:Pl4nted@h:1/0\n")
    shown = command("config", cwd=tmp_path, RECOMMENDER_REDIS_FILE="redis")
    assert 'group = "filed"  # recommender.toml' in shown.stdout.splitlines()
    assert 'redis = "redis://:***@h:1/0"  # RECOMMENDER_REDIS_FILE, redis' in shown.stdout
    as_json = json.loads(command("config", "--json", cwd=tmp_path).stdout)
    assert as_json["log_level"] == {"value": "info", "origin": "recommender.toml"}
    (tmp_path / "recommender.toml").write_text("partitions = 0\n")
    ended = command("topics", cwd=tmp_path)
    assert ended.returncode == 1
    assert "recommender.toml: partitions: Input should be greater than" in ended.stderr
