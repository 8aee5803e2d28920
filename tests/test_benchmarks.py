"""What benchmarks start ends with them, and a run that fails does not go on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from benchmarks import quality
from benchmarks.freshness import measure
from models.evaluation.baselines import BASELINES
from tests.servers import ROOT, wait_until

STARTS = """
import time
from benchmarks.conditions import command, servers
with servers() as settings, command("worker", settings):
    print("started", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_a_benchmark_that_is_ended_leaves_no_process(tmp_path: Path, by: signal.Signals) -> None:
    """Neither a server nor a worker, and one that waits for its servers no less."""
    with (tmp_path / "log").open("wb") as log:
        benchmark = subprocess.Popen(
            [sys.executable, "-c", STARTS],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert benchmark.stdout is not None
    with benchmark.stdout as said:
        assert said.readline() == b"started\n"
        started = psutil.Process(benchmark.pid).children(recursive=True)
        assert len(started) >= 3
        benchmark.send_signal(by)
        benchmark.wait(60)
    wait_until(lambda: not any(map(_runs, started)), within_s=60, what="all have ended")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_run_ends_at_the_first_event_that_fails() -> None:
    """As where its broker has ended: it would only wait for each of the others."""
    asked = 0

    async def accept(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        accepted = {"after": "c1"} if asked == 1 else {"error": {"type": "unavailable"}}
        return web.json_response(accepted)

    async def recommend(_: web.Request) -> web.Response:
        return web.json_response({"freshness": {"afterReached": True}})

    app = web.Application()
    app.router.add_post("/events", accept)
    app.router.add_get("/recommend", recommend)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    with pytest.raises(ExceptionGroup):
        await measure(f"http://127.0.0.1:{port}", rate=100, seconds=5)
    await runner.cleanup()
    assert asked < 250


def test_tables_of_quality_are_written_between_their_marks() -> None:
    """Every table has its place on the page, and a rival's row its measures."""
    mean = {"mean": 0.25, "ci95": 0.01, "difference": -0.02, "difference_ci95": 0.005}
    names = ("hr_10", "hr_20", "hr_100", "mrr_20", "ndcg_20")
    one: dict[str, object] = {"coverage": 0.5, "novelty_bits": 9.0} | dict.fromkeys(names, mean)
    one |= {f"next_basket_{name}_20": mean for name in ("recall", "repeat", "explore")}
    found = {"events": 9, "items": 3, "queries": 4, "rivals": {"ease": one}, "queries_apart": {}}
    page = (ROOT / quality.PAGE).read_text()

    for table in quality.TABLES:
        assert set(table.rivals.split(",")) <= BASELINES.keys()
        rows = quality.lines(found, table)
        assert rows[-1].count("|") == rows[-2].count("|") == rows[-3].count("|")
        assert rows[-1].startswith("| ease | 0.250 | 0.250 | 0.2500 ± 0.0100 | -0.0200 ± 0.0050 |")
        written = quality.with_table(page, table.name, rows)
        assert "\n".join([f"<!-- {table.name} -->", *rows, f"<!-- /{table.name} -->"]) in written
    with pytest.raises(ValueError, match="no marks <!-- unheard-of -->"):
        quality.with_table(page, "unheard-of", [])
