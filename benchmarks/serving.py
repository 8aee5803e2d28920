"""Requests a second of `/recommend` as a share of an empty FastAPI route, and latency at a rate.

    python -m benchmarks.serving [FILE] [--users 20000] [--items 50000] [--runs 5]

Needs `wrk` (4.1 or later) on the PATH. One API process; wrk drives both from 16 connections, asking
for users drawn at random: of the recorded events in FILE, or of a shop that is made up.

`share` is of the order without user k-NN, and `alike_share` of that with it, whose reads and sums
the others lack: online evaluation decides which order is served. `session_share` (of a FILE): asked
by session instead of by user. `personalize_times_native`: time of GetRecommendations over that of
`/recommend`; `filter_share`: GetRecommendations with a filter of what the user has clicked already;
`rules_times_plain`: time of `/recommend` with a filter of two conditions over that without;
`placement_times_plain`: with a placement of a filter, a boost and a cap; `diversity_times_plain`:
with a diversity of .3.
`*_cpu_us` is CPU time of the API process for a request, which other work on the machine changes
less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import psutil

from benchmarks.conditions import command, median, process, report, servers, until
from benchmarks.state import fill, fill_recorded
from models.settings import Settings
from models.state.clients.client import connect
from models.state.store import Store
from ops.ports import free_port
from streams.kafka.topics import ensure_topics

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
local users = {{}}
for line in io.lines("{users}") do users[#users + 1] = line end
request = function()
  local user = users[math.random(#users)]
  return {request}
end
delay = function() return {delay_ms} end
done = function(summary, latency)
  io.write(string.format("p50 %.3f p99 %.3f\\n", latency:percentile(50) / 1000,
                         latency:percentile(99) / 1000))
  if summary.errors.status > 0 then io.write("ERRORS " .. summary.errors.status .. "\\n") end
end
"""

CONNECTIONS = 16
START_S = 300.0
"""Longest start of a process that compiles the inner loops first."""

ARN = "arn:aws:personalize:us-east-1:000000000000:"
SEEN = "EXCLUDE ItemID WHERE Interactions.EVENT_TYPE IN ('click')"
"""The filter, as shops have one: nothing that the user has clicked."""


def native(parameter: str, more: str = "") -> str:
    """Lua expression of a request to `/recommend`, with further parameters."""
    return f'wrk.format("GET", "/recommend?{parameter}=" .. user .. "{more}")'


def get_recommendations(more: str = "") -> str:
    """Lua expression of a GetRecommendations, with further members in its body."""
    body = f'\'{{"campaignArn":"{ARN}campaign/default",{more}"userId":"\' .. user .. \'"}}\''
    head = '{["content-type"] = "application/json"}'
    return f'wrk.format("POST", "/personalize/recommendations", {head}, {body})'


REQUESTS = {
    "recommend": native("user_id"),
    "session": native("session_id"),
    "personalize": get_recommendations(),
    "filter": get_recommendations(f'"filterArn":"{ARN}filter/seen",'),
    "rules": native("user_id", "&filter=brand!:acme;price!=1"),
    "placement": native("user_id", "&placement=home"),
    "diversity": native("user_id", "&diversity=0.3"),
}
"""Ways to ask, by the names of their figures."""


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


def make_filter(url: str, group: str) -> None:
    """Create the filter of `REQUESTS`."""
    body = {
        "name": "seen",
        "datasetGroupArn": f"{ARN}dataset-group/{group}",
        "filterExpression": SEEN.replace("'", '"'),
    }
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": "AmazonPersonalize.CreateFilter",
    }
    asked = urllib.request.Request(f"{url}personalize", json.dumps(body).encode(), headers)
    urllib.request.urlopen(asked).close()


def save_placement(url: str) -> None:
    """Save the placement of `REQUESTS`."""
    boost = {"filter": "price<20", "factor": 1.2}
    rules = [
        {"filter": "brand!:acme"},
        {"boost": [boost], "cap": [{"property": "brand", "most": 5}]},
    ]
    asked = urllib.request.Request(
        f"{url}placements/home", json.dumps({"rules": rules}).encode(), method="PUT"
    )
    urllib.request.urlopen(asked).close()


