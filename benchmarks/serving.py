"""Requests a second of `/recommend` as a share of an empty FastAPI route, and latency at a rate.

    python -m benchmarks.serving [--users 20000] [--items 50000] [--runs 5]

Needs `wrk` (4.1 or later) on the PATH. One API process; wrk drives both from 16 connections.
`alike_share` is the share with user k-NN in the learned order, whose reads and sums the other
figures lack: online evaluation decides which order is served.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from urllib.error import URLError

from benchmarks.conditions import command, median, process, report, servers, until
from benchmarks.state import fill
from models.settings import Settings
from models.state.client import connect
from models.state.store import Store
from ops.ports import free_port

EMPTY = """
import sys, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
async def empty() -> dict[str, str]:
    return {}
uvicorn.run(app, port=int(sys.argv[1]), access_log=False, log_level="warning")
"""

SCRIPT = """
math.randomseed({seed})
request = function()
  return wrk.format("GET", "/recommend?user_id=u" .. math.random(0, {users} - 1))
end
delay = function() return {delay_ms} end
done = function(summary, latency)
  io.write(string.format("p50 %.3f p99 %.3f\\n", latency:percentile(50) / 1000,
                         latency:percentile(99) / 1000))
  if summary.errors.status > 0 then io.write("ERRORS " .. summary.errors.status .. "\\n") end
end
"""

CONNECTIONS = 16


def wrk(url: str, seconds: int, script: str = "") -> tuple[float, str]:
    """Requests a second, and everything wrk printed."""
    arguments = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        if script:
            file.write(script)
            file.flush()
            arguments += ["-s", file.name]
        printed = subprocess.run(
            [*arguments, url], check=True, capture_output=True, text=True
        ).stdout
    if "ERRORS" in printed or "Non-2xx" in printed:
        raise RuntimeError(printed)
    found = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    assert found  # noqa: S101  wrk always prints it
    return float(found[1]), printed


def answers(url: str) -> bool:
    """True if a server answers at this address."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (URLError, OSError):
        return False


async def serve(settings: Settings, order: str) -> None:
    """Make the API serve an order, as its guard would; see `models.ranking.prequential`."""
    store = Store(connect(settings.redis), settings)
    await store.redis.hset(store.key("ranker"), "interactions:serving", order)
    await store.redis.aclose()
    await asyncio.sleep(2 * settings.cache_s)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--events-per-user", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rate", type=float, default=500)
    options = parser.parse_args()
    shares, alike_shares, rates, empties, p50s, p99s, paced = [], [], [], [], [], [], []
    with servers() as found:
        settings = found.model_copy(update={"port": free_port()})
        asyncio.run(
            fill(
                settings,
                users=options.users,
                items=options.items,
                events_per_user=options.events_per_user,
            )
        )
        empty_port = free_port()
        empty_url = f"http://127.0.0.1:{empty_port}/"
        url = f"http://{settings.host}:{settings.port}/"
        empty = [sys.executable, "-c", EMPTY, str(empty_port)]
        with process(empty, os.environ), command("api", settings):
            until(lambda: answers(empty_url))
            until(lambda: answers(f"{url}healthz"))
            for run in range(options.runs + 1):
                empty_rate, _ = wrk(empty_url, options.seconds)
                fast = SCRIPT.format(seed=run, users=options.users, delay_ms=0)
                asyncio.run(serve(settings, "ranker"))
                alike_rate, _ = wrk(url, options.seconds, fast)
                asyncio.run(serve(settings, "ranker-alone"))
                rate, _ = wrk(url, options.seconds, fast)
                delay_ms = round(1000 * CONNECTIONS / options.rate)
                slow = SCRIPT.format(seed=run, users=options.users, delay_ms=delay_ms)
                reached, printed = wrk(url, options.seconds, slow)
                quantiles = re.search(r"p50 ([\d.]+) p99 ([\d.]+)", printed)
                assert quantiles  # noqa: S101  the script prints it
                if run == 0:
                    continue  # warms the caches
                empties.append(empty_rate)
                rates.append(rate)
                shares.append(rate / empty_rate)
                alike_shares.append(alike_rate / empty_rate)
                paced.append(reached)
                p50s.append(float(quantiles[1]))
                p99s.append(float(quantiles[2]))
    report(
        "serving",
        {
            "empty_route_per_s": median(empties),
            "recommend_per_s": median(rates),
            "share": median(shares),
            "alike_share": median(alike_shares),
            "paced_per_s": median(paced),
            "paced_p50_ms": median(p50s),
            "paced_p99_ms": median(p99s),
        },
        users=options.users,
        items=options.items,
        connections=CONNECTIONS,
        runs=options.runs,
    )


if __name__ == "__main__":
    main()
