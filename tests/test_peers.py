"""The measurements beside others: their load, their models, and the table that they write."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from benchmarks.peers import serenade
from benchmarks.peers.load import at_rate
from benchmarks.peers.measure import Ranked
from benchmarks.peers.peer import Sent, get
from benchmarks.peers.results_page import PLOT, RESULTS, with_table
from benchmarks.peers.split import read_split
from models.evaluation.session_neighbours import SessionNeighbours
from tests.servers import ROOT, wait_until

STALL_S = 0.6


async def test_a_server_that_stalls_is_charged_for_all_that_came_meanwhile() -> None:
    """An open loop: the requests that were due during a stall count from when they were due."""
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked == 10:
            time.sleep(STALL_S)  # noqa: ASYNC251  it holds everything up, as a stall does
        return web.json_response([])

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    asking: list[int] = []

    def request(number: int) -> Sent:
        asking.append(number)
        return get("/")

    stream = await at_rate(port, request, rate=200, seconds=1.0, connections=2)
    refused = await at_rate(port, lambda _: get("/none"), rate=100, seconds=0.1)
    await runner.cleanup()
    assert asking == list(range(200))
    assert (len(stream.latencies_ms), stream.failed) == (200, 0)
    # A tenth of a second before its end is a sixth of the stall.
    assert sum(latency > 1000 * STALL_S / 6 for latency in stream.latencies_ms) > 50
    assert stream.quantiles()["p99_ms"] > 1000 * STALL_S / 2
    assert (refused.latencies_ms, refused.failed) == ([], 10)


@pytest.mark.unit
def test_hits_count_apart_for_items_that_the_session_had_before() -> None:
    """A miss is in the denominator, and a rank beyond 20 is a miss."""
    ranked = Ranked()
    ranked.add(["a"], "b", ["c", "b"])
    ranked.add(["a", "b"], "a", ["a"])
    ranked.add(["a"], "z", [*map(str, range(20)), "z"])
    assert ranked.measured() == {
        "all": {"queries": 3, "hr_20": 0.6667, "mrr_20": 0.5},
        "new": {"queries": 2, "hr_20": 0.5, "mrr_20": 0.25},
        "repeated": {"queries": 1, "hr_20": 1.0, "mrr_20": 1.0},
    }


@pytest.mark.unit
def test_session_neighbours_follow_the_most_similar_sessions() -> None:
    """Items of sessions that share the newest item come first, and each click counts at once."""
    sessions = SessionNeighbours()
    for session, items in {"one": "abc", "two": "bd", "three": "xy"}.items():
        for at_s, item in enumerate(items):
            sessions.learn(session, item, float(at_s))
    assert sessions.next_items("new", ["a", "b"], 20) == ["a", "c", "d"]
    assert sessions.next_items("new", ["unknown"], 20) == []
    sessions.learn("four", "unknown", 9.0)
    sessions.learn("four", "y", 10.0)
    assert sessions.next_items("new", ["unknown"], 20) == ["y"]


@pytest.mark.unit
def test_readme_shows_the_results_of_the_last_run() -> None:
    """The table is that of docs/peers.json, and the plot is there."""
    readme = (ROOT / "README.md").read_text()
    assert with_table(readme, json.loads((ROOT / RESULTS).read_text())) == readme
    assert (ROOT / PLOT).exists()
    assert f"]({PLOT.name})" in (ROOT / "docs" / "benchmarks.md").read_text()


def small_split(folder: Path) -> Path:
    """Files of Serenade's form with a few clicks."""
    for name in ("train", "test"):
        with gzip.open(folder / f"{name}.txt.gz", "wt") as file:
            file.write("SessionId\tItemId\tTime\n")
            for number in range(40):
                file.write(f"{name}{number % 8}\t{number % 5}\t{1_592_337_718.0 + number}\n")
    return folder


@pytest.mark.unit
def test_a_limit_keeps_the_newest_training_clicks_and_whole_test_sessions(tmp_path: Path) -> None:
    """A session of the test that has begun is not cut."""
    split = read_split(small_split(tmp_path), limit=3)
    assert [click.at_s for click in split.train] == [1_592_337_718.0 + n for n in (37, 38, 39)]
    assert {click.session for click in split.test} == {"test0", "test1", "test2"}
    assert len(split.test) == 15


def test_a_peer_whose_build_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence, for the table: the run goes on with the others."""
    cargo = tmp_path / "cargo"
    cargo.write_text("#!/bin/sh\necho compiling >&2\necho 'error: no linker' >&2\nexit 101\n")
    cargo.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("LIBCLANG_PATH", "/usr/lib")
    monkeypatch.setattr(serenade, "BUILT", tmp_path / "built")
    assert serenade.Serenade().missing() == "cargo failed: error: no linker"


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process(tmp_path: Path, by: signal.Signals) -> None:
    """Ctrl-C, and a kill."""
    run = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.peers", str(small_split(tmp_path)),
         "--only", "empty FastAPI route", "--seconds", "600"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    started = psutil.Process(run.pid)

    def servers() -> list[psutil.Process]:
        found = started.children(recursive=True)
        return [one for one in found if "benchmarks.peers.library_server" in one.cmdline()]

    try:
        wait_until(lambda: bool(servers()), within_s=180, what="a peer has started")
        server = servers()[0]
        run.send_signal(by)
        run.wait(60)
    finally:
        run.kill()
    wait_until(lambda: not _runs(server), within_s=60, what="it has ended")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