class Figures:
    """Figures by name, one for each run."""

    def __init__(self) -> None:
        self.by_name: dict[str, list[float]] = {}

    def add(self, **figures: float) -> None:
        """Add those of a run."""
        for name, figure in figures.items():
            self.by_name.setdefault(name, []).append(figure)

    def medians(self) -> dict[str, float]:
        """The median of each."""
        return {name: median(found) for name, found in self.by_name.items()}


def driven(pid: int, url: str, seconds: int, script: str = "") -> tuple[float, float]:
    """Requests a second, and CPU microseconds of a process for each."""
    server = psutil.Process(pid)
    before = sum(server.cpu_times()[:2])
    rate, printed = wrk(url, seconds, script)
    requests = re.search(r"(\d+) requests in", printed)
    assert requests  # noqa: S101  wrk always prints it
    return rate, (sum(server.cpu_times()[:2]) - before) / int(requests[1]) * 1e6


def measure(settings: Settings, users: Sequence[str], options: argparse.Namespace) -> Figures:
    """Measure all ways to ask beside the empty route, in turn."""
    figures, empty_port = Figures(), free_port()
    empty_url, seconds = f"http://127.0.0.1:{empty_port}/", options.seconds
    url = f"http://{settings.host}:{settings.port}/"
    empty = [sys.executable, "-c", EMPTY, str(empty_port)]
    with (
        process(empty, os.environ) as empty_api,
        command("api", settings) as api,
        tempfile.NamedTemporaryFile("w") as names,
    ):
        names.write("\n".join(users))
        names.flush()
        until(lambda: answers(empty_url))
        until(lambda: answers(f"{url}healthz"), within_s=START_S)
        make_filter(url, settings.group)
        save_placement(url)

        def script(run: int, name: str, delay_ms: int = 0) -> str:
            request = REQUESTS[name]
            return SCRIPT.format(seed=run, users=names.name, request=request, delay_ms=delay_ms)

        ways = [name for name in REQUESTS if name != "session" or options.file is not None]
        for run in range(options.runs + 1):
            empty_rate, empty_us = driven(empty_api.pid, empty_url, seconds)
            found = {"empty_route_per_s": empty_rate, "empty_route_cpu_us": empty_us}
            rates = {}
            asyncio.run(serve(settings, "ranker"))
            for name in ("alike", *ways):
                asked = "recommend" if name == "alike" else name
                rates[name], cpu_us = driven(api.pid, url, seconds, script(run, asked))
                found |= {f"{name}_per_s": rates[name], f"{name}_cpu_us": cpu_us}
                found[f"{name}_share"] = rates[name] / empty_rate
                if name == "alike":
                    asyncio.run(serve(settings, "ranker-alone"))
            found["share"] = found.pop("recommend_share")
            found["personalize_times_native"] = rates["recommend"] / rates["personalize"]
            for name in ("rules", "placement", "diversity"):
                found[f"{name}_times_plain"] = rates["recommend"] / rates[name]
            delay_ms = round(1000 * CONNECTIONS / options.rate)
            reached, printed = wrk(url, seconds, script(run, "recommend", delay_ms))
            quantiles = re.search(r"p50 ([\d.]+) p99 ([\d.]+)", printed)
            assert quantiles  # noqa: S101  the script prints it
            p50_ms, p99_ms = map(float, quantiles.groups())
            found |= {"paced_per_s": reached, "paced_p50_ms": p50_ms, "paced_p99_ms": p99_ms}
            if run:  # the first warms the caches
                figures.add(**found)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--events-per-user", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rate", type=float, default=500)
    options = parser.parse_args()
    with servers() as found:
        settings = found.model_copy(update={"port": free_port()})
        ensure_topics(settings)
        if options.file is None:
            users = [f"u{number}" for number in range(options.users)]
            size = {"users": options.users, "items": options.items}
            asyncio.run(fill(settings, **size, events_per_user=options.events_per_user))
        else:
            users = asyncio.run(fill_recorded(settings, options.file))
            size = {"users": len(users), "file": options.file.parent.name}
        figures = measure(settings, users, options)
    report("serving", figures.medians(), **size, connections=CONNECTIONS, runs=options.runs)


if __name__ == "__main__":
    main()
